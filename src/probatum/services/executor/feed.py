"""Decide on a feed of one's own: warm up, hold back until the stragglers are in, apply in order, decide or abstain.

A grid instant t is decided once the ticks up to t are in: they are applied in the order that the batch path sorts
them in (time, quotes before trades, number), then a timer at t. So the same ticks, recorded, give the same vector.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from probatum.core.clock import NS_PER_MINUTE, NS_PER_S, Clock
from probatum.core.errors import DataError, ParameterError, StorageError
from probatum.market.ticks import Tick
from probatum.monitoring.feed import FeedMonitor, Finding
from probatum.pipeline.feeding import Intake
from probatum.pipeline.ports import Feed, TickSink
from probatum.services.executor.book import Book
from probatum.services.executor.decide import Executor, State
from probatum.services.executor.schema import DecisionRequest
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

STRATEGY = "feed"
_log = logging.getLogger("probatum.feed")


class DriveSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Declare when to decide, how far apart labelled rows are, how long to wait for stragglers, and how much may wait."""

    grid_ns: int = NS_PER_S
    rows_ns: int = NS_PER_MINUTE
    hold_ns: int = NS_PER_S // 2
    pending_max: int = 100_000
    retry_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.grid_ns <= NS_PER_MINUTE or NS_PER_MINUTE % self.grid_ns:
            raise ParameterError("grid", "a whole part of a minute", f"{self.grid_ns} ns")
        if self.rows_ns % self.grid_ns:
            raise ParameterError("grid", f"a whole part of the model's own, {self.rows_ns} ns", f"{self.grid_ns} ns")
        for name in ("hold_ns", "pending_max", "retry_s"):
            if not getattr(self, name) > 0:
                raise ParameterError(name, "greater than 0", getattr(self, name))


class Recorder(TickSink, Protocol):
    """A recorder that can be asked and closed."""

    @property
    def counts(self) -> Any: ...

    def close(self) -> None: ...


