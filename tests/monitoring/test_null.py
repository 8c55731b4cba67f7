"""The two nulls against independent oracles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import nct

from probatum.monitoring.null import BlockNull, block_null, sampling_null
from probatum.monitoring.psi import EPSILON, freeze, psi


def _null(values: np.ndarray, rows: int) -> BlockNull | None:
    blocks = np.array(freeze(values, raw=True).block_counts)
    return block_null([blocks], len(values) // 240, rows, epsilon=EPSILON, rng=np.random.default_rng(1))


@pytest.mark.parametrize("pieces", [10.0, 60.0])
def test_critical_value_is_a_tolerance_limit(pieces: float) -> None:
    """The limit agrees with the exact one (non-central t) within a tenth of a deviation."""
    null = BlockNull(mean_log=0.0, sd_log=1.0, expected=1.0, pieces=pieces, piece_rows=1, memory_rows=1.0)
    exact = nct.ppf(0.9, pieces - 1, 1.6448536 * np.sqrt(pieces)) / np.sqrt(pieces)
    assert np.log(null.critical(0.05, 0.9)) == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_p_value_inverts_the_critical_value(alpha: float) -> None:
    """The p-value of the critical value at alpha is alpha."""
    null = BlockNull(mean_log=-1.0, sd_log=0.7, expected=1.0, pieces=20.0, piece_rows=1, memory_rows=1.0)
    assert null.p_value(null.critical(alpha, 0.9), 0.9) == pytest.approx(alpha, rel=1e-9)


def test_independent_rows_have_the_closed_form_mean() -> None:
    """Of independent rows, both nulls expect (B − 1)(1/N + 1/M)."""
    rng = np.random.default_rng(2)
    null = _null(rng.normal(size=60_000), 1000)
    assert null is not None
    assert null.expected == pytest.approx(9 * (1 / 1000 + 1 / 60_000), rel=0.15)
    assert null.pieces == 60
    sampling = sampling_null(np.full(11, 6000), np.full(11, 100), epsilon=EPSILON, rng=rng)
    assert sampling.expected == pytest.approx(10 * (1 / 66_000 + 1 / 1100))


def test_memory_is_found_and_lengthens_the_pieces() -> None:
    """The memory of AR(0.99) is found near its 199 rows, and pieces hold five of it or there is no null."""
    rng = np.random.default_rng(3)
    found = [_null(np.asarray(lfilter([1.0], [1.0, -0.99], rng.normal(size=60_000))), 1000) for _ in range(20)]
    memories = [null.memory_rows for null in found if null]
    assert 130 < np.median(memories) < 260
    assert all(null.piece_rows >= 5 * null.memory_rows for null in found if null)
    assert _null(np.cumsum(rng.normal(size=60_000)), 1000) is None


@pytest.mark.parametrize("rows", [1000, 20_000])
def test_null_agrees_with_fresh_windows(rows: int) -> None:
    """Contiguous and composed windows alike predict the mean log PSI of windows the reference never saw."""
    rng = np.random.default_rng(4)
    seen, predicted = [], []
    for _ in range(60):
        series = np.asarray(lfilter([1.0], [1.0, -0.97], rng.normal(size=60_000 + rows)))
        frozen = freeze(series[:60_000], raw=True)
        window = np.bincount(np.searchsorted(frozen.edges, series[60_000:], side="right"), minlength=11)
        seen.append(np.log(psi([*frozen.counts, 0], window)))
        null = _null(series[:60_000], rows)
        assert null is not None
        predicted.append(null.mean_log)
    assert np.mean(predicted) == pytest.approx(np.mean(seen), abs=4.0 * np.std(seen) / np.sqrt(60))


def test_thin_bins_are_drawn_instead_of_approximated() -> None:
    """Where a bin expects less than five rows, p-values come from multinomial draws, and are never zero."""
    rng = np.random.default_rng(5)
    reference, window = np.array([9000, 990, 10, 0]), np.array([900, 99, 1, 0])
    null = sampling_null(reference, window, epsilon=EPSILON, rng=rng)
    assert null.draws is not None
    assert 0.0 < null.p_value(10.0) < 0.01 < null.p_value(null.critical(0.05)) < 0.1
    assert null.p_value(float(psi(reference, window))) > 0.2
    assert sampling_null(reference * 10, window * 10, epsilon=EPSILON, rng=rng).draws is None
