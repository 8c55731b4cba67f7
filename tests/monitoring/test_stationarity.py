"""Two tests with opposite nulls tell a level from a return, and say when they cannot tell."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from probatum.core.errors import MissingExtraError, ParameterError
from probatum.monitoring.stationarity import ROWS_MAX, Reading, read_jointly, stationarity

ALPHA = 0.05
S, U, Q = Reading.STATIONARY, Reading.UNIT_ROOT, Reading.INCONCLUSIVE


def ar(rho: float, n: int, seed: int) -> np.ndarray:
    noise, out = np.random.default_rng(seed).normal(size=n), np.zeros(n)
    for i in range(1, n):
        out[i] = rho * out[i - 1] + noise[i]
    return out


@pytest.mark.parametrize(
    ("adf_p", "kpss_p", "reading"), [(0.01, 0.1, S), (0.5, 0.01, U), (0.01, 0.01, Q), (0.5, 0.1, Q), (0.05, 0.05, Q)]
)
def test_the_four_cases(adf_p: float, kpss_p: float, reading: Reading) -> None:
    """Only where one test rejects and the other does not is the reading certain."""
    assert read_jointly(adf_p, kpss_p, ALPHA) is reading


def test_a_price_has_a_unit_root_and_its_return_has_none() -> None:
    """Of ten random walks at most one is called stationary and most a unit root; of their differences most are stationary."""
    walks = [np.cumsum(np.random.default_rng(seed).normal(size=1_500)) for seed in range(10)]
    levels = [stationarity("mid", walk, ALPHA).reading for walk in walks]
    returns = [stationarity("ret", np.diff(walk), ALPHA).reading for walk in walks]
    assert levels.count(U) >= 7
    assert levels.count(S) <= 1
    assert returns.count(S) >= 7
    assert returns.count(U) == 0


def test_a_slow_but_stationary_column_is_no_unit_root() -> None:
    """An AR(0.95) is never called a unit root: ADF sees that it comes back."""
    assert [s for s in range(10) if stationarity("x", ar(0.95, 2_000, s), ALPHA).reading is U] == []


@pytest.mark.parametrize("rows", [400, 14_400, 20_000])
def test_a_sine_of_the_time_of_day_is_not_tested(rows: int) -> None:
    """Its own past foretells it: the statistic would be 0/0, another on each machine. So it is with rows missing, or a trend."""
    sine = np.sin(2 * np.pi * np.arange(rows + 1) / 1_440 + 0.1)
    for column in (sine, np.delete(sine, rows // 2), np.arange(1.0, rows)):
        assert stationarity("tod_sin", column, ALPHA).reading is Reading.DETERMINISTIC


def test_a_long_series_is_thinned_and_a_constant_one_named() -> None:
    """At most ROWS_MAX rows are tested; a bias has nothing to test."""
    assert stationarity("x", ar(0.5, 20_001, 3), ALPHA).rows == 4_001 <= ROWS_MAX
    assert stationarity("bias", np.ones(500), ALPHA).reading is Reading.CONSTANT


@pytest.mark.parametrize("values", [np.ones(99), np.array([1.0] * 200 + [np.nan]), np.array([np.inf] + [1.0] * 200)])
def test_what_cannot_be_tested_is_refused(values: np.ndarray) -> None:
    """Too few rows, NaN and infinity are errors that name the column, not p-values."""
    with pytest.raises(ParameterError, match="vol1m must be at least 100 finite numbers"):
        stationarity("vol1m", values, ALPHA)


def test_without_statsmodels_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.stattools", None)
    with pytest.raises(MissingExtraError, match=r"probatum\[retrain\]"):
        stationarity("x", ar(0.5, 500, 1), ALPHA)
