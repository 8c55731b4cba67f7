"""Turn counts into bounds on a rate, and say beforehand what a test can be expected to show.

Two kinds stand beside each other: confidence sequences, valid while watched, are what verdicts follow; Clopper-Pearson
bounds, valid for one look at an n fixed in advance, are shown because readers know them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np
import numpy.typing as npt

from probatum.core.errors import ParameterError
from probatum.rollout.eprocess import (
    bad_needed,
    check_counts,
    check_rate,
    is_proven,
    log_e_above,
    log_e_below,
    n_needed,
)

_STEPS = 40  # halvings of [0, 1]: an error below 1e-12


def sequence_upper(n: int, bad: int, alpha: float = 0.05) -> float:
    """Return the anytime-valid upper bound on the rate: the least bound that the counts prove it to lie below.

    >>> sequence_upper(375, 0) < 0.01 < sequence_upper(374, 0)
    True
    """
    threshold = log(1.0 / alpha)
    return _bisect(lambda rate: log_e_below(n, bad, rate) < threshold, upper_end=True)


def sequence_lower(n: int, bad: int, alpha: float = 0.05) -> float:
    """Return the anytime-valid lower bound on the rate: the greatest bound that the counts prove it to lie above."""
    threshold = log(1.0 / alpha)
    return _bisect(lambda rate: log_e_above(n, bad, rate) >= threshold, upper_end=False)


def clopper_pearson(n: int, bad: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return the one-sided lower and the one-sided upper bound for a single look (Clopper and Pearson 1934).

    >>> clopper_pearson(299, 0)[1] < 0.01 < clopper_pearson(298, 0)[1]
    True
    """
    from scipy.special import betaincinv  # heavy: only reports need it

    check_counts(n, bad)
    check_rate("alpha", alpha)
    lower = 0.0 if bad == 0 else float(betaincinv(bad, n - bad + 1, alpha))
    upper = 1.0 if bad == n else float(betaincinv(bad + 1, n - bad, 1.0 - alpha))
    return lower, upper


def clopper_pearson_n_needed(bad: int, bound: float, alpha: float = 0.05) -> int:
    """Return the n, fixed in advance, at which ``bad`` bad events prove a rate below ``bound`` in a single look."""
    check_rate("bound", bound)
    low, high = bad, n_needed(bad, bound, alpha)  # an anytime-valid test never needs fewer
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if clopper_pearson(middle, bad, alpha)[1] < bound else (middle, high)
    return high


def power_below(bound: float, rate: float, n_max: int, alpha: float = 0.05) -> float:
    """Return the chance of having proven "below ``bound``" within ``n_max`` events when the truth is ``rate``.

    Exact (a walk over all counts), with a look after every event.

    >>> power_below(0.01, 0.001, 1_500) > 0.99
    True
    """
    limits = _limits_below(bound, n_max, alpha)
    return float(_stopped(limits, rate, proves_below=True)[-1])


def power_above(bound: float, rate: float, n_max: int, alpha: float = 0.05) -> float:
    """Return the chance of having proven "above ``bound``" within ``n_max`` events when the truth is ``rate``."""
    return float(_stopped(_limits_above(bound, n_max, alpha), rate, proves_below=False)[-1])


def median_delay(bound: float, rate: float, alpha: float = 0.05, n_max: int = 100_000) -> int:
    """Return the median number of events until "above ``bound``" is proven when the truth is ``rate`` > ``bound``.

    >>> [median_delay(0.02, rate) for rate in (0.5, 0.2, 0.1, 0.05)]
    [3, 13, 39, 207]
    """
    if rate <= bound:
        raise ParameterError("rate", f"above the bound {bound}", rate)
    n = 64
    while True:
        stopped = _stopped(_limits_above(bound, min(n, n_max), alpha), rate, proves_below=False)
        if stopped[-1] >= 0.5:
            return int(np.argmax(stopped >= 0.5)) + 1
        if n >= n_max:
            raise ParameterError("n_max", "large enough for half of the runs to stop", n_max)
        n *= 4


def _bisect(is_low: Callable[[float], bool], *, upper_end: bool) -> float:
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if is_low(middle) else (low, middle)
    return high if upper_end else low


def _limits_below(bound: float, n_max: int, alpha: float) -> npt.NDArray[np.int64]:
    """Return for n = 1..n_max the greatest count of bad events that still proves "below"; −1 where none does."""
    limits = np.empty(n_max, dtype=np.int64)
    bad = 0
    for n in range(1, n_max + 1):
        while bad <= n and is_proven(log_e_below(n, bad, bound), alpha):
            bad += 1
        limits[n - 1] = bad - 1
    return limits


def _limits_above(bound: float, n_max: int, alpha: float) -> npt.NDArray[np.int64]:
    """Return for n = 1..n_max the least count of bad events that proves "above"; more than n where none does."""
    limits = np.empty(n_max, dtype=np.int64)
    bad = bad_needed(1, bound, alpha)
    for n in range(1, n_max + 1):
        while bad <= n and not is_proven(log_e_above(n, bad, bound), alpha):
            bad += 1
        limits[n - 1] = bad
    return limits


def _stopped(limits: npt.NDArray[np.int64], rate: float, *, proves_below: bool) -> npt.NDArray[np.float64]:
    """Return the chance of having stopped by n = 1, 2, …: the walk's mass beyond the limit is taken out as it arrives."""
    size = int(limits.max()) + 2
    mass = np.zeros(size + 1)  # the last cell gathers everything beyond the largest limit
    mass[0] = 1.0
    stopped = np.empty(len(limits))
    total = 0.0
    for index, limit in enumerate(limits):
        moved = mass * rate
        mass -= moved
        mass[1:] += moved[:-1]
        mass[-1] += moved[-1]
        beyond = slice(0, max(int(limit) + 1, 0)) if proves_below else slice(int(limit), None)
        total += float(mass[beyond].sum())
        mass[beyond] = 0.0
        stopped[index] = total
    return stopped