class FeedDriver:
    """Feed an executor. For its event loop; ``new_state`` makes a symbol's features, empty.

    Raises ParameterError where the feature set keeps a history that bars do not have.
    """

    def __init__(
        self, feed: Feed, executor: Executor, new_state: Callable[[], State], *, clock: Clock, registry: Registry,
        tell: Callable[[Finding], None], log: Recorder | None = None, settings: DriveSettings | None = None,
    ) -> None:  # fmt: skip
        served = executor.feature_set
        if served.name == "robust" and "spread" in served.needs:
            allowed = "a set without its 24 hours of spreads, which bars do not have: --has volume"
            raise ParameterError("feature set", allowed, served.name)
        self.settings = settings or DriveSettings()
        self.monitor = FeedMonitor(feed.symbols)
        self.dropped: Counter[str] = Counter()
        self._feed, self._executor, self._clock, self.log = feed, executor, clock, log
        self._intake = Intake(feed, self.monitor, clock, tell, log=log, use=self._use)
        minutes = served.memory_minutes if served.memory_minutes > 1 else 0  # the book's minute comes soon enough
        self._books = {symbol: Book(symbol, new_state, minutes, self.dropped) for symbol in feed.symbols}
        self._tasks: list[asyncio.Task[None]] = []
        self._meters = _Meters(registry, self)

    def start(self) -> None:
        """Connect, warm up and decide, until stopped."""
        for work in (self._intake.run(), self._decide(), *map(self._keep_warm, self._books.values())):
            task = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(_report)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Disconnect, and write out what was recorded."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.log is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.log.close)

    def _use(self, tick: Tick) -> None:
        book = self._books[tick.symbol]
        if len(book.pending) >= self.settings.pending_max:
            self.dropped["full"] += 1
            book.broken_ns = tick.ts_recv
            return
        book.pending.append(tick)

    async def _keep_warm(self, book: Book) -> None:
        state = self.monitor.states[book.symbol]
        while True:
            broken_ns, now_ns = max(state.broken_ns, book.broken_ns), self._clock.now_ns()
            if book.is_due(broken_ns, now_ns):
                try:
                    await self._warm(book, now_ns, broken_ns)
                except (StorageError, DataError) as error:
                    _log.error("%s: warm-up: %s", book.symbol, error.message)
                await asyncio.sleep(self.settings.retry_s)
            await asyncio.sleep(0.1)

    async def _warm(self, book: Book, now_ns: int, broken_ns: int) -> None:
        bars = await self._feed.bars(book.symbol, book.minutes) if book.minutes else []
        if not book.warm(bars, now_ns, broken_ns):
            return
        for bar in bars:
            if self.log is not None:
                self.log.append(bar)
            if self.settings.rows_ns == NS_PER_MINUTE:
                self._label(book, bar.ts_event or 0, bar.a)

    async def _decide(self) -> None:
        grid_ns = self.settings.grid_ns
        due = self._clock.now_ns() // grid_ns * grid_ns
        while True:
            await asyncio.sleep(min(grid_ns / NS_PER_S / 4, 0.25))
            now_ns = self._clock.now_ns()
            while due + grid_ns + self.settings.hold_ns <= now_ns:
                due += grid_ns
                is_last = due + grid_ns + self.settings.hold_ns > now_ns
                await asyncio.gather(*(self._step(book, due, is_last) for book in self._books.values()))

    async def _step(self, book: Book, due: int, is_last: bool) -> None:
        watched = self.monitor.states[book.symbol]
        # Where this clock is ahead of the exchange's by more than the hold covers, its instants are over later.
        late_ns = max(0, watched.delay_ns - self.settings.hold_ns // 2)
        before_ns = book.applied_ns
        ready = book.advance((due - late_ns) // self.settings.grid_ns * self.settings.grid_ns)
        reason = self.monitor.abstains(book.symbol) or book.lacks(max(watched.broken_ns, book.broken_ns))
        if book.state is not None:
            self._executor.show(book.symbol, book.state, ready and reason is None, book.applied_ns, book.since_ns)
            if reason is None and book.applied_ns % self.settings.rows_ns == 0:
                self._label(book, book.applied_ns, book.state.mid)
        if not is_last:
            return
        if reason is not None or not ready:
            self._meters.abstained(book.symbol, reason or "warming_up")
        elif book.applied_ns > before_ns:  # one decision for each instant
            try:
                await self._executor.decide(DecisionRequest(symbol=book.symbol, strategy=STRATEGY))
            except Exception:  # one decision that fails must not end them all
                _log.exception("%s: no decision", book.symbol)

    def _label(self, book: Book, ts: int, mid: float) -> None:
        # A row that was abstained from is left out: labels across it would be guesses. Bars may fill it in later.
        if self._executor.outcomes is not None and ts > book.labelled_ns:
            self._executor.outcomes.row(book.symbol, ts, mid)
            book.labelled_ns = ts


class _Meters:
    """Bring what the monitor and the driver count into the registry when somebody looks."""

    def __init__(self, registry: Registry, driver: FeedDriver) -> None:
        self._registry, self._driver = registry, driver
        self._shown: Counter[tuple[str, ...]] = Counter()
        registry.before_expose(self._derive)

    def abstained(self, symbol: str, reason: str) -> None:
        self._registry.counter(metrics.FEED_ABSTAINED, symbol, reason).inc()

    def _derive(self) -> None:
        driver, monitor = self._driver, self._driver.monitor
        for symbol, state in monitor.states.items():
            self._count(metrics.FEED_MESSAGES, state.ticks, symbol)
            self._registry.gauge(metrics.FEED_MISSING, symbol).set(state.missing)
            if state.ticks:
                self._registry.gauge(metrics.FEED_LAST, symbol).set(state.last_event_ns / NS_PER_S)
        for (symbol, finding), count in monitor.counts.items():
            self._count(metrics.FEED_FINDINGS, count, symbol, finding)
        self._count(metrics.FEED_CONNECTIONS, monitor.connections, "made")
        self._count(metrics.FEED_CONNECTIONS, monitor.lost, "lost")
        counts = driver.log.counts if driver.log is not None else None
        dropped = {**driver.dropped, "stranger": monitor.strange}
        if counts is not None:
            dropped |= {"no_room": counts.shed, "disk": counts.failed}
        for reason, count in dropped.items():
            self._count(metrics.FEED_DROPPED, count, reason)

    def _count(self, metric: metrics.Metric, total: int, *labels: str) -> None:
        key = (metric.name, *labels)
        self._registry.counter(metric, *labels).inc(total - self._shown[key])
        self._shown[key] = total


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the feed ended, and what it feeds is abstained from: %r", error)
