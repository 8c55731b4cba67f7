"""Join decisions with what came of them, and count of outcomes that overlap only one.

The same joins twice: :func:`labels_at` over whole arrays, and :class:`OutcomeJoiner` row by row while decisions are made.
A decision's outcome is the label of the row (bar, or timer on the model's grid) that it was made at, and no other: a row
before it would let its features see a part of the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from probatum.features.label_stream import LabelStream
from probatum.features.labels import Labels, Target
from probatum.monitoring.shadow import DECISION_SCORE

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

SYMBOLS_MAX = 256
WAITING_MAX = 65_536
LATE_ROWS = 4_096
"""Rows whose label is remembered for decisions that are finished after it was known."""


class Apart:
    """Take of outcomes, in the order in which they became known, those that began once the one taken before was known.

    >>> apart = Apart()
    >>> [apart.takes(begin, begin + 10) for begin in (0, 5, 10, 19, 20)]
    [True, False, True, False, True]
    """

    def __init__(self) -> None:
        self._known = -1

    def takes(self, begin: int, known: int) -> bool:
        """Say whether an outcome counts (ns); it then bars those that overlap it."""
        if begin < self._known:
            return False
        self._known = known
        return True


def apart(begin: Ints, known: Ints, *ties: NDArray[Any]) -> Flags:
    """Return which of n outcomes count; ``ties`` order those that are known and began at the same time."""
    order = np.lexsort((*reversed(ties), begin, known))
    one = Apart()
    chosen = np.zeros(len(begin), dtype=np.bool_)
    chosen[order] = [one.takes(*pair) for pair in zip(begin[order].tolist(), known[order].tolist(), strict=True)]
    return chosen


def is_right(score: Any, hit: Any) -> Any:
    """Say of a score, or of an array of them, whether it decided as it should have: above 0.5 where the label is 1."""
    return (score > DECISION_SCORE) == hit


def differs(score: Any, baseline: Any) -> Any:
    """Say whether two scores, or arrays of them, decide differently: then one is right, and the other wrong."""
    return (score > DECISION_SCORE) != (baseline > DECISION_SCORE)


def labels_at(rows: Ints, labels: Labels, as_of: Ints) -> tuple[Flags, Ints, Flags]:
    """Return for n decisions the label of the row at exactly ``as_of``, when it was known (−1: never), and if there is such a row."""
    place = np.minimum(np.searchsorted(rows, as_of), max(len(rows) - 1, 0))
    if not len(rows):
        nothing = np.zeros(len(as_of), dtype=np.bool_)
        return nothing, np.full(len(as_of), -1), nothing
    found = rows[place] == as_of
    known = np.where(found & labels.valid[place], labels.label_end[place], -1)
    return labels.label[place] == 1, known, found


class Made(msgspec.Struct, frozen=True, gc=False):
    """Hold of a finished decision what its outcome is judged by: the baseline's score and that of the model on trial.

    ``model`` begins that model's digest ("": not known), ``run`` names the attempt that the decision was made under.
    """

    symbol: str
    as_of: int
    ts: int
    seq: int
    baseline: float
    score: float
    model: str = ""
    run: str = ""


class Joined(msgspec.Struct, frozen=True, order=True):
    """Hold a decision and its label; ordered by when that was known."""

    known: int
    as_of: int
    symbol: str
    ts: int
    seq: int
    hit: bool
    made: Made


class JoinCounts(msgspec.Struct):
    """Count decisions by what became of them: all that came = joined + unlabelled + off_grid + dropped + waiting.

    ``unlabelled``: a break, or no median yet. ``off_grid``: not made at a row. ``dropped``: too many waited.
    """

    joined: int = 0
    unlabelled: int = 0
    off_grid: int = 0
    dropped: int = 0


class _Symbol:
    def __init__(self, target: Target, step_ns: int) -> None:
        self.labels = LabelStream(target, step_ns)
        self.settled: OrderedDict[int, tuple[bool | None, int]] = OrderedDict()
        self.waiting: dict[int, list[Made]] = {}


class OutcomeJoiner:
    """Join decisions with labels as rows come in, in bounded memory; what does not fit is counted, never guessed.

    Decisions may be told late (a shadow's answer takes its time), but not later than the second call of :meth:`release`
    after their label was known.
    """

    def __init__(self, target: Target, step_ns: int) -> None:
        self.counts = JoinCounts()
        self.waiting = 0
        self._target, self._step_ns = target, step_ns
        self._symbols: dict[str, _Symbol] = {}
        self._ready: list[Joined] = []
        self._newest = self._released = -1

    @property
    def held(self) -> int:
        """Return the outcomes that were not released yet."""
        return len(self._ready)

    def row(self, symbol: str, ts: int, mid: float) -> None:
        """Take a row: its time (ns) and the mid then in force, NaN where it is unknown."""
        place = self._symbols.get(symbol)
        if place is None:
            if len(self._symbols) >= SYMBOLS_MAX:
                return
            place = self._symbols[symbol] = _Symbol(self._target, self._step_ns)
        for row, hit, known in place.labels.push(ts, mid):
            place.settled[row] = (hit, known)
            for made in place.waiting.pop(row, ()):
                self.waiting -= 1
                self._join(made, hit, known)
        while len(place.settled) > LATE_ROWS:
            place.settled.popitem(last=False)

    def decided(self, made: Made) -> None:
        """Take a finished decision."""
        place = self._symbols.get(made.symbol)
        if place is not None and made.as_of in place.settled:
            self._join(made, *place.settled[made.as_of])
        elif place is None or not place.labels.is_waiting(made.as_of):
            self.counts.off_grid += 1
        elif self.waiting >= WAITING_MAX:
            self.counts.dropped += 1
        else:
            place.waiting.setdefault(made.as_of, []).append(made)
            self.waiting += 1

    def forget(self) -> None:
        """Drop what waits and begin anew: rows were lost, and no label across them would be right."""
        self.counts.dropped += self.waiting
        self.waiting = 0
        self._symbols.clear()

    def release(self, *, final: bool = False) -> list[Joined]:
        """Return, in order, the outcomes that were known by the call before (``final``: all), so that late ones find their place."""
        found = []
        while self._ready and (final or self._ready[0].known <= self._released):
            found.append(heappop(self._ready))
        self._released = self._newest
        return found

    def _join(self, made: Made, hit: bool | None, known: int) -> None:
        if hit is None:
            self.counts.unlabelled += 1
            return
        self.counts.joined += 1
        self._newest = max(self._newest, known)
        heappush(self._ready, Joined(known, made.as_of, made.symbol, made.ts, made.seq, hit, made))
