"""The bins and the index over them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.core.errors import ParameterError
from probatum.monitoring import binning
from probatum.monitoring.psi import bin_counts, block_counts, freeze, psi, psi_terms, quantile_edges

FLOATS = st.lists(st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1.0, 2.0])), min_size=1, max_size=60)


@pytest.mark.parametrize(("epsilon", "golden"), [(1e-3, 0.15276), (1e-4, 0.17762)])
def test_equal_width_golden(epsilon: float, golden: float) -> None:
    """The published example with ten equal-width bins and closed ends, values outside dropped, holds to five digits."""
    rng = np.random.RandomState(5)
    reference, actual = rng.normal(size=100), rng.normal(0.2, size=120)
    expected, edges = np.histogram(reference, 10)
    observed, _ = np.histogram(actual, edges)
    assert round(float(psi_terms(expected / 100, observed / 120, epsilon).sum()), 5) == golden


def test_table_golden() -> None:
    """The published ten-bin table gives 0.0532782."""
    assert psi([8, 10, 9, 13, 11, 10, 9, 10, 11, 9], [7, 8, 7, 9, 11, 11, 10, 12, 11, 14]) == pytest.approx(
        0.0532782, abs=5e-8
    )


@pytest.mark.parametrize(("shift", "golden"), [(0.5, 0.237749), (1.0, 0.926142)])
def test_gaussian_golden(shift: float, golden: float) -> None:
    """The index between N(0,1) and N(shift,1) on exact deciles is the closed-form value."""
    from scipy.stats import norm

    edges = np.concatenate([[-np.inf], norm.ppf(np.arange(1, 10) / 10), [np.inf]])
    terms = psi_terms(np.full(10, 0.1), np.diff(norm.cdf(edges - shift)))
    assert round(float(terms.sum()), 6) == golden


def _count_one_by_one(values: list[float], edges: list[float]) -> list[int]:
    counts = [0] * (len(edges) + 2)
    for value in values:
        counts[-1 if math.isnan(value) else sum(value >= edge for edge in edges)] += 1
    return counts


@settings(deadline=None)  # the first example compiles
@given(FLOATS, st.lists(st.floats(allow_nan=False, allow_infinity=False), unique=True, max_size=23))
def test_counting_is_exact(values: list[float], edges: list[float]) -> None:
    """Compiled and numpy counting both equal counting one value at a time, whatever the values and the number of edges."""
    edges = sorted(set(edges))
    array = np.array(values)
    oracle = _count_one_by_one(values, edges)
    assert bin_counts(array, edges).tolist() == oracle
    assert binning.count(array, np.array(edges), len(values), 1)[0].tolist() == oracle


def test_compiled_counting_of_many_strided_rows() -> None:
    """A long column inside a row-major table is counted exactly, block by block, the ragged tail left to the caller."""
    table = np.random.default_rng(1).normal(size=(20_001, 3))
    table[::7, 1] = np.nan
    edges = quantile_edges(table[:, 1])
    blocks = block_counts(table[:, 1], edges, 1000, 20)
    index = np.searchsorted(edges, table[:20_000, 1], side="right")
    index[np.isnan(table[:20_000, 1])] = len(edges) + 1
    oracle = [np.bincount(row, minlength=len(edges) + 2).tolist() for row in index.reshape(20, 1000)]
    assert blocks.tolist() == oracle
    assert bin_counts(table[:, 1], edges).sum() == 20_001


@given(FLOATS, FLOATS)
def test_counts_merge(left: list[float], right: list[float]) -> None:
    """Counts of two parts add up to the counts of the whole: no row is lost, none is counted twice."""
    edges = quantile_edges(np.array(left + right))
    parts = bin_counts(np.array(left), edges) + bin_counts(np.array(right), edges)
    assert parts.tolist() == bin_counts(np.array(left + right), edges).tolist()
    assert parts.sum() == len(left) + len(right)


@given(FLOATS)
def test_frozen_column_against_itself(values: list[float]) -> None:
    """Any column at all can be frozen, holds each of its rows once, and has an index of exactly 0 against itself."""
    frozen = freeze(np.array(values), raw=True, block_rows=1)
    counts = [*frozen.counts, frozen.nan]
    assert sum(counts) == len(values)
    assert np.sum(frozen.block_counts, axis=0).tolist() == counts
    assert psi(counts, bin_counts(np.array(values), frozen.edges)) == 0.0
    assert list(frozen.edges) == sorted(set(frozen.edges))


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3), st.lists(st.integers(0, 50), min_size=3, max_size=3))
def test_psi_is_symmetric_and_not_negative(a: list[int], b: list[int]) -> None:
    """The index is symmetric and never negative."""
    a[0] += 1
    b[0] += 1
    assert psi(a, b) == pytest.approx(psi(b, a), abs=1e-12)
    assert psi(a, b) >= 0.0


def test_deciles_hold_equal_counts() -> None:
    """Without ties the ten bins of the reference hold the same number of rows."""
    frozen = freeze(np.random.default_rng(2).permutation(6000) * 0.25, raw=True)
    assert frozen.counts == (600,) * 10
    assert frozen.block_rows == 25


@pytest.mark.parametrize("moved", [2.9999, 3.0001])
def test_constant_that_moves_is_seen_on_either_side(moved: float) -> None:
    """A column that was constant in training shows a move in either direction as a large index."""
    frozen = freeze(np.full(5000, 3.0), raw=True)
    assert psi([*frozen.counts, frozen.nan], bin_counts(np.full(1000, moved), frozen.edges)) > 5.0


@pytest.mark.parametrize("spike", [-5.0, 0.5, 9.0])
def test_spike_in_a_discrete_column_has_its_own_bin(spike: float) -> None:
    """A value that a discrete column never took falls into a bin that was empty in the reference."""
    frozen = freeze(np.tile([-1.0, 0.0, 1.0], 500), raw=True)
    counts = bin_counts(np.array([spike]), frozen.edges)
    assert frozen.counts[int(np.argmax(counts))] == 0


def test_atom_in_a_continuous_column_is_isolated() -> None:
    """A value that fills more than one quantile is told apart from its neighbours: zero volume is not small volume."""
    volume = np.concatenate([np.zeros(400), np.random.default_rng(3).exponential(size=600)])
    frozen = freeze(volume, raw=True)
    assert 400 in frozen.counts
    assert bin_counts(np.full(10, 1e-9), frozen.edges)[frozen.counts.index(400)] == 0


@pytest.mark.parametrize("arguments", [{"bins": 1}, {"block_rows": 0}])
def test_settings_outside_their_range_are_refused(arguments: dict[str, int]) -> None:
    """Fewer than two bins or an empty block is refused by name."""
    with pytest.raises(ParameterError, match=next(iter(arguments))):
        freeze(np.arange(10.0), raw=True, **arguments)
    with pytest.raises(ParameterError, match="values"):
        freeze(np.empty(0), raw=True)
