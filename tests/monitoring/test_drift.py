"""The drift verdict: what it must not call drift, what it must, and what it says when it cannot tell."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from probatum.core.errors import ParameterError
from probatum.core.verdict import Verdict
from probatum.models.artifact import ReferenceBins
from probatum.monitoring.drift import DriftReport, DriftSettings, assess_drift
from probatum.monitoring.psi import freeze
from probatum.monitoring.windows import WindowCounts, count_window

Column = NDArray[np.float64]


def _ar(rho: float, n: int, rng: np.random.Generator) -> Column:
    """Return a stationary AR(1) series with standard deviation 1."""
    noise = rng.normal(size=n) * np.sqrt(1.0 - rho * rho)
    noise[0] /= np.sqrt(1.0 - rho * rho)
    return np.asarray(lfilter([1.0], [1.0, -rho], noise))


def _assess(reference: Column, window: Column, **settings: float) -> DriftReport:
    frozen = {"x": freeze(reference, raw=True)}
    return assess_drift(frozen, count_window(frozen, {"x": window}), DriftSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 3])
def test_false_alarms_on_an_unchanged_market_that_remembers(seed: int) -> None:
    """In 2,000 runs of an unchanged AR(0.99) series (reference 60,000, window 1,000) at most 5 % are called drift."""
    rng = np.random.default_rng(seed)
    verdicts, above = [], 0
    for _ in range(2000 if seed == 0 else 400):
        series = _ar(0.99, 61_000, rng)
        report = _assess(series[:60_000], series[60_000:])
        verdicts.append(report.verdict)
        above += (report.overall.psi or 0.0) >= 0.2
    assert verdicts.count(Verdict.FAIL) <= 0.05 * len(verdicts)
    assert above > 0.5 * len(verdicts), "a fixed 0.2 calls most of them drift, or the simulation simulates nothing"


def test_power_against_half_a_standard_deviation() -> None:
    """A shift of 0.5 sd in an independent series is found in at least 95 % of 1,000 windows of 2,000 rows."""
    rng = np.random.default_rng(1)
    failed = sum(
        _assess(rng.normal(size=60_000), rng.normal(0.5, size=2000)).verdict is Verdict.FAIL for _ in range(1000)
    )
    assert failed >= 950


@pytest.mark.parametrize(
    ("rho", "reference", "window"), [(0.97, 60_000, 1000), (0.995, 26_000, 8000), (1.0, 26_000, 8000)]
)
def test_false_alarms_elsewhere(rho: float, reference: int, window: int) -> None:
    """Other memories, windows that are a third of the reference, and a random walk keep the promise of 5 % too."""
    rng = np.random.default_rng(2)
    runs = 250
    failed = 0
    for _ in range(runs):
        noise = rng.normal(size=reference + window)
        series = np.asarray(lfilter([1.0], [1.0, -rho], noise))
        failed += _assess(series[:reference], series[reference:]).verdict is Verdict.FAIL
    assert failed <= 0.05 * runs + 2.0 * np.sqrt(0.05 * 0.95 * runs)


def test_a_wandering_level_is_inconclusive_however_far_it_went() -> None:
    """A raw price far from its training range is not called drift: its training window cannot say how far it wanders."""
    rng = np.random.default_rng(5)
    walk = np.cumsum(rng.normal(size=34_000))
    report = _assess(walk[:26_000], walk[26_000:] + 500.0)
    assert (report.overall.psi or 0.0) > 2.0
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "wander" in report.overall.reason
    assert "stationary" in report.overall.settle


def test_verdict_follows_from_bound_and_null() -> None:
    """Below the bound is PASS; above it FAIL exactly when the PSI reaches the critical value, which the p-value mirrors."""
    rng = np.random.default_rng(6)
    seen = set()
    for shift in np.linspace(0.0, 3.0, 40):
        series = _ar(0.99, 62_000, rng)
        check = _assess(series[:60_000], series[60_000:] + shift).overall
        assert check.psi is not None
        assert check.critical is not None
        assert check.p_value is not None
        assert (check.p_value <= check.level) == (check.psi >= check.critical)
        wanted = Verdict.FAIL if check.psi >= check.critical else Verdict.INCONCLUSIVE
        assert check.verdict is (wanted if check.psi >= 0.2 else Verdict.PASS)
        assert (check.reason == "") == (check.settle == "") == (check.verdict is Verdict.PASS)
        seen.add(check.verdict)
    assert seen == {Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL}


@pytest.mark.parametrize("rows", [0, 1, 999])
def test_too_few_rows_are_inconclusive_and_say_how_many_are_missing(rows: int) -> None:
    """Fewer than 1,000 rows settle nothing, however far they lie."""
    rng = np.random.default_rng(7)
    report = _assess(rng.normal(size=10_000), rng.normal(9.0, size=rows))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.overall.settle == f"{1000 - rows:,} more rows"


def test_nan_where_training_had_none_fails_even_in_a_wandering_column() -> None:
    """Missing values are a fault of the feed, and no memory of the column explains them."""
    rng = np.random.default_rng(8)
    walk = np.cumsum(rng.normal(size=28_000))
    window = walk[26_000:].copy()
    window[::2] = np.nan
    report = _assess(walk[:26_000], window)
    assert report.features[0].check.verdict is Verdict.FAIL
    assert report.features[0].bins[-1].nan
    assert report.features[0].bins[-1].window == 1000


def test_a_constant_column_is_left_out_of_the_mean_and_fails_when_it_moves() -> None:
    """A column that never varied in training does not water down the overall PSI, yet its first move is drift."""
    rng = np.random.default_rng(9)
    frozen = {"flat": freeze(np.ones(20_000), raw=True), "x": freeze(rng.normal(size=20_000), raw=True)}
    x = rng.normal(0.5, size=2000)
    still = assess_drift(frozen, count_window(frozen, {"flat": np.ones(2000), "x": x}))
    assert still.overall.psi == still.features[1].check.psi
    assert still.features[0].constant
    assert still.features[0].check.verdict is Verdict.PASS
    moved = assess_drift(frozen, count_window(frozen, {"flat": np.full(2000, 1.5), "x": rng.normal(size=2000)}))
    assert moved.overall.verdict is Verdict.PASS
    assert moved.features[0].check.verdict is moved.verdict is Verdict.FAIL
    assert moved.largest.check.name == "flat"


def test_duplicates_and_score_are_shown_and_not_enforced() -> None:
    """A derived duplicate and the model's own output have their PSI, but neither mean nor verdict listens to them."""
    rng = np.random.default_rng(10)
    column, window = rng.normal(size=20_000), rng.normal(1.0, size=2000)
    frozen = {
        "x": freeze(column, raw=True),
        "copy": freeze(column, raw=False),
        "score": freeze(column, raw=False),
    }
    report = assess_drift(frozen, count_window(frozen, {"x": column[:2000], "copy": window, "score": window}))
    assert report.verdict is Verdict.PASS
    assert report.features[1].check.verdict is Verdict.FAIL
    assert report.score is not None
    assert report.score.check.verdict is Verdict.FAIL
    assert [feature.check.enforced for feature in (*report.features, report.score)] == [True, False, False]


