"""Judge a feed tick by tick: what is missing, late, repeated, skewed or changed, and of which symbols one must not decide.

Ticks and times go in, findings come out; nothing is guessed. A symbol whose feed is not to be believed is abstained from.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from probatum.core.clock import NS_PER_MINUTE, NS_PER_MS, NS_PER_S
from probatum.core.errors import ParameterError
from probatum.market.events import TRADE
from probatum.market.ticks import Notice, Tick
from probatum.monitoring.numbering import Level, Numbers, Place

Name = Literal["lost", "garbage", "missing", "silent", "gap", "clock_skew", "repeats", "unit_change", "renamed"]
FINDINGS: tuple[Name, ...] = ("lost", "garbage", "missing", "silent", "gap", "clock_skew", "repeats", "unit_change", "renamed")  # fmt: skip
Found = Callable[[Name, int, str, int, str], None]
RECENT = 1_024  # update numbers remembered, to tell a duplicate from a latecomer


class FeedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Declare from when on a feed is not believed. Skew: the clocks, or the way, differ by so much at least."""

    silent_ns: int = 30 * NS_PER_S
    gap_ns: int = 5 * NS_PER_MINUTE
    skew_ns: int = 2 * NS_PER_S
    skew_ticks: int = 20
    settle_ns: int = 2 * NS_PER_S
    repeats: int = 500
    level_ticks: int = 256
    size_factor: float = 50.0
    price_factor: float = 5.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) >= 1:
                raise ParameterError(name, "at least 1", getattr(self, name))


class Finding(msgspec.Struct, frozen=True):
    """Hold one thing that was found: when, about which symbol ("" where about the feed), how much, in words."""

    name: Name
    ts: int
    symbol: str
    amount: int
    detail: str


class FeedMonitor:
    """Watch the ticks of the symbols that were asked for. :attr:`findings` grows; :meth:`drain` empties it.

    >>> monitor = FeedMonitor(["X"])
    >>> trades = [Tick(TRADE, "X", i * NS_PER_S, i * NS_PER_S, i, 100.0, 1.0, 1.0) for i in (1, 2, 5, 4, 2)]
    >>> [monitor.take(tick) for tick in trades]
    [True, True, True, True, False]
    >>> monitor.look(9 * NS_PER_S)
    >>> [(item.name, item.amount) for item in monitor.drain()]
    [('missing', 1)]
    """

    def __init__(self, symbols: Sequence[str], settings: FeedSettings | None = None) -> None:
        self.settings = settings or FeedSettings()
        self.states = {symbol: _Symbol(symbol, self.settings) for symbol in symbols}
        self.counts: Counter[tuple[str, Name]] = Counter()
        self.connections = self.lost = self.strange = 0
        self.findings: list[Finding] = []
        self._strangers: set[str] = set()

    @property
    def garbage(self) -> int:
        """Return how many messages were none."""
        return self.counts["", "garbage"]

    def take(self, tick: Tick) -> bool:
        """Judge a tick; False where it is another symbol's or came before, so that features must not use it."""
        state = self.states.get(tick.symbol)
        if state is None:
            self._stranger(tick)
            return False
        return state.take(tick, self._found)

    def notice(self, notice: Notice) -> None:
        """Take what the feed says of itself. Between two connections is a hole: what was sent meanwhile is not known."""
        if notice.cause == "garbage":
            self.counts["", "garbage"] += 1
            if self.garbage & (self.garbage - 1) == 0:  # at 1, 2, 4, 8, …: who sends much of it shall not fill the logs
                amount = self.garbage - self.garbage // 2
                self.findings.append(Finding("garbage", notice.ts_recv, "", amount, notice.detail))
            return
        if notice.cause == "connected":
            self.connections += 1
        else:
            self.lost += 1
            self._found("lost", notice.ts_recv, "", 1, notice.detail)
        for state in self.states.values():
            state.broken_ns = notice.ts_recv

    def look(self, now_ns: int) -> None:
        """Find what only time shows: silence, and numbers that did not come after all."""
        for state in self.states.values():
            state.look(now_ns, self._found)

    def abstains(self, symbol: str) -> Name | None:
        """Return why nothing may be decided about a symbol now; None where its feed is believed."""
        return self.states[symbol].reason

    def drain(self) -> list[Finding]:
        """Return the findings since the last call."""
        found, self.findings = self.findings, []
        return found

    def _found(self, name: Name, ts: int, symbol: str, amount: int, detail: str) -> None:
        self.counts[symbol, name] += amount
        self.findings.append(Finding(name, ts, symbol, amount, detail))

    def _stranger(self, tick: Tick) -> None:
        self.strange += 1
        if tick.symbol not in self._strangers and len(self._strangers) < RECENT:
            self._strangers.add(tick.symbol)
            known = ", ".join(self.states)
            self._found("renamed", tick.ts_recv, "", 1, f"{tick.symbol} comes, asked for were {known}")


