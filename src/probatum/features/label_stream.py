"""Label rows while they come: the labels of ``labels.label``, each with the row that made it known."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from math import isnan, nan

import numpy as np

from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR
from probatum.features.labels import HOLE_NS, Target

Settled = tuple[int, bool | None, int]
"""A row's time, its label (None: it will never have one), and when that was known (ns)."""

WAITING_MAX = 100_000
"""Rows without a label yet; beyond them the oldest is given up: a day of seconds fits."""


class LabelStream:
    """Label the rows of one instrument, ``step_ns`` apart, as :func:`probatum.features.labels.label` would all at once.

    Rows are one segment until a hole or an unknown mid breaks them; sessions are apart by such holes.

    >>> stream = LabelStream(Target("next_move"), 1)
    >>> stream.push(1, 10.0), stream.push(2, 10.0), stream.push(3, 10.5)
    ([], [], [(1, True, 3), (2, True, 3)])
    """

    def __init__(self, target: Target, step_ns: int) -> None:
        self._kind, self._horizon_ns, self._drops = target.kind, target.horizon_ns, target.drop_unchanged
        self._ts, self._mid = -1, nan
        self._waiting: OrderedDict[int, tuple[float, float]] = OrderedDict()  # time: mid, median of sizes known then
        self._sizes = _Median(max(NS_PER_DAY // step_ns, 1), max(6 * NS_PER_HOUR // step_ns, 1))

    def is_waiting(self, ts: int) -> bool:
        """Say whether there is a row of this time whose label is not known yet."""
        return ts in self._waiting

    def push(self, ts: int, mid: float) -> list[Settled]:
        """Take the next row and return those whose label it settles, in time order; a row that is no later is passed over."""
        if ts <= self._ts:
            return []
        settled = self._settle(ts, mid)
        median = self._sizes.value if self._kind == "large_move" else 0.0
        self._waiting[ts] = (mid, median)
        if len(self._waiting) > WAITING_MAX:
            settled.append((self._waiting.popitem(last=False)[0], None, ts))
        self._ts, self._mid = ts, mid
        return settled

    def _settle(self, ts: int, mid: float) -> list[Settled]:
        if isnan(mid) or isnan(self._mid) or ts - self._ts > HOLE_NS:
            broken: list[Settled] = [(row, None, ts) for row in self._waiting]
            self._waiting.clear()
            return broken
        if self._kind != "next_move":
            return self._reached(ts, mid)
        if mid == self._mid:
            return []
        moved = [self._label(row, then, 0.0, mid, ts) for row, (then, _) in self._waiting.items()]
        self._waiting.clear()
        return moved

    def _reached(self, ts: int, mid: float) -> list[Settled]:
        settled: list[Settled] = []
        while self._waiting:
            row = next(iter(self._waiting))
            end = row + self._horizon_ns
            if end > ts:
                break
            then, median = self._waiting.pop(row)
            settled.append(self._label(row, then, median, mid if end == ts else self._mid, end))
        return settled

    def _label(self, row: int, then: float, median: float, later: float, end: int) -> Settled:
        moved = float(np.log(later / then))  # numpy's, as in batch: libm's last bit may differ
        if self._kind == "large_move":
            self._sizes.push(abs(moved))
            return row, None if isnan(median) else abs(moved) > median, end
        return row, None if self._drops and moved == 0.0 else moved > 0.0, end


class _Median:
    """Hold the median of the last ``window`` values; NaN before there are ``least``."""

    def __init__(self, window: int, least: int) -> None:
        self._window, self._least = window, least
        self._values: deque[float] = deque()
        self._sorted = array("d")

    def push(self, value: float) -> None:
        if len(self._values) == self._window:
            del self._sorted[bisect_left(self._sorted, self._values.popleft())]
        self._values.append(value)
        insort(self._sorted, value)

    @property
    def value(self) -> float:
        n = len(self._sorted)
        if n < self._least:
            return nan
        return 0.5 * (self._sorted[(n - 1) // 2] + self._sorted[n // 2])
