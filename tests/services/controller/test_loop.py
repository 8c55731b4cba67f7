"""The controller's loop against a ledger in memory and a source that says what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from seed import write_seed_artifact

from probatum.core.clock import NS_PER_S, VirtualClock
from probatum.core.errors import OvertakenError, StorageError
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.rollout import KIND, Rollout
from probatum.rollout.choose import Mode
from probatum.rollout.confirm import build_phrase
from probatum.rollout.events import Confirmed, DryRunDone, PreflightDone
from probatum.rollout.machine import Stage, required_permission
from probatum.rollout.measurement import RateMeasurement
from probatum.rollout.plan import Ladder, Plan
from probatum.rollout.policy import shipped_policy
from probatum.rollout.reading import Reading
from probatum.services.controller.loop import Controller, last_read
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry
from probatum.testing.fakes import MemorySources


class Fakes:
    """A confirmed rollout in memory, a lead that can be lost, a source that can be silent, effects that can fail."""

    def __init__(self, tmp_path: Any) -> None:
        self.sources = MemorySources()
        self.model = self.sources.blobs.put("artifact", write_seed_artifact(tmp_path / "a.json").read_bytes())
        policy = msgspec.structs.replace(shipped_policy("default"), canary=Ladder((50, 100), phase_s=10, poll_s=1))
        plan = Plan(name="r", mode=Mode.OBSERVE, policy=policy, model=self.model, rate_per_s=100.0)
        self.clock = VirtualClock(1_704_067_200 * NS_PER_S)
        self.rollout = Rollout(self.sources.ledger, self.sources, "r", controls=True)
        now = self.clock.now_ns()
        self.rollout.open(plan, now)
        self.rollout.apply(PreflightDone(now, Verdict.PASS, "e" * 64, Provenance.SYNTHETIC))
        self.rollout.apply(DryRunDone(now, Verdict.PASS, "d" * 64, plan.digest, now))
        phrase = build_phrase(required_permission(plan, self.rollout.state, now))
        self.rollout.apply(Confirmed(now, phrase, "demo"))
        self.began, self.n, self.models, self.silent = now, 0, frozenset({self.model}), False
        self.epoch: int | None = 1
        self.sources.ledger.epoch = 1
        self.lost, self.resigned, self.failing = False, False, False
        self.done: list[str] = []
        self.registry = Registry()

    def controller(self) -> Controller:
        return Controller(
            self.sources.ledger, self.sources, self, self, lambda _: self, self.clock, self.registry
        )  # fmt: skip

    def second(self, controller: Controller, n: int = 100) -> None:
        self.clock.advance(NS_PER_S)
        self.n += n
        controller.tick()
        self.rollout.refresh()

    # leadership
    def lead(self) -> int | None:
        if self.lost:
            raise StorageError("who leads is not known")
        return self.epoch

    def resign(self) -> None:
        self.resigned = True

    # source
    def read(self, run: str, before: Mapping[str, RateMeasurement]) -> Reading:  # noqa: ARG002
        assert run == "r#1"
        if self.silent:
            return Reading(problem="silent")
        now = self.clock.now_ns()
        names = ("errors", "slower_than_80ms", "slower_than_120ms", "uncovered", "mismatches", "outcome_losses")
        return Reading(
            tuple(
                RateMeasurement(measure=name, n=self.n, bad=0, first_ts=self.began if self.n else None,
                                last_ts=now if self.n else None, read_ts=now, source="fake", query="all",
                                provenance=Provenance.SYNTHETIC)
                for name in names
            ),
            self.models,
        )  # fmt: skip

    # effects
    def set_share(self, rollout: Rollout, percent: int) -> None:  # noqa: ARG002
        self.done.append(f"share {percent}")

    def record(self, rollout: Rollout, effect: Any) -> None:  # noqa: ARG002
        if self.failing:
            raise StorageError("disk full")
        self.done.append(effect.kind)

    def tag(self, rollout: Rollout, kind: str) -> None:  # noqa: ARG002
        self.done.append(kind)

    def move_alias(self, rollout: Rollout, alias: str, to: str) -> None:  # noqa: ARG002
        raise AssertionError("nothing is promoted here")

    def notify(self, rollout: Rollout, text: str) -> None:
        pass


@pytest.fixture
def fakes(tmp_path: Any) -> Fakes:
    return Fakes(tmp_path)


def test_it_leads_a_rollout_to_its_end(fakes: Fakes) -> None:
    """Each due second is one event; at the end the run is recorded, and what is shown is the state."""
    controller = fakes.controller()
    for _ in range(25):
        fakes.second(controller)
    assert fakes.rollout.state.stage is Stage.COMPLETED
    assert {"run", "rc"} <= set(fakes.done)
    (shown,) = controller.status["rollouts"]
    assert (shown["stage"], shown["share_percent"], controller.status["role"]) == ("completed", 100, "leading")
    assert fakes.registry.value(metrics.CANARY_SHARE, "r", "r#1") == 100.0


def test_who_waits_does_nothing(fakes: Fakes) -> None:
    """Without the lead, or without knowing who leads, nothing is read or appended."""
    controller, before = fakes.controller(), fakes.sources.ledger.head()
    fakes.epoch = None
    fakes.second(controller)
    assert (controller.status["role"], controller.status["problem"]) == ("waiting", "")
    fakes.epoch, fakes.lost = 1, True
    fakes.second(controller)
    assert controller.status["problem"] == "who leads is not known"
    assert fakes.sources.ledger.head() == before


def test_a_deposed_controller_asks_anew(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that is refused because another led in between changes nothing, and the next tick begins from the ledger."""
    controller, append = fakes.controller(), fakes.sources.ledger.append_all
    fakes.second(controller)
    before = fakes.sources.ledger.head()

    def refuse(*_: object, **__: object) -> None:
        raise OvertakenError("another leads")

    monkeypatch.setattr(fakes.sources.ledger, "append_all", refuse)
    fakes.second(controller)
    assert (controller.status["role"], fakes.sources.ledger.head()) == ("waiting", before)
    monkeypatch.setattr(fakes.sources.ledger, "append_all", append)
    fakes.second(controller)
    assert controller.status["role"] == "leading"
    assert fakes.sources.ledger.head() != before


