"""Faults that take their time, side by side: a database that is gone for a minute, and meanwhile a clock that jumps by hours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from live import LENIENT, Stack, judged, quick, schema, stack, until_role, watched
from postgres import PostgresServer, find_binaries
from tests.conftest import require_service

from probatum.core.clock import NS_PER_S, parse_utc
from probatum.pipeline.rollout import KIND, Rollout
from probatum.rollout.machine import Stage

GONE_S = 60.0


class Outage:
    """A canary in its first phase whose database was stopped."""

    def __init__(self, server: PostgresServer, live: Stack) -> None:
        self.server, self.live = server, live
        self.rollout: Rollout = live.prepare("gone", quick(50, 100, phase_s=8, hold_factor=100, stale_s=30), LENIENT)
        self.controller = live.controller()
        live.start("gone")
        live.wait(self.rollout, judged(20))
        server.stop()
        self.since = time.monotonic()
        self.phase = self.rollout.state.phase


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    """Begin the outage; the tests that come first make use of the minute."""
    binaries = find_binaries()
    require_service("PostgreSQL", binaries)
    assert binaries is not None
    server = PostgresServer(binaries)
    with stack(tmp_path_factory.mktemp("gone"), schema(server)) as live:
        yield Outage(server, live)
    server.close()


@pytest.mark.usefixtures("outage")
def test_the_controllers_clock_jumps(tmp_path: Path) -> None:
    """An hour ahead, back, an hour behind, and back: no phase is skipped, shortened or repeated, and the run goes on."""
    faketime = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    require_service("libfaketime", faketime)
    offset = tmp_path / "offset"
    offset.write_text("+0")
    fake = {"LD_PRELOAD": str(faketime), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    with stack(tmp_path, None) as live, watched(live):
        rollout = live.prepare(
            "jumping", quick(25, 50, 100, phase_s=4, source_deadline_s=60, hold_factor=100, stale_s=30), LENIENT
        )
        until_role(live.controller(**fake, DONT_FAKE_MONOTONIC="1", FAKETIME_DONT_FAKE_MONOTONIC="1"), "leading")
        live.start("jumping")
        began = time.monotonic()
        for seconds in ("+3600", "+0", "-3600", "+0"):
            live.wait(rollout, judged(20))
            offset.write_text(seconds)
            seen = rollout.head.seq if rollout.head else 0
            live.wait(rollout, lambda _, seen=seen: rollout.head is not None and rollout.head.seq > seen + 2)
        state = live.wait(rollout, lambda state: state.stage is not Stage.RUNNING)
        assert state.stage is Stage.COMPLETED, state.reason
        assert time.monotonic() - began >= 3 * 4
        live.wait_for_record("canary_run", "jumping")
        live.command("abort", "jumping", "--by", "ada")
        times = [
            parse_utc(record.body["inputs"]["event"]["ts"])
            for record in live.space.ledger.records(kind=KIND, subject="jumping")
        ]
        jumps = [round((after - before) / NS_PER_S / 600) for before, after in pairwise(times)]
        assert [jump for jump in jumps if jump] == [6, -6, -6, 6]
        live.check("jumping")
        live.verify()


def test_the_database_is_gone_for_a_minute(outage: Outage) -> None:
    """Nobody serves a share meanwhile, the controller outlives it, and then the run goes on where it stood."""
    live, rollout = outage.live, outage.rollout
    while live.shares() != [0.0, 0.0]:
        assert time.monotonic() - outage.since < GONE_S
        time.sleep(0.05)
    time.sleep(max(0.0, outage.since + GONE_S - time.monotonic()))
    assert live.shares() == [0.0, 0.0]
    assert outage.controller.get("/status")["role"] == "waiting"
    outage.server.start()
    with watched(live):
        state = live.wait(rollout, lambda state: state.stage is not Stage.RUNNING)
        assert (outage.phase, state.stage) == (0, Stage.COMPLETED), state.reason
        live.wait_for_record("canary_run", "gone")
        live.command("abort", "gone", "--by", "ada")
    live.check("gone")
    live.verify()