class _Symbol:
    """Keep what the judgement of one symbol needs: numbers, clocks, levels."""

    def __init__(self, symbol: str, settings: FeedSettings) -> None:
        self.symbol, self._settings = symbol, settings
        self.ticks = self.duplicates = self.late = 0
        self.last_recv_ns = self.last_event_ns = 0
        self.broken_ns = 0  # when something was missed last; 0 after nothing
        self.numbers = Numbers()
        self._updates, self._recent = -1, deque[int](maxlen=RECENT)
        self._again = 0
        self._delays: list[int] = []
        self.delay_ns = 0  # the shortest of the last some: the way, and how far this clock is ahead
        self._skewed = self._silent = self._changed = False
        self._size, self._price = Level(settings.level_ticks), Level(settings.level_ticks)

    @property
    def missing(self) -> int:
        """Return how many trades the numbers say there were, and that have not come."""
        return self.numbers.missing

    @property
    def reason(self) -> Name | None:
        if self._changed:
            return "unit_change"
        if self._again >= self._settings.repeats:
            return "repeats"
        if self._skewed:
            return "clock_skew"
        return "silent" if self._silent or not self.ticks else None

    def take(self, tick: Tick, found: Found) -> bool:
        if self.ticks:
            self._resume(tick.ts_recv, found)
        self.ticks += 1
        self.last_recv_ns = tick.ts_recv
        self.last_event_ns = max(self.last_event_ns, tick.ts_event or tick.ts_recv)
        if tick.ts_event is not None:
            self._clock(tick.ts_recv, tick.ts_recv - tick.ts_event, found)
        came = self._place(tick)
        self.duplicates += came == "again"
        self.late += came == "late"
        self._again = 0 if came == "new" else self._again + 1
        if self._again == self._settings.repeats:
            found("repeats", tick.ts_recv, self.symbol, self._again, "the numbers stand still or go back")
        if came == "new":
            self._levels(tick, found)
        return came != "again"

    def look(self, now_ns: int, found: Found) -> None:
        settled, places = self.numbers.settle(now_ns - self._settings.settle_ns)
        if settled:
            self.broken_ns = now_ns
            found("missing", now_ns, self.symbol, settled, f"trades, in {places} places")
        if self.ticks and not self._silent and now_ns - self.last_recv_ns > self._settings.silent_ns:
            self._silent = True
            seconds = self._settings.silent_ns / NS_PER_S
            found("silent", now_ns, self.symbol, 1, f"nothing came for {seconds:g} s")

    def _resume(self, ts: int, found: Found) -> None:
        pause = ts - self.last_recv_ns
        if pause > self._settings.silent_ns:
            self.broken_ns, self._silent = ts, False
        if pause > self._settings.gap_ns:
            found("gap", ts, self.symbol, 1, f"nothing came for {pause / NS_PER_S:.0f} s")

    def _place(self, tick: Tick) -> Place:
        number = tick.number
        if number is None:
            return "new"
        if tick.kind == TRADE:
            return self.numbers.take(number, tick.ts_recv)
        if number > self._updates:
            self._updates = number
            self._recent.append(number)
            return "new"
        if number in self._recent:
            return "again"
        self._recent.append(number)
        return "late"

    def _clock(self, now_ns: int, delay_ns: int, found: Found) -> None:
        # The way can only add to the delay: the shortest of some is the nearest to the difference of the clocks.
        self._delays.append(delay_ns)
        if len(self._delays) < self._settings.skew_ticks:
            return
        self.delay_ns, self._delays = min(self._delays), []
        was, self._skewed = self._skewed, abs(self.delay_ns) > self._settings.skew_ns
        if self._skewed and not was:
            found("clock_skew", now_ns, self.symbol, 1, f"received {self.delay_ns / NS_PER_MS:.0f} ms after the event")

    def _levels(self, tick: Tick, found: Found) -> None:
        size, price = (tick.b, tick.a) if tick.kind == TRADE else (math.nan, tick.a)
        for level, value, factor, what in (
            (self._size, size, self._settings.size_factor, "trade sizes"),
            (self._price, price, self._settings.price_factor, "prices"),
        ):
            if level.take(value, factor) and not self._changed:
                self._changed = True
                found("unit_change", tick.ts_recv, self.symbol, 1, f"{what} are {level.ratio:.3g} times what they were")