def test_a_clock_that_is_put_back_puts_no_reading_off(fakes: Fakes) -> None:
    """After an hour ahead and back the very next second is read, and the phases go on."""
    controller = fakes.controller()
    fakes.second(controller)
    for jump_s in (3_600, -3_600):
        fakes.clock._now_ns += jump_s * NS_PER_S
        before = fakes.sources.ledger.head()
        fakes.second(controller)
        assert fakes.sources.ledger.head() != before
    for _ in range(25):
        fakes.second(controller)
    assert fakes.rollout.state.stage is Stage.COMPLETED, fakes.rollout.state.reason


def test_failing_effects_hold_up_no_abort(fakes: Fakes) -> None:
    """Evidence that cannot be written is tried again; the share has been 0 since the event."""
    controller = fakes.controller()
    fakes.second(controller)
    fakes.failing, fakes.silent = True, True
    for _ in range(310):
        fakes.second(controller, 0)
    assert fakes.rollout.state.stage is Stage.ABORTED
    assert "root_cause" not in fakes.done
    fakes.failing = False
    fakes.second(controller)
    assert "root_cause" in fakes.done


def test_another_model_voids_the_run(fakes: Fakes) -> None:
    """An engine that serves something else than the plan's model ends the rollout."""
    controller = fakes.controller()
    fakes.models |= {"f" * 64}
    fakes.second(controller)
    assert fakes.rollout.state.stage is Stage.ABORTED
    assert "model was changed" in fakes.rollout.state.reason


def test_a_new_controller_goes_on_from_the_last_reading(fakes: Fakes) -> None:
    """What was last read is in the ledger, raw values included, and silence does not hide it."""
    controller = fakes.controller()
    fakes.second(controller)
    fakes.silent = True
    fakes.second(controller)
    found = last_read(fakes.sources.ledger, "r")
    assert found["errors"].n == 100
    assert sum(1 for _ in fakes.sources.ledger.records(kind=KIND, subject="r")) == 6
