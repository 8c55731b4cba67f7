"""Compare a challenger with the baseline decision by decision, in integer counts that add up and can be merged."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from probatum.core.clock import NS_PER_MS
from probatum.monitoring.latency import LatencySketch

MATCH_DELTA = 0.05
"""A challenger matches where |baseline − challenger| is strictly below this (the seed's threshold)."""

DECISION_SCORE = 0.5
"""A score above this says "act"; two scores agree when they say the same."""

DELTA_EDGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Upper edges (exclusive) of the histogram of |delta|; the last bin is open."""

SLOW_BOUNDS_MS = (60, 80, 120)
"""A call is slow at a bound when it took longer, or timed out."""

RANK_WINDOW = 1024

MODEL_CHARS = 16
"""So many digits of a model's digest name it in logs and metrics."""


class Outcome(StrEnum):
    """Name how an attempt to hear the challenger ended. Attempts are the sum of these, nothing is left out."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    NAN = "nan"
    BREAKER_OPEN = "breaker_open"
    SHED = "shed"
    SKIPPED = "skipped"


FAILED = (Outcome.ERROR, Outcome.TIMEOUT, Outcome.NAN, Outcome.BREAKER_OPEN, Outcome.SHED)
"""What counts against coverage: the challenger was due and was not heard."""


def is_match(baseline: float, score: float) -> bool:
    """Say whether two scores are strictly closer than MATCH_DELTA.

    >>> is_match(0.5, 0.549), is_match(0.5, 0.55)
    (True, False)
    """
    return -MATCH_DELTA < baseline - score < MATCH_DELTA


class DecisionRow(msgspec.Struct, array_like=True, gc=False):
    """Hold one decision from the moment it is made until it is logged; the mutable part is filled in when it is known.

    ``ts`` is when it was made and ``as_of`` the time of the newest market event behind it (int ns UTC, 0 unknown);
    ``since`` is the first event of the features' state (0: the caller's own vector, or warm-up bars), ``due_ns`` the monotonic time at which
    its call was due, ``model`` the beginning of the digest of the model on trial ("": not known).
    """

    seq: int
    ts: int
    as_of: int
    decision_id: str
    strategy: str
    symbol: str
    session: str
    features: list[float]
    baseline: float
    baseline_ns: int
    route: str = "baseline"
    champion: float | None = None
    champion_outcome: str = ""
    challenger: float | None = None
    outcome: str = Outcome.SKIPPED.value
    shadow_ns: int | None = None
    due_ns: int = 0
    since: int = 0
    model: str = ""

    @property
    def judged(self) -> tuple[str, float | None]:
        """Return outcome and score of the model on trial: in ``gated`` the champion, for it answers, else the challenger."""
        if self.champion_outcome:
            return self.champion_outcome, self.champion
        return self.outcome, self.challenger


class ShadowCounts:
    """Count outcomes, matches, agreement, deltas and latencies. Failed attempts are counted and match neither way.

    >>> counts = ShadowCounts()
    >>> counts.heard(0.5, 0.52, baseline_ns=1_000, shadow_ns=2_000_000)
    >>> counts.missed(Outcome.TIMEOUT)
    >>> counts.attempts, counts.matches, counts.mismatches, counts.match_rate
    (2, 1, 0, 1.0)
    """

    def __init__(self) -> None:
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.matches = self.agreements = 0
        self.deltas = [0] * (len(DELTA_EDGES) + 1)
        self.slow = [0] * len(SLOW_BOUNDS_MS)
        self.baseline_latency = LatencySketch()
        self.shadow_latency = LatencySketch()
        self.latency_delta = LatencySketch()
        self._pairs: deque[tuple[float, float]] = deque(maxlen=RANK_WINDOW)

    def heard(self, baseline: float, score: float, baseline_ns: int, shadow_ns: int) -> None:
        """Count an answered attempt: both finite scores, and how long each took (ns)."""
        self.outcomes[Outcome.OK] += 1
        delta = abs(baseline - score)
        self.matches += delta < MATCH_DELTA
        self.agreements += (baseline > DECISION_SCORE) == (score > DECISION_SCORE)
        self.deltas[bisect_right(DELTA_EDGES, delta)] += 1
        if shadow_ns > _FIRST_SLOW_NS:
            for place, bound_ms in enumerate(SLOW_BOUNDS_MS):
                self.slow[place] += shadow_ns > bound_ms * NS_PER_MS
        self.baseline_latency.add(baseline_ns)
        self.shadow_latency.add(shadow_ns)
        self.latency_delta.add(shadow_ns - baseline_ns)
        self._pairs.append((baseline, score))

    def missed(self, outcome: Outcome) -> None:
        """Count an attempt that brought no score; one that timed out was slow at every bound."""
        self.outcomes[outcome] += 1
        if outcome is Outcome.TIMEOUT:
            self.slow = [count + 1 for count in self.slow]

    @property
    def attempts(self) -> int:
        """Return all attempts: the sum of the outcomes."""
        return sum(self.outcomes.values())

    @property
    def mismatches(self) -> int:
        """Return the answered attempts that did not match."""
        return self.outcomes[Outcome.OK] - self.matches

    @property
    def match_rate(self) -> float | None:
        """Return matches over answered attempts; None, not 0 or 1, when there were none."""
        heard = self.outcomes[Outcome.OK]
        return self.matches / heard if heard else None

    @property
    def failures(self) -> int:
        """Return the attempts that were due and brought no score."""
        return sum(self.outcomes[outcome] for outcome in FAILED)

    def rank_correlation(self) -> float | None:
        """Return Spearman's correlation over the last RANK_WINDOW answered attempts; None below 3 or for constant scores."""
        pairs = np.array(self._pairs, dtype=np.float64).reshape(-1, 2)
        return spearman(pairs[:, 0], pairs[:, 1])

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-safe data: what is stored and merged (the bounded rank window is not)."""
        return {
            "outcomes": {outcome.value: count for outcome, count in self.outcomes.items()},
            "matches": self.matches,
            "agreements": self.agreements,
            "deltas": list(self.deltas),
            "slow": list(self.slow),
            **{name: {str(k): v for k, v in getattr(self, name).counts().items()} for name in _SKETCHES},
        }

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add the counts of another process, as :meth:`to_dict` gives them."""
        for outcome, count in other["outcomes"].items():
            self.outcomes[Outcome(outcome)] += count
        self.matches += other["matches"]
        self.agreements += other["agreements"]
        self.deltas = [mine + theirs for mine, theirs in zip(self.deltas, other["deltas"], strict=True)]
        self.slow = [mine + theirs for mine, theirs in zip(self.slow, other["slow"], strict=True)]
        for name in _SKETCHES:
            getattr(self, name).merge({int(place): count for place, count in other[name].items()})


_SKETCHES = ("baseline_latency", "shadow_latency", "latency_delta")
_FIRST_SLOW_NS = SLOW_BOUNDS_MS[0] * NS_PER_MS


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return Spearman's rank correlation of two float64[n], ties at their average rank; None where it is undefined.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    if len(first) < 3:
        return None
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0.0 else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last: NDArray[np.float64] = np.cumsum(count).astype(np.float64)
    ranks: NDArray[np.float64] = (last - (count - 1) / 2.0)[place]
    return ranks
