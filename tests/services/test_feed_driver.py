"""The driver decides on what it has seen in full, in the order of the batch path, and abstains from the rest."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probatum.adapters.importers import read_files
from probatum.adapters.importers.ws import decode
from probatum.core.clock import NS_PER_MINUTE, NS_PER_MS, NS_PER_S, SystemClock, VirtualClock
from probatum.core.errors import ParameterError, StorageError
from probatum.core.verdict import Provenance
from probatum.features.events import dataset_events
from probatum.features.fold import fold
from probatum.features.sets import get_feature_set
from probatum.features.state import FeatureState
from probatum.market.events import BAR, QUOTE, TRADE
from probatum.market.quality import screen
from probatum.market.ticks import Notice, Tick
from probatum.models.baseline import get_baseline
from probatum.monitoring.feed import Finding
from probatum.monitoring.shadow import DecisionRow
from probatum.rollout.breaker import Breaker
from probatum.rollout.choose import Mode
from probatum.rollout.lease import RolloutDocument, StaticRollout
from probatum.services.executor.book import Book
from probatum.services.executor.caller import Caller
from probatum.services.executor.client import EngineClient
from probatum.services.executor.decide import Executor
from probatum.services.executor.feed import DriveSettings, FeedDriver
from probatum.services.executor.schema import DecisionRequest, MarketEvent
from probatum.services.executor.shadow import Shadow, ShadowSettings
from probatum.services.http import RequestError
from probatum.services.telemetry.registry import Registry
from probatum.testing.feeds import MemoryFeed

SET = get_feature_set("v1.8-b0")
BOOK = get_feature_set("book", frozenset({"sizes", "trades", "spread"}))
M0 = 1_700_000_040 * NS_PER_S  # on a minute


def bars(until_ns: int, count: int = 1_700, price: float = 100.0) -> list[Tick]:
    return [
        Tick(BAR, "X", ts, ts, None, price + (ts // NS_PER_MINUTE) % 7, float("nan"), 3.0)
        for ts in range(until_ns - (count - 1) * NS_PER_MINUTE, until_ns + 1, NS_PER_MINUTE)
    ]


def quote(ts: int, number: int, bid: float = 100.0) -> Tick:
    return Tick(QUOTE, "X", ts, ts, number, bid, bid + 1.0, 1.0, 1.0)


def trade(ts: int, number: int, size: float = 1.0) -> Tick:
    return Tick(TRADE, "X", ts, ts, number, 100.0, size, 1.0)


def book(minutes: int = 100) -> Book:
    return Book("X", lambda: FeatureState(SET, None), minutes, Counter())


@pytest.mark.real_data
@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_the_driver_gives_the_vectors_of_the_batch_path(shared_data: Path, market: str) -> None:
    """A capture, ticks shuffled within their hold: at every second bitwise the vector that the imported capture gives."""
    path = shared_data / "binance_ws" / f"{market}_btcusdt_20240808.gz"
    dataset = screen(read_files("binance-ws", [path])).dataset
    frame = fold(BOOK, dataset_events(dataset, grid_ns=NS_PER_S), tick_size=None)
    lines = [line.partition(b" ") for line in gzip.decompress(path.read_bytes()).splitlines()]
    ticks = [tick for local, _, body in lines if isinstance(tick := decode(body, int(local)), Tick)]
    held = Book("BTCUSDT", lambda: FeatureState(BOOK, None), 0, Counter())
    held.warm([], 0, 1)
    rng, place, checked = random.Random(2), 0, 0
    for i, ts in enumerate(frame.ts.tolist()):
        come = []
        while place < len(ticks) and (ticks[place].ts_recv if market == "spot" else ticks[place].ts_event or 0) <= ts:
            come.append(ticks[place])
            place += 1
        rng.shuffle(come)
        held.pending += come
        ready = held.advance(ts)
        assert ready == bool(frame.ready[i])
        if ready:
            assert held.state is not None
            assert held.state.values.tobytes() == np.asarray(frame.values[i]).tobytes()
            checked += 1
    assert checked > 250


def test_features_are_ready_from_bars_and_one_quote() -> None:
    """After the warm-up a vector is ready with the first real quote, not before: bars have no spread."""
    held = book()
    assert held.lacks(5) == "warming_up"
    assert held.warm(bars(M0), M0 + 5 * NS_PER_S, 5)
    assert not held.advance(M0 + 6 * NS_PER_S)
    held.pending.append(quote(M0 + 6 * NS_PER_S + 1, 1))
    assert held.advance(M0 + 7 * NS_PER_S)
    assert held.lacks(5) is None
    assert held.state is not None
    values = dict(zip(SET.names, held.state.values.tolist(), strict=True))
    assert (values["mid"], values["vol1m"]) == (100.5, 3.0)


def test_bars_that_lag_are_waited_for() -> None:
    """Where the last closed minute is not there yet, nothing is warmed up with less."""
    assert not book().warm(bars(M0 - NS_PER_MINUTE), M0 + 1, 5)


def test_a_minute_begun_in_the_middle_is_taken_from_its_bar() -> None:
    """Its volume would be too small: at its end the driver abstains, begins anew from bars, and loses no tick after it."""
    held = book()
    held.warm(bars(M0), M0 + 30 * NS_PER_S, 5)
    held.pending += [quote(M0 + 31 * NS_PER_S, 1), trade(M0 + 32 * NS_PER_S, 1, 0.5)]
    end = M0 + NS_PER_MINUTE
    held.pending += [trade(end + 2, 2, 8.0), quote(end + 3, 2, 200.0)]
    assert held.advance(end - NS_PER_S)
    assert held.lacks(5) is None
    held.advance(end + NS_PER_S)
    assert held.lacks(5) == "gap"
    assert held.is_due(5, end + 1)
    assert held.warm(bars(end), end + 2 * NS_PER_S, 5)
    assert held.advance(end + 2 * NS_PER_S)
    assert held.lacks(5) is None
    assert held.state is not None
    assert dict(zip(SET.names, held.state.values.tolist(), strict=True))["vol1m"] == 3.0
    held.pending.append(quote(end + NS_PER_MINUTE - 1, 3))
    held.advance(end + NS_PER_MINUTE)
    assert dict(zip(SET.names, held.state.values.tolist(), strict=True))["vol1m"] == 8.0
    assert not held.is_due(5, end + 2 * NS_PER_MINUTE)


def test_late_ticks_are_counted_and_a_late_trade_breaks_its_minute() -> None:
    """A tick whose instant was decided already cannot be used: quotes are counted, trades spoil the volume."""
    held = book()
    held.warm(bars(M0), M0, 5)
    held.advance(M0 + 10 * NS_PER_S)
    held.pending.append(quote(M0 + 9 * NS_PER_S, 1))
    held.advance(M0 + 11 * NS_PER_S)
    assert (held._dropped["late"], held.broken_ns) == (1, 0)
    held.pending.append(trade(M0 + 9 * NS_PER_S, 1))
    held.advance(M0 + 12 * NS_PER_S)
    assert (held._dropped["late"], held.broken_ns) == (2, M0 + 9 * NS_PER_S)
    assert held.is_due(held.broken_ns, M0 + 12 * NS_PER_S)


def test_a_row_says_since_when_ticks_explain_it() -> None:
    """Without bars since the first tick, and no timer before it; with bars not before they are forgotten."""
    bare = book(0)
    bare.warm([], M0, 5)
    bare.advance(M0 + NS_PER_S)
    assert (bare.since_ns, bare.applied_ns) == (0, M0 + NS_PER_S)
    bare.pending.append(quote(M0 + NS_PER_S + 7, 1))
    bare.advance(M0 + 2 * NS_PER_S)
    assert bare.since_ns == M0 + NS_PER_S + 7
    held = book(100)
    held.warm(bars(M0), M0, 5)
    held.pending.append(quote(M0 + 7, 1))
    held.advance(M0 + NS_PER_S)
    assert held.since_ns == 0
    held.warm(bars(M0 + NS_PER_MINUTE), M0 + NS_PER_MINUTE + NS_PER_S, 5)  # the minute begun in the middle
    held.pending.append(quote(M0 + NS_PER_MINUTE + 7, 2))
    held.advance(M0 + 100 * NS_PER_MINUTE)
    assert held.since_ns == 0
    held.advance(M0 + 102 * NS_PER_MINUTE)
    assert held.since_ns == M0 + NS_PER_MINUTE + 7


def test_impossible_values_are_refused_and_counted() -> None:
    """A crossed quote moves nothing."""
    held = book()
    held.warm(bars(M0), M0, 5)
    held.pending += [quote(M0 + 1, 1), Tick(QUOTE, "X", M0 + 2, M0 + 2, 2, 9.0, 1.0, 1.0, 1.0)]
    assert held.advance(M0 + NS_PER_S)
    assert held._dropped["refused"] == 1


class Log:
    def __init__(self) -> None:
        self.rows: list[DecisionRow] = []

    def append(self, row: DecisionRow) -> bool:
        self.rows.append(row)
        return True


def executor_of(log: Log, clock: SystemClock | VirtualClock, registry: Registry) -> Executor:
    now_ns = time.monotonic_ns
    caller = Caller(
        EngineClient("http://127.0.0.1:9", connections_max=1),
        SET.fingerprint,
        Breaker(ShadowSettings().breaker),
        now_ns,
    )
    shadow = Shadow(caller, ShadowSettings(), now_ns, log, registry)
    return Executor(
        SET, get_baseline("direction"), shadow, StaticRollout(RolloutDocument(mode=Mode.OFF, share=0.0)), clock=clock,
        now_ns=now_ns, registry=registry, run_id="t", fed=True,
    )  # fmt: skip


class Labels:
    """Stand in for the outcomes: keep the rows that it is told."""

    kinds = frozenset[int]()

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, float]] = []

    def row(self, symbol: str, ts: int, mid: float) -> None:
        self.rows.append((symbol, ts, mid))


class Stage:
    """A driver on a feed in memory and the real clock, with a grid of 100 ms."""

    def __init__(self, items: Sequence[Tick | Notice], history: Sequence[Tick], rows_ns: int = NS_PER_MINUTE) -> None:
        self.log, self.registry, self.found = Log(), Registry(), list[Finding]()
        self.executor = executor_of(self.log, SystemClock(), self.registry)
        self.labels = Labels()
        self.executor.outcomes = self.labels  # type: ignore[assignment]
        self.feed = MemoryFeed(["X"], items, history)
        settings = DriveSettings(grid_ns=100 * NS_PER_MS, rows_ns=rows_ns, hold_ns=20 * NS_PER_MS, retry_s=0.05)
        self.driver = FeedDriver(
            self.feed, self.executor, lambda: FeatureState(SET, None), clock=SystemClock(), registry=self.registry,
            tell=self.found.append, settings=settings,
        )  # fmt: skip

    async def run(self, seconds: float) -> None:
        self.driver.start()
        await asyncio.sleep(seconds)
        await self.driver.stop()


def now() -> int:
    return SystemClock().now_ns()


def closed() -> int:
    return now() // NS_PER_MINUTE * NS_PER_MINUTE


def test_decisions_are_taken_on_the_grid_and_bear_the_feed() -> None:
    """Ready within the first second after the warm-up; each decision at its own grid instant, none of the future."""
    if now() - closed() > 57 * NS_PER_S:
        time.sleep(3.5)  # not over the end of a minute
    stage = Stage([Notice("connected", now()), quote(now(), 1)], bars(closed()))
    asyncio.run(stage.run(1.5))
    instants = [row.as_of for row in stage.log.rows]
    assert len(instants) >= 5
    assert instants == sorted(set(instants))
    assert all(ts % (100 * NS_PER_MS) == 0 and ts <= row.ts for ts, row in zip(instants, stage.log.rows, strict=True))
    assert {(row.strategy, row.symbol) for row in stage.log.rows} == {("feed", "X")}
    page = stage.registry.expose().decode()
    assert 'ml_feed_messages_total{symbol="X"} 1' in page
    assert 'ml_feed_connections_total{outcome="made"} 1' in page


def test_rows_are_labelled_from_bars_and_then_from_ticks() -> None:
    """Minutes: the bars' closes, each once. Below a minute: the mid at each instant that was not abstained from."""
    items = [Notice("connected", now()), quote(now(), 1)]
    minutes = Stage(items, bars(closed(), 30))
    asyncio.run(minutes.run(0.5))
    told = [row[1] for row in minutes.labels.rows]
    assert told == sorted(set(told))
    assert len(told) in (30, 31)  # one more where a minute ends meanwhile
    fine = Stage([Notice("connected", now()), quote(now(), 1)], bars(closed()), rows_ns=100 * NS_PER_MS)
    asyncio.run(fine.run(1.0))
    assert fine.labels.rows
    assert {(mid, ts % (100 * NS_PER_MS)) for _, ts, mid in fine.labels.rows} == {(100.5, 0)}
    assert {row.as_of for row in fine.log.rows} <= {ts for _, ts, _ in fine.labels.rows}


