"""Run live canaries on real engine, executors, PostgreSQL and Prometheus: the good one ends, each bad one ends as it must."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec
import pytest
from inbox import Inbox
from live import LENIENT, Stack, StandIn, good, schema, stack
from postgres import PostgresServer
from prometheus import prometheus

from probatum.core.verdict import Verdict
from probatum.pipeline.ports import Record
from probatum.rollout.machine import Stage
from probatum.rollout.plan import Ladder, Validation

RULES = """
groups:
  - name: probatum
    interval: 200ms
    rules:
      - {alert: MLFires, expr: vector(1), labels: {severity: warning}}
      - {alert: MLQuiet, expr: vector(0) > 1, labels: {severity: critical}}
"""
OUTCOMES = {
    "error_rate": {"error", "breaker_open", "timeout"},
    "latency_p95_120ms": {"ok", "timeout"},
    "coverage": {"error", "breaker_open", "timeout"},
}
"""Which decisions stand around an abort, by the criterion that fired."""


def test_a_good_model_passes_every_phase(tmp_path: Path, postgres_server: PostgresServer) -> None:
    """Five phases of ten seconds end COMPLETED; counts come from both executors, each phase has its picture or the reason
    why not, people are told, and the evidence verifies."""
    for folder in ("prometheus", "rules"):
        (tmp_path / folder).mkdir()
    (tmp_path / "rules" / "ml.yml").write_text(RULES)
    with (
        stack(tmp_path, schema(postgres_server)) as live,
        prometheus(
            tmp_path / "prometheus",
            executors=[e.url for e in live.executors],
            engines=[live.engine.url],
            rules=tmp_path / "rules",
        ) as prom,
    ):
        ladder = Ladder((5, 10, 25, 50, 100), phase_s=10, poll_s=1, stale_s=5, source_deadline_s=20)
        rollout = live.prepare("good", ladder)
        inbox = Inbox()
        live.controller(prom.url, "--notify", inbox.url)
        live.start("good")
        state = live.wait(rollout, lambda state: state.stage not in (Stage.AWAITING_CONFIRMATION, Stage.RUNNING), 150)
        assert state.stage is Stage.COMPLETED, state
        errors = state.streams["errors"]
        assert errors.n >= 375 * 0.9
        assert [len(s.segments) for s in state.streams.values()] == [5] * len(state.streams)
        run = live.wait_for_record("canary_run", "good")
        raw = run.body["figures"]["measurements"]["errors"]["raw"]
        assert len({name.partition("@")[0] for name in raw}) == 2
        assert run.body["figures"]["verdict"] == Verdict.PASS
        beside, alerts = run.body["figures"]["against_baseline"], run.body["figures"]["alerts"]
        # the log is a second ahead of what was last scraped
        assert abs(beside["counted_by_metrics"] - beside["attempts"]) <= 0.05 * beside["attempts"] + 60
        assert beside["ok"] + beside["failures"] == beside["attempts"]
        assert beside["canary_latency_ms"]["p50"] > 0
        assert [(row["alertname"], row["counts_as"]) for row in alerts["alerts"]] == [("MLFires", "warning")]
        assert (alerts["warning"], alerts["critical"]) == (1, 0)
        live.run("evidence", "export")
        for name in ("GREEN_EVIDENCE.md", "report.html"):
            text = (live.space.root / "evidence" / "ml" / name).read_text()
            assert "Canary against baseline" in text
            assert "MLFires" in text
        while "good: completed" not in inbox.got.get(timeout=30)["message"]:
            pass
        told = [record.body["inputs"]["event"] for record in _pictures(live, 5)]
        assert len(set(told)) == 5
        assert live.shares() == [1.0, 1.0]  # a completed canary still watches
        began = time.monotonic()
        live.command("abort", "good", "--by", "ada", "--reason", "over")
        while live.shares() != [0.0, 0.0]:
            assert time.monotonic() - began < 10
        assert live.wait(rollout, lambda state: state.stage is Stage.ABORTED)
        live.check("good")
        live.verify()


def test_validation_exposure_and_rollback_by_command(tmp_path: Path) -> None:
    """`canary validate` watches a canary and an exposure to VALIDATED; what is not live is not promoted; rollback is at once."""
    ladder = Ladder((50, 100), phase_s=3, hold_factor=100, poll_s=1, stale_s=30, source_deadline_s=60)
    policy = msgspec.structs.replace(LENIENT, validation=Validation(4, 60, 60))
    with stack(tmp_path, None) as live:
        live.controller()
        for name, units in (("canary", None), ("exposure", 500)):
            rollout = live.prepare(name, ladder, policy, units)
            live.traffic.exposed = units is not None
            assert "means nothing" in live.command("validate", name, "-o", "json", code=1)
            live.start(name)
            live.wait(rollout, lambda state: state.stage is Stage.COMPLETED)
            begun = json.loads(live.command("validate", name, "--by", "ada", "-o", "json"))
            assert (begun["stage"], begun["elapsed_s"], begun["needs_s"]) == ("validating", 0, 4)
            assert "validated" in live.command("status", name, "--watch")
            assert live.wait_for_record("validation", name).body["figures"]["validation_s"] >= 4
            assert (live.traffic.by_champion > 0) == live.traffic.exposed
            assert "evidence is synthetic" in live.run("promote", name, "--by", "ada", "-o", "json", code=1)
        live.run("rollback", "exposure", "--by", "ada")
        assert live.wait(rollout, lambda state: state.stage is Stage.ROLLED_BACK)
        while live.shares() != [0.0, 0.0]:
            time.sleep(0.02)
        live.traffic.exposed = False  # from here on the champion must not answer
        time.sleep(0.5)
        live.check("canary")
        live.check("exposure")
        live.verify()


def _pictures(live: Stack, wanted: int) -> list[Record]:
    """Wait until so many pictures are recorded: they are taken beside the rollout, one after another."""
    for _ in range(600):
        if len(found := list(live.space.ledger.records(kind="dashboard_picture"))) >= wanted:
            return found
        time.sleep(0.1)
    raise AssertionError([record.body["figures"] for record in found])


def one_in_five_fails() -> StandIn:
    numbers = count()
    engine = StandIn()
    engine.answer = lambda rows: (500, "{}") if next(numbers) % 5 == 0 else good(rows)
    return engine


def slow() -> StandIn:
    engine = StandIn()

    def answer(rows: int) -> tuple[int, str]:
        time.sleep(0.15)
        return good(rows)

    engine.answer = answer
    return engine


class Refusing(StandIn):
    """Nobody listens: calls fail at once, and the breaker opens."""

    def __init__(self) -> None:
        super().__init__()
        self.stop()

    def stop(self) -> None:
        if self._server.socket.fileno() >= 0:
            super().stop()


@pytest.fixture
def bad(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Stack]:
    with stack(tmp_path, schema(postgres_server), request.param()) as live:
        yield live


@pytest.mark.parametrize(
    ("bad", "fired"),
    [(one_in_five_fails, "error_rate"), (slow, "latency_p95_120ms"), (Refusing, "coverage")],
    indirect=["bad"],
    ids=["errors", "slow", "breaker-open"],
)
def test_a_bad_model_is_aborted(bad: Stack, fired: str, tmp_path: Path) -> None:
    """20 % errors, slow replies, an open breaker: aborted by the criterion that is about it, at share 0 everywhere."""
    (tmp_path / "prometheus").mkdir()
    with prometheus(tmp_path / "prometheus", executors=[e.url for e in bad.executors], engines=[]) as prom:
        rollout = bad.prepare("bad", Ladder((50, 100), phase_s=10, poll_s=1, stale_s=5, source_deadline_s=20))
        bad.start("bad")
        while fired == "coverage" and not all(e.get("/shadow/metrics")["breaker"]["trips"] for e in bad.executors):
            time.sleep(0.1)
        bad.controller(prom.url)
        state = bad.wait(rollout, lambda state: state.stage in (Stage.ABORTED, Stage.COMPLETED))
        assert state.stage is Stage.ABORTED
        assert fired in state.reason
        if fired == "coverage":
            uncovered, errors = state.streams["uncovered"], state.streams["errors"]
            assert uncovered.n > errors.n  # the breaker was open: due, and not asked
        while bad.shares() != [0.0, 0.0]:
            time.sleep(0.02)
        report = bad.wait_for_record("canary_run", "bad")
        cause = report.body["figures"]["root_cause"]
        assert fired in {check["name"] for check in cause["fired"]}
        assert {row["outcome"] for row in cause["decisions"]} <= OUTCOMES[fired]
        assert 0 < len(cause["decisions"]) <= 10
        assert all(report.body["figures"]["started"] <= row["ts"] for row in cause["decisions"])
        assert "no alert rule" in report.body["figures"]["alerts"]["problem"]
        bad.check("bad")
        bad.verify()


@pytest.mark.parametrize("bad", [StandIn], indirect=True, ids=["quiet"])
def test_without_traffic_it_is_inconclusive_and_holds(bad: Stack, tmp_path: Path) -> None:
    """When decisions stop, nothing is proven and nothing is broken: it holds for a human and says what lacks."""
    (tmp_path / "prometheus").mkdir()
    with prometheus(tmp_path / "prometheus", executors=[e.url for e in bad.executors], engines=[]) as prom:
        rollout = bad.prepare(
            "quiet", Ladder((50, 100), phase_s=6, hold_factor=1, poll_s=1, stale_s=3, source_deadline_s=30)
        )
        bad.controller(prom.url)
        bad.start("quiet")
        bad.wait(rollout, lambda state: state.streams.get("errors") is not None and state.streams["errors"].n > 5)
        bad.traffic.on.clear()
        state = bad.wait(rollout, lambda state: state.stage is not Stage.RUNNING)
        assert state.stage is Stage.HOLDING
        assert state.verdict is Verdict.INCONCLUSIVE
        assert "no new sample" in state.reason or "short of a proof" in state.reason
        assert state.phase == 0
        bad.check("quiet")
        bad.verify()
