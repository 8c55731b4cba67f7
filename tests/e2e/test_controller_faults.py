"""Hurt the controller, its database and its sources with real processes: no phase skipped or repeated, no share too high."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Stack, judged, quick, schema, stack, until_role, watched
from postgres import PostgresServer
from prometheus import prometheus

from probatum.pipeline.rollout import KIND
from probatum.rollout.machine import Stage

STEPS = (5, 10, 25, 50, 100)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Stack]:
    """One engine and two executors on PostgreSQL for all faults; each test runs a rollout of its own."""
    with stack(tmp_path_factory.mktemp("live"), schema(postgres_server)) as found:
        yield found
        found.verify()


@pytest.fixture
def fresh(live: Stack) -> Iterator[Stack]:
    """The stack without a controller, before and after."""
    yield live
    for item in live.controllers:
        item.process.send_signal(signal.SIGCONT)
        item.kill()
    live.controllers.clear()


def test_killed_at_every_transition(fresh: Stack) -> None:
    """Killed -9 as soon as each transition shows in the ledger, and at random moments between: every phase once, in order."""
    rng = random.Random(7)
    rollout = fresh.prepare("killed", quick(*STEPS))
    controller = fresh.controller()
    with watched(fresh):
        fresh.start("killed")
        phase = -1
        while rollout.state.stage is not Stage.COMPLETED:
            rollout.refresh()
            if rollout.state.phase != phase or rng.random() < 0.001:
                phase = rollout.state.phase
                controller.kill()
                controller = fresh.controller()
            assert rollout.state.stage in (Stage.RUNNING, Stage.COMPLETED), rollout.state
            time.sleep(0.005)
        controller.kill()
        fresh.controller()
        fresh.wait_for_record("canary_run", "killed")
        fresh.command("abort", "killed", "--by", "ada")
    fresh.check("killed")
    stages = [r.body["figures"]["state"] for r in fresh.space.ledger.records(kind=KIND, subject="killed")]
    assert [s["phase"] for s in stages if s["phase"] >= 0] == sorted(s["phase"] for s in stages if s["phase"] >= 0)
    assert len({s["phase"] for s in stages if s["stage"] == "running"}) == len(STEPS)


def test_database_fails(fresh: Stack, postgres_server: PostgresServer) -> None:
    """Restarted in one phase and gone for a while in the next: nobody serves a share meanwhile, then it goes on."""
    rollout = fresh.prepare("database", quick(50, 100, phase_s=3))
    fresh.controller()
    with watched(fresh):
        fresh.start("database")
        fresh.wait(rollout, judged(20))
        postgres_server.stop()
        postgres_server.start()
        fresh.wait(rollout, lambda state: state.phase == 1)
        postgres_server.stop()
        while fresh.shares() != [0.0, 0.0]:
            time.sleep(0.05)
        time.sleep(3)
        postgres_server.start()
        assert fresh.wait(rollout, lambda state: state.stage is not Stage.RUNNING).stage is Stage.COMPLETED
        fresh.command("abort", "database", "--by", "ada")
    fresh.check("database")


def test_prometheus_dies(fresh: Stack, tmp_path: Path) -> None:
    """A source that comes back costs time; one that stays away aborts at the deadline, and nothing advances meanwhile."""
    with prometheus(tmp_path, executors=[e.url for e in fresh.executors], engines=[fresh.engine.url]) as server:
        rollout = fresh.prepare("blind", quick(50, 100, phase_s=3, stale_s=2, source_deadline_s=10))
        controller = fresh.controller(server.url)
        fresh.start("blind")
        fresh.wait(rollout, judged(20))
        server.process.send_signal(signal.SIGSTOP)
        while "prometheus" not in controller.get("/status")["rollouts"][-1]["source"]:
            time.sleep(0.05)
        assert rollout.state.phase == 0
        server.process.send_signal(signal.SIGCONT)
        fresh.wait(rollout, lambda state: state.phase == 1)
        server.kill()
        state = fresh.wait(rollout, lambda state: state.stage is not Stage.RUNNING)
    assert state.stage is Stage.ABORTED
    assert state.phase == 1
    assert "no usable measurement" in state.reason
    while fresh.shares() != [0.0, 0.0]:
        time.sleep(0.02)
    fresh.check("blind")


def test_second_controller_takes_over(fresh: Stack) -> None:
    """Of two controllers one leads, also while it is stopped and may wake up again; the other takes over when it is dead."""
    rollout = fresh.prepare("two", quick(50, 100))
    first = fresh.controller()
    until_role(first, "leading")
    second = fresh.controller()
    with watched(fresh):
        fresh.start("two")
        fresh.wait(rollout, judged(20))
        first.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        assert second.get("/status")["role"] == "waiting"
        first.process.send_signal(signal.SIGCONT)
        first.kill()
        until_role(second, "leading")
        assert fresh.wait(rollout, lambda state: state.stage is not Stage.RUNNING).stage is Stage.COMPLETED
        fresh.command("abort", "two", "--by", "ada")
    fresh.check("two")


def test_executor_that_misses_an_abort(fresh: Stack) -> None:
    """An executor that slept through the abort serves nothing when it wakes: its lease lapsed while it slept."""
    rollout = fresh.prepare("asleep", quick(100, phase_s=60))
    controller = fresh.controller()
    with watched(fresh):
        fresh.start("asleep")
        fresh.wait(rollout, judged(20))
        sleeper = fresh.executors[0]
        sleeper.process.send_signal(signal.SIGSTOP)
        # nobody can say what the sleeper does: the reading is void
        while "scrape" not in controller.get("/status")["rollouts"][-1]["source"]:
            time.sleep(0.05)
        fresh.command("abort", "asleep", "--by", "ada")
        sleeper.process.send_signal(signal.SIGCONT)
        for _ in range(20):
            assert sleeper.get("/health")["share"] == 0.0
        assert rollout.plan.ladder.shares_percent == (100,)
    assert fresh.wait(rollout, lambda state: state.stage is Stage.ABORTED)
    fresh.check("asleep")