def test_without_bars_nothing_is_decided_and_the_reason_is_counted() -> None:
    """A feed that cannot warm up: abstained, not guessed."""
    stage = Stage([Notice("connected", now()), quote(now(), 1)], [])
    asyncio.run(stage.run(0.8))
    assert stage.log.rows == []
    assert 'ml_feed_abstained_total{symbol="X",reason="warming_up"}' in stage.registry.expose().decode()


def test_a_source_that_fails_is_asked_again() -> None:
    """A server that answers 500, then with negative prices, delays the warm-up; it does not end it."""
    stage = Stage([Notice("connected", now()), quote(now(), 1)], [])
    answers: Iterator[Any] = iter([StorageError("500"), bars(closed(), price=-100.0)])

    async def answer(_symbol: str, _minutes: int) -> list[Tick]:
        given = next(answers, None) or bars(closed())
        if isinstance(given, Exception):
            raise given
        return list(given)

    stage.feed.bars = answer  # type: ignore[method-assign]
    asyncio.run(stage.run(1.5))
    assert stage.log.rows


def test_skew_between_the_clocks_stops_decisions() -> None:
    """Events five seconds ahead of this host: the monitor's reason stands in the counter, no decision is taken."""
    ticks = [Tick(QUOTE, "X", now(), now() + 5 * NS_PER_S, i, 100.0, 101.0, 1.0, 1.0) for i in range(1, 60)]
    stage = Stage([Notice("connected", now()), *ticks], bars(closed()))
    asyncio.run(stage.run(0.8))
    assert 'reason="clock_skew"' in stage.registry.expose().decode()
    assert [item.name for item in stage.found] == ["clock_skew"]


