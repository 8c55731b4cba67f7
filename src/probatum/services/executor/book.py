"""Hold one symbol of a feed: the ticks that wait, the features that they move, and since when these are whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import accumulate

from probatum.core.clock import NS_PER_MINUTE
from probatum.core.errors import DataError
from probatum.market.events import QUOTE, TIMER, TRADE
from probatum.market.ticks import Tick
from probatum.services.executor.decide import State


class Book:
    """Hold one symbol's features, the ticks that wait, and since when its history is whole."""

    def __init__(self, symbol: str, new_state: Callable[[], State], minutes: int, dropped: Counter[str]) -> None:
        self.symbol, self.minutes = symbol, minutes
        self.pending: list[Tick] = []
        self.state: State | None = None
        self.applied_ns = self.broken_ns = self.labelled_ns = 0
        self._first_ns = 0  # the first tick since the features began
        self._new_state, self._dropped = new_state, dropped
        self._warmed_ns = self._bars_ns = 0  # the break after which it was warmed up last, and the bars' end
        self._whole_ns = 0  # the end of the minute that was begun in the middle; 0 where that was mended
        self._quoted = self._is_ready = self._local = False

    @property
    def since_ns(self) -> int:
        """Return since when ticks alone explain the features; 0 while they still remember bars."""
        remembers = self._bars_ns and self.applied_ns < self._first_ns + self.minutes * NS_PER_MINUTE
        return 0 if remembers else self._first_ns

    def is_due(self, broken_ns: int, now_ns: int) -> bool:
        """Say whether to warm up: after each break, and when the minute that it spoilt is over."""
        return broken_ns > self._warmed_ns or bool(self._whole_ns and now_ns > self._whole_ns)

    def lacks(self, broken_ns: int) -> str | None:
        """Return why the features are not whole now."""
        if self.state is None:
            return "warming_up"
        spoilt = self._whole_ns and self.applied_ns >= self._whole_ns
        return "gap" if broken_ns > self._warmed_ns or spoilt else None

    def warm(self, bars: list[Tick], now_ns: int, broken_ns: int) -> bool:
        """Begin anew from closed bars; False where they do not reach the last closed minute yet."""
        minute_ns = now_ns // NS_PER_MINUTE * NS_PER_MINUTE
        if bars and (bars[-1].ts_event or 0) < minute_ns:
            return False
        state, ready, last_ns = self._new_state(), False, 0
        for bar in bars:
            last_ns = bar.ts_event or 0
            for kind, a, b in ((QUOTE, bar.a, bar.a), (TRADE, bar.a, bar.c), (TIMER, 0.0, 0.0)):
                ready = state.update(last_ns, kind, a, b, 0.0, 0.0)
        mended = bool(self._whole_ns) and broken_ns <= self._warmed_ns
        self._whole_ns = 0 if mended or not bars else minute_ns + NS_PER_MINUTE
        self._warmed_ns, self.applied_ns, self._bars_ns = broken_ns, last_ns, last_ns
        self.state, self._is_ready, self._quoted, self._first_ns = state, ready, False, 0
        return True

    def advance(self, until_ns: int) -> bool:
        """Apply the ticks up to a time and a timer at it; say whether the vector is ready.

        At the end of a spoilt minute ticks wait: the features begin anew from the bars that close it.
        """
        until_ns = min(until_ns, self._whole_ns or until_ns)
        if self.state is None or until_ns <= self.applied_ns:
            return self._is_ready and self._quoted
        due, self.pending = self._due(until_ns)
        for ts, kind, tick in due:
            if ts <= self.applied_ns:
                self._too_late(ts, tick)
                continue
            self._update(ts, kind, (tick.a, tick.b, tick.c, tick.d))
            self._first_ns = self._first_ns or ts
            self._quoted |= kind == QUOTE
        if self._first_ns or self._bars_ns:  # before the first tick there is no time to keep
            self._update(until_ns, TIMER, (0.0, 0.0, 0.0, 0.0))
        self.applied_ns = until_ns
        return self._is_ready and self._quoted

    def _too_late(self, ts: int, tick: Tick) -> None:
        if ts > self._bars_ns:  # else it is in a bar
            self._dropped["late"] += 1
            if tick.kind == TRADE:  # its minute's volume lacks it
                self.broken_ns = max(self.broken_ns, tick.ts_recv)

    def _update(self, ts: int, kind: int, values: tuple[float, float, float, float]) -> None:
        assert self.state is not None
        try:
            self._is_ready = self.state.update(ts, kind, *values)
        except DataError:
            self._dropped["refused"] += 1

    def _due(self, until_ns: int) -> tuple[list[tuple[int, int, Tick]], list[Tick]]:
        self._local = self._local or any(tick.kind == QUOTE and tick.ts_event is None for tick in self.pending)
        timed = sorted(_timed(self.pending, self._local), key=lambda item: (item[0], item[1], item[2].number or 0))
        first_later = next((i for i, item in enumerate(timed) if item[0] > until_ns), len(timed))
        return timed[:first_later], [tick for _, _, tick in timed[first_later:]]


def _timed(ticks: Iterable[Tick], local: bool) -> list[tuple[int, int, Tick]]:
    """Return (event time, kind, tick). By the local clock a tick is no later than those with higher numbers."""
    if not local:
        return [(tick.ts_event or tick.ts_recv, tick.kind, tick) for tick in ticks]
    found: list[tuple[int, int, Tick]] = []
    for kind in (QUOTE, TRADE):
        backwards = sorted(
            (tick for tick in ticks if tick.kind == kind), key=lambda t: (t.number or 0, t.ts_recv), reverse=True
        )
        earliest = accumulate((tick.ts_recv for tick in backwards), min)
        found += zip(earliest, [kind] * len(backwards), backwards, strict=True)
    return found
