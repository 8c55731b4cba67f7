"""The tests of rates: the golden table, validity under continuous peeking, power, and nothing that underflows."""

from __future__ import annotations

from math import exp, log, log1p

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from probatum.core.errors import ParameterError
from probatum.rollout.bounds import (
    clopper_pearson,
    clopper_pearson_n_needed,
    median_delay,
    power_above,
    power_below,
    sequence_lower,
    sequence_upper,
)
from probatum.rollout.eprocess import (
    ABOVE_ODDS,
    BELOW_FRACTIONS,
    bad_needed,
    is_proven,
    log_e_above,
    log_e_above_since,
    log_e_below,
    n_needed,
)

BOUNDS = (0.01, 0.02, 0.05, 0.1)
# facts §4: bad events: (fixed n, anytime-valid n) per bound
NEEDED = {
    0: ((299, 375), (149, 187), (59, 74), (29, 36)),
    1: ((473, 622), (236, 310), (93, 123), (46, 60)),
    2: ((628, 845), (313, 421), (124, 167), (61, 82)),
    5: ((1049, 1408), (523, 702), (208, 278), (103, 137)),
    10: ((1693, 2192), (845, 1093), (336, 434), (167, 214)),
}


@pytest.mark.parametrize("bad", NEEDED)
def test_observations_needed(bad: int) -> None:
    """The mixture and Clopper-Pearson give every entry of the published table."""
    ours = tuple((clopper_pearson_n_needed(bad, bound), n_needed(bad, bound)) for bound in BOUNDS)
    assert ours == NEEDED[bad]


def test_ladder_needs() -> None:
    """Errors below 10, 4, 2 and 1 % take 36, 93, 187 and 375 samples without an error."""
    assert [n_needed(0, bound) for bound in (0.1, 0.04, 0.02, 0.01)] == [36, 93, 187, 375]


def test_abort_limits() -> None:
    """Errors above 2 % are proven by 3 in 10, 5 in 50, 8 in 100."""
    assert [bad_needed(n, 0.02) for n in (10, 50, 100)] == [3, 5, 8]
    assert bad_needed(1, 0.02) == 2


@pytest.mark.parametrize(("rate", "published"), [(0.5, 4), (0.2, 13), (0.1, 38), (0.05, 212), (0.03, 1500)])
def test_abort_delay(rate: float, published: int) -> None:
    """The exact median delays lie within one event or 5 % of the published simulation."""
    assert median_delay(0.02, rate) == pytest.approx(published, abs=1, rel=0.05)


def _paths(rate: float, runs: int, n: int, seed: int) -> np.ndarray:
    """Return cumulated bad events, runs × n."""
    return np.cumsum(np.random.default_rng(seed).random((runs, n)) < rate, axis=1, dtype=np.int64)


def _ever(bad: np.ndarray, limits: np.ndarray, *, below: bool) -> float:
    return float(((bad <= limits) if below else (bad >= limits)).any(axis=1).mean())


def _limits(bound: float, n: int, *, below: bool) -> np.ndarray:
    """Find the limits by plain search, independently of the code that walks them."""
    proven = [
        [bad for bad in range(min(k, 80) + 1) if (log_e_below if below else log_e_above)(k, bad, bound) >= log(20)]
        for k in range(1, n + 1)
    ]
    return np.array([(max(x, default=-1) if below else min(x, default=k + 2)) for k, x in enumerate(proven)])


def test_false_promote_under_peeking() -> None:
    """With errors at exactly 1 % and a look after each event, at most 5 % of runs ever prove less; so does the walk."""
    limits = _limits(0.01, 2_000, below=True)
    simulated = _ever(_paths(0.01, 4_000, 2_000, 11), limits, below=True)
    assert simulated <= 0.05
    assert power_below(0.01, 0.01, 2_000) == pytest.approx(simulated, abs=0.01)


def test_false_abort_under_peeking() -> None:
    """With errors at exactly 2 % and a look after each event, at most 5 % of runs ever abort; so does the walk."""
    limits = _limits(0.02, 1_500, below=False)
    simulated = _ever(_paths(0.02, 4_000, 1_500, 12), limits, below=False)
    assert simulated <= 0.05
    assert power_above(0.02, 0.02, 1_500) == pytest.approx(simulated, abs=0.01)


def test_point_estimates_do_err() -> None:
    """The same streams, judged by their point estimate after ten events, promote falsely in most runs."""
    bad = _paths(0.01, 500, 2_000, 13)[:, 9:]
    assert (bad / np.arange(10, 2_001) < 0.01).any(axis=1).mean() > 0.9


def test_power() -> None:
    """At 0.1 % true errors at least 95 % of runs prove less than 1 % within 1,500 events."""
    assert power_below(0.01, 0.001, 1_500) >= 0.95


def test_restarts_do_not_raise_false_aborts() -> None:
    """With errors at exactly 2 %, betting on a rise at each of five phases aborts at most 5 % of watched runs."""
    paths = _paths(0.02, 400, 1_000, 14)
    aborted = [any(is_proven(_since(path, n), 0.05) for n in range(20, 1_001, 20)) for path in paths]
    assert np.mean(aborted) <= 0.05