def test_a_lost_connection_stops_decisions_until_it_is_mended() -> None:
    """What was sent meanwhile is unknown: features begin anew from bars, and wait for a quote of the new connection."""
    stage = Stage([Notice("connected", now()), quote(now(), 1)], bars(closed()))

    async def main() -> tuple[int, int]:
        stage.driver.start()
        await asyncio.sleep(0.8)
        before = len(stage.log.rows)
        stage.driver._intake.take(Notice("lost", now(), "x"))
        await asyncio.sleep(0.15)
        after = len(stage.log.rows)
        await asyncio.sleep(0.5)
        await stage.driver.stop()
        return before, len(stage.log.rows) - after

    before, since = asyncio.run(main())
    assert before > 0
    assert since == 0


def test_a_fed_executor_takes_no_data_from_outside() -> None:
    """Vectors, snapshots and events over HTTP would bear the feed's class: each is refused by its field."""
    executor = executor_of(Log(), VirtualClock(M0), Registry())
    with pytest.raises(RequestError, match="own feed") as events:
        executor.take_events("X", [MarketEvent(1, 0)])
    assert events.value.fields["field"] == "events"
    with pytest.raises(RequestError, match="own feed") as vector:
        asyncio.run(executor.decide(DecisionRequest(features=[1.0] * 6)))
    assert vector.value.fields["field"] == "features"


def test_a_set_that_remembers_spreads_is_refused() -> None:
    """Bars have no spread: with its history made up `robust` would be a guess. Without spreads it is taken."""
    stage = Stage([], [])
    stage.executor.feature_set = get_feature_set("robust")
    with pytest.raises(ParameterError, match="--has volume"):
        FeedDriver(
            stage.feed,
            stage.executor,
            lambda: FeatureState(SET, None),
            clock=SystemClock(),
            registry=Registry(),
            tell=print,
        )
    for grid_ns, rows_ns in (
        (0, NS_PER_S),
        (7 * NS_PER_S, 7 * NS_PER_S),
        (120 * NS_PER_S, 120 * NS_PER_S),
        (2 * NS_PER_S, NS_PER_S),
    ):
        with pytest.raises(ParameterError, match="grid"):
            DriveSettings(grid_ns=grid_ns, rows_ns=rows_ns)
    assert stage.feed.provenance is Provenance.SYNTHETIC
