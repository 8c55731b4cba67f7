"""Test the rate of bad events in a stream, so that the answer stays valid however often one looks.

An e-process is the wealth of a gambler who bets against a hypothesis at fair odds. Were the hypothesis true, the chance
that the wealth *ever* reaches 1/alpha is at most alpha (Ville's inequality), so one may look after every event and stop
when one likes. A point estimate looked at in this way errs in 95 % of runs, a fixed-n interval in 20-30 %.

The bets are an equal mixture over five alternative rates, each a likelihood ratio; a mixture of e-processes is one again.
Everything is a closed form in two integers, ``n`` events of which ``bad`` were bad, and stays in logarithms: nothing can
underflow, and two readers of the same counts get the same figure. The mixtures are explained in docs/decisions/0080.

Waudby-Smith and Ramdas 2020, "Estimating means of bounded random variables by betting", arXiv 2010.09686;
Lindon, Sanden and Shirikian 2022 (Netflix), "Rapid regression detection in software deployments", arXiv 2205.14762.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, isfinite, log, log1p

from probatum.core.errors import ParameterError

BELOW_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.6)
"""Alternatives to "the rate is at least the bound": these fractions of the bound."""

ABOVE_ODDS = (1.5, 2.0, 4.0, 8.0, 16.0)
"""Alternatives to "the rate is at most the bound": the bound's odds times these."""

Counts = tuple[int, int]
"""(n, bad): events, and bad ones among them."""


def log_e_below(n: int, bad: int, bound: float) -> float:
    """Return the log evidence that the rate of bad events lies below ``bound`` (0 < bound < 1).

    >>> log_e_below(374, 0, 0.01) < log(20) <= log_e_below(375, 0, 0.01)
    True
    """
    check_counts(n, bad)
    check_rate("bound", bound)
    base = log1p(-bound)
    return _log_mean_exp(
        [bad * log(fraction) + (n - bad) * (log1p(-fraction * bound) - base) for fraction in BELOW_FRACTIONS]
    )


def log_e_above(n: int, bad: int, bound: float) -> float:
    """Return the log evidence that the rate of bad events lies above ``bound`` (0 < bound < 1).

    With the alternative's odds m times the bound's, the log likelihood ratio is bad·ln m − n·ln(1 + (m − 1)·bound).

    >>> log_e_above(10, 2, 0.02) < log(20) <= log_e_above(10, 3, 0.02)
    True
    """
    check_counts(n, bad)
    check_rate("bound", bound)
    return _log_mean_exp([bad * log(odds) - n * log1p((odds - 1.0) * bound) for odds in ABOVE_ODDS])


def log_e_above_since(segments: Sequence[Counts], bound: float, suspicions: int) -> float:
    """Return the log evidence that the rate rose above ``bound`` at the start of some segment.

    A long good past would hide a model that turns bad late: the wealth lost on it must first be won back. So the stake is
    divided evenly over ``suspicions`` starts (one for each segment that the plan can have), and the bet on a start that
    has not come is still in hand. That mixture is an e-process too, and its price is ln(suspicions).

    ``segments`` holds (n, bad) for each segment, the present one last.

    >>> good_then_bad = [(10_000, 5), (20, 6)]
    >>> log_e_above(10_020, 11, 0.02) < 0 < log(20) < log_e_above_since(good_then_bad, 0.02, 5)
    True
    """
    if not 1 <= len(segments) <= suspicions:
        raise ParameterError("segments", f"1 to {suspicions} (n, bad) pairs", len(segments))
    n = bad = 0
    bets = [0.0] * (suspicions - len(segments))
    for segment_n, segment_bad in reversed(segments):
        n, bad = n + segment_n, bad + segment_bad
        bets.append(log_e_above(n, bad, bound))
    return _log_mean_exp(bets)


def is_proven(log_e: float, alpha: float, shares: int = 1) -> bool:
    """Say whether evidence suffices at level ``alpha``, or at ``alpha/shares`` where several tests share one alpha."""
    check_rate("alpha", alpha)
    return log_e >= log(shares / alpha)


def n_needed(bad: int, bound: float, alpha: float = 0.05) -> int:
    """Return the number of events, ``bad`` of them bad, that proves a rate below ``bound``.

    >>> [n_needed(0, bound) for bound in (0.01, 0.02, 0.04, 0.1)]
    [375, 187, 93, 36]
    """
    check_counts(bad, bad)
    low, high = bad, max(2 * bad, 1)
    while not is_proven(log_e_below(high, bad, bound), alpha):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_proven(log_e_below(middle, bad, bound), alpha) else (middle, high)
    return high


def bad_needed(n: int, bound: float, alpha: float = 0.05) -> int:
    """Return how many bad events in ``n`` prove a rate above ``bound``; ``n + 1`` where none can.

    >>> [bad_needed(n, 0.02) for n in (10, 50, 100)]
    [3, 5, 8]
    """
    return next((bad for bad in range(n + 1) if is_proven(log_e_above(n, bad, bound), alpha)), n + 1)


def check_counts(n: int, bad: int) -> None:
    """Raise ParameterError unless 0 <= bad <= n, both integers: a rate is derived from counts, never given."""
    if type(n) is not int or n < 0:
        raise ParameterError("n", "an integer >= 0", n)
    if type(bad) is not int or not 0 <= bad <= n:
        raise ParameterError("bad", f"an integer in [0, n = {n}]", bad)


def check_rate(name: str, value: float) -> None:
    """Raise ParameterError unless 0 < value < 1."""
    if not (isfinite(value) and 0.0 < value < 1.0):
        raise ParameterError(name, "a number in (0, 1)", value)


def _log_mean_exp(logs: Sequence[float]) -> float:
    top = max(logs, default=-inf)
    return top + log(sum(exp(item - top) for item in logs) / len(logs))
