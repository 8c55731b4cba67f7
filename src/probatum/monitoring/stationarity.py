"""Read two tests of stationarity together: one whose null is a unit root, one whose null is that there is none."""

from __future__ import annotations

import warnings
from enum import StrEnum
from importlib import import_module
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from probatum.core.errors import MissingExtraError, ParameterError

ROWS_MAX = 5_000
"""A longer series is thinned evenly to at most this many rows: a trend or a unit root shows as well, in milliseconds."""
ROWS_MIN = 100
_DIGITS = 4  # both statistics come out of least squares, whose last digits belong to the machine


class Reading(StrEnum):
    """Name what ADF and KPSS say together."""

    STATIONARY = "stationary"
    UNIT_ROOT = "unit root"
    INCONCLUSIVE = "inconclusive"
    CONSTANT = "constant"
    DETERMINISTIC = "deterministic"


class Stationarity(msgspec.Struct, frozen=True):
    """Hold both tests of one column: statistics, p-values (KPSS's lie within [0.01, 0.1]), rows used, joint reading."""

    name: str
    reading: Reading
    rows: int
    adf: float | None = None
    adf_p: float | None = None
    kpss: float | None = None
    kpss_p: float | None = None


def read_jointly(adf_p: float, kpss_p: float, alpha: float) -> Reading:
    """Return what two p-values say: they must disagree in what they reject, for their nulls are opposite.

    Both rejecting is a series with breaks or slow changes, none rejecting one that is too short: neither is known.

    >>> read_jointly(0.001, 0.1, 0.05), read_jointly(0.6, 0.01, 0.05), read_jointly(0.001, 0.01, 0.05)
    (<Reading.STATIONARY: 'stationary'>, <Reading.UNIT_ROOT: 'unit root'>, <Reading.INCONCLUSIVE: 'inconclusive'>)
    """
    no_root, no_level = adf_p < alpha, kpss_p < alpha
    if no_root == no_level:
        return Reading.INCONCLUSIVE
    return Reading.STATIONARY if no_root else Reading.UNIT_ROOT


def stationarity(name: str, values: NDArray[np.float64], alpha: float) -> Stationarity:
    """Test one column, float64[n] in time order, at ``alpha``.

    Dickey and Fuller (1979) with Schwert's number of lags; Kwiatkowski, Phillips, Schmidt and Shin (1992) with that of
    Hobijn et al. (2004). Raises MissingExtraError without statsmodels, ParameterError for NaN or a short series.
    """
    if len(values) < ROWS_MIN or not bool(np.isfinite(values).all()):
        raise ParameterError(name, f"at least {ROWS_MIN} finite numbers", f"{len(values)} rows")
    thinned = np.ascontiguousarray(values[:: -(-len(values) // ROWS_MAX)])
    if float(np.ptp(thinned)) == 0.0:
        return Stationarity(name, Reading.CONSTANT, len(thinned))
    if _is_foretold(thinned):
        return Stationarity(name, Reading.DETERMINISTIC, len(thinned))
    tools = load_statsmodels()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # KPSS: p lies beyond its table
        warnings.simplefilter("ignore", FutureWarning)  # ADF: will return more than a tuple
        adf, adf_p, *_ = tools.adfuller(thinned, autolag=None)
        kpss, kpss_p, *_ = tools.kpss(thinned, regression="c", nlags="auto")
    found = (float(f"{float(value):.{_DIGITS}g}") for value in (adf, adf_p, kpss, kpss_p))
    return Stationarity(name, read_jointly(float(adf_p), float(kpss_p), alpha), len(thinned), *found)


def _is_foretold(values: NDArray[np.float64]) -> bool:
    """Return whether (x[t+1] + x[t−1]) / x[t] never changes, as for a sine of the time of day, which leaves no noise to test.

    A hundredth of the rows may lie beside a break.
    """
    middle = values[1:-1]
    large = np.abs(middle) > 0.01 * np.abs(middle).max()
    if not large.any():
        return False
    ratio = ((values[2:] + values[:-2])[large]) / middle[large]
    return bool(np.quantile(np.abs(ratio - np.median(ratio)), 0.99) < 1e-6)


def load_statsmodels() -> Any:
    """Import what has the tests, or say which extra is missing."""
    try:
        return import_module("statsmodels.tsa.stattools")
    except ImportError:
        raise MissingExtraError("retrain", "statsmodels, which tests for stationarity, is not installed") from None
