"""Count latencies so that quantiles of many processes can be added together: integers, with a proven error bound."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from probatum.core.clock import NS_PER_MS
from probatum.core.errors import ParameterError

_BITS = 6  # 2**6 buckets an octave
_SUB = 1 << (_BITS + 1)
_VALUE_MAX = (1 << 44) - 1  # 4.9 hours in ns; later is clamped, for nothing here waits that long
_BUCKETS = ((44 - _BITS - 1) << _BITS) + _SUB

RELATIVE_ERROR = 1.0 / (1 << (_BITS + 1))
"""No quantile is further than this share of itself from the exact one (0.78 %)."""


class LatencySketch:
    """Count integer nanoseconds in buckets of relative width 1/64, exact below 128 ns.

    The bucket is found with integer shifts alone (as in Gil Tene's HdrHistogram): no logarithm, no rounding, so that the
    error bound is exact and merging is addition.

    >>> sketch = LatencySketch()
    >>> for ms in range(1, 101):
    ...     sketch.add(ms * 1_000_000)
    >>> sketch.count, round(sketch.quantile_ms(0.95))
    (100, 95)
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS

    def add(self, value_ns: int) -> None:
        """Count one latency (ns, below 0 counts as 0: a clock that stepped back)."""
        shift = value_ns.bit_length() - 7
        if shift <= 0:
            self._counts[value_ns if value_ns > 0 else 0] += 1
        elif 0 < value_ns <= _VALUE_MAX:
            self._counts[(shift << 6) + (value_ns >> shift)] += 1
        else:
            self._counts[-1 if value_ns > 0 else 0] += 1

    @property
    def count(self) -> int:
        """Return how many values were counted."""
        return sum(self._counts)

    def quantile_ns(self, q: float) -> float:
        """Return the q-quantile (the ⌈q·n⌉-th smallest value) in ns, within RELATIVE_ERROR; NaN when nothing was counted."""
        if not 0.0 <= q <= 1.0:
            raise ParameterError("q", "a number in [0, 1]", q)
        total = self.count
        if not total:
            return float("nan")
        rank, seen = max(1, ceil(q * total)), 0
        for place, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return _middle(place)
        raise AssertionError("a rank within the count lies in a bucket")

    def quantile_ms(self, q: float) -> float:
        """Return the q-quantile in milliseconds."""
        return self.quantile_ns(q) / NS_PER_MS

    def counts(self) -> dict[int, int]:
        """Return the non-empty buckets: what is stored, sent and merged."""
        return {place: count for place, count in enumerate(self._counts) if count}

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add another process's counts; ParameterError names a bucket that does not exist or a negative count."""
        for place, count in counts.items():
            if not (0 <= place < _BUCKETS and count >= 0):
                raise ParameterError("counts", f"buckets in [0, {_BUCKETS}) with counts >= 0", (place, count))
        for place, count in counts.items():
            self._counts[place] += count


def _middle(place: int) -> float:
    if place < _SUB:
        return float(place)
    shift = (place >> _BITS) - 1
    low = (place - (shift << _BITS)) << shift
    return low + ((1 << shift) - 1) / 2.0
