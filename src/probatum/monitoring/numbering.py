"""Follow the numbers and the levels of a stream: which numbers are missing, and whether values have left what they were."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from statistics import median
from typing import Literal

Place = Literal["new", "again", "late"]
RANGES_MAX = 4_096  # holes in the numbering remembered; beyond, the oldest can no longer be filled


class Numbers:
    """Follow a numbering without holes: which numbers are missing, and which came again or late."""

    def __init__(self) -> None:
        self._highest = -1
        self._holes: list[tuple[int, int, int]] = []  # first, last, when it was seen; by number, and so by time
        self._settled = 0  # of the holes, those that were told
        self.missing = 0

    def take(self, number: int, ts: int) -> Place:
        if number > self._highest:
            if 0 <= self._highest < number - 1:
                self._holes.append((self._highest + 1, number - 1, ts))
                self.missing += number - 1 - self._highest
                self._forget()
            self._highest = number
            return "new"
        return "late" if self._fill(number) else "again"

    def settle(self, until_ns: int) -> tuple[int, int]:
        """Return (numbers, holes) seen before a time, not filled since and not told before."""
        due = [(last - first + 1) for first, last, ts in self._holes[self._settled :] if ts <= until_ns]
        self._settled += len(due)
        return sum(due), len(due)

    def _fill(self, number: int) -> bool:
        index = bisect_right(self._holes, number, key=lambda hole: hole[0]) - 1
        if index < 0 or self._holes[index][1] < number:
            return False
        first, last, ts = self._holes.pop(index)
        told = index < self._settled
        parts = [(a, b, ts) for a, b in ((first, number - 1), (number + 1, last)) if a <= b]
        for part in parts:
            insort(self._holes, part)
        self._settled += (len(parts) - 1) * told
        self.missing -= 1
        return True

    def _forget(self) -> None:
        if len(self._holes) > RANGES_MAX:
            del self._holes[0]
            self._settled = max(0, self._settled - 1)


class Level:
    """Compare the median of the latest values with that of the first: a unit changes by powers, a market does not."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._values: list[float] = []
        self._usual: float | None = None
        self.ratio = 1.0

    def take(self, value: float, factor: float) -> bool:
        """Say, once in so many values, whether their median has left the usual one by the factor."""
        if not (math.isfinite(value) and value > 0.0):
            return False
        self._values.append(value)
        if len(self._values) < self._count:
            return False
        now, self._values = median(self._values), []
        before = self._usual or now
        self.ratio = now / before
        changed = not 1.0 / factor < self.ratio < factor
        if not changed:
            self._usual = math.sqrt(before * now)  # markets do move, slowly
        return changed