def test_restarts_find_a_late_turn() -> None:
    """20 % errors after 10,000 good events are proven within 60; without the restart they are not."""
    late = next(n for n in range(1, 2_000) if is_proven(log_e_above_since([(10_000, 10), (n, n // 5)], 0.02, 5), 0.05))
    assert late <= 60
    assert not is_proven(log_e_above(10_060, 22, 0.02), 0.05)


def _since(path: np.ndarray, n: int) -> float:
    """Cut a path into five phases of 200 events, as far as it has come."""
    ends = [end for end in (200, 400, 600, 800) if end < n] + [n]
    bad = [0, *(int(path[end - 1]) for end in ends)]
    starts = [0, *ends[:-1]]
    segments = [(end - start, b - a) for start, end, a, b in zip(starts, ends, bad[:-1], bad[1:], strict=True)]
    return log_e_above_since(segments, 0.02, 5)


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from(BOUNDS))
def test_closed_forms(good: int, bad: int, bound: float) -> None:
    """Both closed forms equal the mixture written out as products of likelihood ratios."""
    n = good + bad

    def ratio(rate: float) -> float:
        return (rate / bound) ** bad * ((1 - rate) / (1 - bound)) ** good

    below = np.mean([ratio(fraction * bound) for fraction in BELOW_FRACTIONS])
    odds = [m * bound / (1 - bound) for m in ABOVE_ODDS]
    above = np.mean([ratio(o / (1 + o)) for o in odds])
    assert exp(log_e_below(n, bad, bound)) == pytest.approx(below, rel=1e-9)
    assert exp(log_e_above(n, bad, bound)) == pytest.approx(above, rel=1e-9)


@given(st.sampled_from(BOUNDS), st.integers(1, 7))
def test_martingale(bound: float, n: int) -> None:
    """At the bound the expected wealth stays one, and on the harmless side of it below one: summed over all outcomes."""
    for log_e, worse in ((log_e_below, min(2 * bound, 0.9)), (log_e_above, bound / 2)):
        wealth = [exp(log_e(n, bad, bound)) for bad in range(n + 1)]
        at = binom.pmf(range(n + 1), n, bound) @ wealth
        assert at == pytest.approx(1.0, rel=1e-9)
        assert binom.pmf(range(n + 1), n, worse) @ wealth <= 1.0 + 1e-12


@given(st.integers(0, 3_000), st.integers(0, 3_000), st.sampled_from([0.05, 0.01]))
def test_bounds_invert_the_tests(good: int, bad: int, alpha: float) -> None:
    """A confidence sequence ends exactly where the test stops proving, encloses the estimate, and Clopper-Pearson lies inside."""
    n = good + bad
    lower, upper = sequence_lower(n, bad, alpha), sequence_upper(n, bad, alpha)
    if 1e-6 < upper < 1 - 1e-6:
        assert is_proven(log_e_below(n, bad, upper * (1 + 1e-6)), alpha)
        assert not is_proven(log_e_below(n, bad, upper * (1 - 1e-6)), alpha)
    if lower > 1e-6:
        assert is_proven(log_e_above(n, bad, lower * (1 - 1e-6)), alpha)
    if n:
        assert lower - 1e-9 <= bad / n <= upper + 1e-9
        low, high = clopper_pearson(n, bad, alpha)
        assert lower <= low + 1e-9
        assert high <= upper + 1e-9


def test_clopper_pearson_oracle() -> None:
    """Clopper-Pearson equals the beta quantiles that define it."""
    for n, bad in ((50, 0), (50, 3), (50, 50), (1, 1)):
        lower, upper = clopper_pearson(n, bad)
        assert lower == pytest.approx(beta.ppf(0.05, bad, n - bad + 1) if bad else 0.0)
        assert upper == pytest.approx(beta.ppf(0.95, bad + 1, n - bad) if bad < n else 1.0)


def test_extremes_do_not_underflow() -> None:
    """A million bad events prove nothing good, and a million good ones overflow nothing."""
    assert log_e_below(10**6, 10**6, 0.01) < -500_000
    assert log_e_below(10**7, 0, 0.01) == pytest.approx(10**7 * (log1p(-0.0005) - log1p(-0.01)) - log(5), rel=1e-9)
    assert log_e_above(10**6, 0, 0.02) < -9_000
    assert sequence_upper(10**6, 10**6) == pytest.approx(1.0)


@pytest.mark.parametrize("counts", [(-1, 0), (3, 4), (3.0, 1), (3, True), (float("nan"), 0)])
def test_counts_are_integers(counts: tuple[int, int]) -> None:
    """Rates, NaN and impossible counts are refused by name."""
    with pytest.raises(ParameterError, match=r"^(n|bad) must be an integer"):
        log_e_below(*counts, 0.01)


@pytest.mark.parametrize("bound", [0.0, 1.0, float("nan"), -0.1])
def test_bounds_are_rates(bound: float) -> None:
    """A bound outside (0, 1) is refused by name."""
    with pytest.raises(ParameterError, match=r"^bound must be"):
        log_e_above(10, 1, bound)