def test_only_constant_columns_are_an_error() -> None:
    """Where nothing varied in training nothing was compared, and that is no PASS."""
    assert _assess(np.ones(5000), np.ones(2000)).verdict is Verdict.ERROR


def test_table_adds_up() -> None:
    """The terms of the bins are the PSI, their counts are the rows, and neighbouring bins share their edges."""
    rng = np.random.default_rng(11)
    report = _assess(rng.normal(size=20_000), rng.normal(0.3, size=3000))
    feature = report.features[0]
    assert sum(b.term for b in feature.bins) == pytest.approx(feature.check.psi, abs=1e-12)
    assert (sum(b.window for b in feature.bins), sum(b.reference for b in feature.bins)) == (3000, 20_000)
    assert [b.upper for b in feature.bins[:-2]] == [b.lower for b in feature.bins[1:-1]]


def test_report_is_reproducible() -> None:
    """The same counts give the same report, draws included."""
    rng = np.random.default_rng(12)
    frozen = {"x": freeze(np.cumsum(rng.normal(size=20_000)) % 40.0, raw=True)}
    window = count_window(frozen, {"x": rng.normal(size=9000)})
    assert msgspec.json.encode(assess_drift(frozen, window)) == msgspec.json.encode(assess_drift(frozen, window))


def test_windows_merge_into_the_same_verdict() -> None:
    """Hourly counts merged are the counts of the day."""
    rng = np.random.default_rng(13)
    frozen = {"x": freeze(rng.normal(size=20_000), raw=True)}
    rows = rng.normal(size=2400)
    merged = count_window(frozen, {"x": rows[:100]})
    for start in range(100, 2400, 100):
        merged = merged.merge(count_window(frozen, {"x": rows[start : start + 100]}))
    assert merged == count_window(frozen, {"x": rows})


def test_refusals_name_what_is_wrong() -> None:
    """Windows and references that do not belong together are refused by name, and so are impossible counts and settings."""
    frozen = {"x": freeze(np.arange(5000.0), raw=True)}
    window = count_window(frozen, {"x": np.arange(1000.0)})
    other = {"x": msgspec.structs.replace(frozen["x"], edges=(1.0,))}
    with pytest.raises(ParameterError, match="lacks x"):
        count_window(frozen, {"y": np.arange(3.0)})
    with pytest.raises(ParameterError, match="of one length"):
        count_window({**frozen, "y": frozen["x"]}, {"x": np.arange(3.0), "y": np.arange(4.0)})
    with pytest.raises(ParameterError, match="bins of x"):
        assess_drift(other, window)
    with pytest.raises(ParameterError, match="frozen columns"):
        assess_drift({"y": frozen["x"]}, window)
    with pytest.raises(ParameterError, match="at least one feature"):
        assess_drift({}, WindowCounts(0, {}))
    with pytest.raises(ParameterError, match="same rows and blocks"):
        assess_drift({**frozen, "y": freeze(np.arange(50.0), raw=True)}, WindowCounts(0, {"x": (0,), "y": (0,)}))
    with pytest.raises(ParameterError, match="counts of x"):
        WindowCounts(3, {"x": (1, 1)})
    with pytest.raises(ParameterError, match="same bins"):
        window.merge(WindowCounts(1, {"x": (1,)}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 0.0),
        ("epsilon", 1.0),
        ("confidence", 1.0),
        ("overall_max", 0.0),
        ("feature_max", np.nan),
        ("rows_min", 0),
    ],
)
def test_settings_outside_their_range_are_refused(name: str, value: float) -> None:
    """Each setting names itself and its allowed range."""
    with pytest.raises(ParameterError, match=name):
        DriftSettings(**{name: value})  # type: ignore[arg-type]


def test_reference_without_blocks_cannot_explain() -> None:
    """An artifact that froze no blocks has no null under memory, so a PSI above the bound stays open."""
    rng = np.random.default_rng(14)
    bins: ReferenceBins = msgspec.structs.replace(freeze(rng.normal(size=20_000), raw=True), block_counts=())
    report = assess_drift({"x": bins}, count_window({"x": bins}, {"x": rng.normal(2.0, size=2000)}))
    assert report.verdict is Verdict.INCONCLUSIVE
