"""Measure how far a distribution has moved: frozen bins, integer counts, and the population stability index over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probatum.core.errors import ParameterError
from probatum.models.artifact import ReferenceBins

BINS = 10
EPSILON = 1e-4
SCORE = "score"  # the key of the score's own ReferenceBins beside those of the features
REFERENCE_BLOCKS = 240
_COMPILED_FROM = 4096  # values; below, numpy is done before a compiled kernel would be loaded


def block_rows_for(rows: int) -> int:
    """Return the rows per block that split a training window into about 240 blocks.

    Enough of them to see windows of many lengths, few enough that an artifact stays small.

    >>> block_rows_for(60_000)
    250
    """
    return max(1, rows // REFERENCE_BLOCKS)


def quantile_edges(values: NDArray[np.float64], bins: int = BINS) -> NDArray[np.float64]:
    """Return the inner edges of open-ended bins that hold equal numbers of ``values``; bin i is [edge i − 1, edge i).

    A value that repeats over a whole quantile, or any value of a column with no more than ``bins`` different ones, gets a
    bin of its own: then the space between and beyond such values is a bin that the reference never saw, and a spike
    there shows. NaN and infinities take no part.

    >>> quantile_edges(np.arange(100.0), 4).tolist()
    [25.0, 50.0, 75.0]
    >>> len(quantile_edges(np.array([3.0, 3.0, 3.0])))  # below, exactly, above
    2
    """
    if bins < 2:
        raise ParameterError("bins", "at least 2", bins)
    ordered = np.sort(values[np.isfinite(values)])
    n = len(ordered)
    if n == 0:
        return np.empty(0)
    marks = ordered[[min(n * i // bins, n - 1) for i in range(bins + 1)]]
    distinct = np.append(True, ordered[1:] != ordered[:-1])
    atoms = ordered[distinct] if int(distinct.sum()) <= bins else marks[1:][marks[1:] == marks[:-1]]
    with np.errstate(over="ignore"):
        above = np.nextafter(atoms, np.inf)
    edges: NDArray[np.float64] = np.unique(np.concatenate([marks[1:-1], atoms, above]))
    return edges[np.isfinite(edges)]


def bin_counts(values: NDArray[np.float64], edges: ArrayLike) -> NDArray[np.int64]:
    """Return int64[B + 1] counts of float64[n] ``values`` in the B bins that ``edges`` open, NaN last. Exact.

    >>> bin_counts(np.array([0.5, 1.0, 7.0, np.nan]), [1.0, 2.0]).tolist()
    [1, 1, 1, 1]
    """
    counts: NDArray[np.int64] = block_counts(values, edges, max(1, len(values)), 1)[0]
    return counts


def block_counts(values: NDArray[np.float64], edges: ArrayLike, block_rows: int, blocks: int) -> NDArray[np.int64]:
    """Return int64[blocks, B + 1] counts of consecutive blocks of ``block_rows`` values; see :func:`bin_counts`."""
    inner = np.asarray(edges, np.float64)
    if len(values) >= _COMPILED_FROM:
        from probatum.monitoring.binning import count

        return count(np.asarray(values, np.float64), inner, block_rows, blocks)
    index = np.searchsorted(inner, values, side="right")
    index[np.isnan(values)] = len(inner) + 1
    width = len(inner) + 2
    rows = [np.bincount(index[b * block_rows : (b + 1) * block_rows], minlength=width) for b in range(blocks)]
    return np.array(rows, np.int64)


def freeze(values: NDArray[np.float64], *, raw: bool, block_rows: int | None = None, bins: int = BINS) -> ReferenceBins:
    """Freeze one column of the training window, in time order, for :func:`probatum.monitoring.drift.assess_drift`.

    ``raw`` is false for what must not count in the overall PSI: a bias, a duplicate of another column, the score. The
    blocks carry what the null needs to know of the column's memory; rows after the last whole block are in the counts only.

    >>> frozen = freeze(np.arange(20.0), raw=True, block_rows=10, bins=2)
    >>> frozen.edges, frozen.counts, frozen.block_counts
    ((10.0,), (10, 10), ((10, 0, 0), (0, 10, 0)))
    """
    if len(values) == 0:
        raise ParameterError("values", "at least one row", 0)
    rows = block_rows_for(len(values)) if block_rows is None else block_rows
    if rows < 1:
        raise ParameterError("block_rows", "at least 1", rows)
    edges = quantile_edges(values, bins)
    total = bin_counts(values, edges)
    blocks = block_counts(values, edges, rows, len(values) // rows)
    return ReferenceBins(
        edges=tuple(edges.tolist()),
        counts=tuple(total[:-1].tolist()),
        nan=int(total[-1]),
        block_rows=rows,
        block_counts=tuple(tuple(row) for row in blocks.tolist()),
        raw=raw,
    )


def psi_terms(expected: ArrayLike, actual: ArrayLike, epsilon: float = EPSILON) -> NDArray[np.float64]:
    """Return each bin's (a − e)·ln(a/e) for two arrays of shares [..., B]; a share of zero counts as ``epsilon``."""
    e, a = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    e, a = np.where(e == 0.0, epsilon, e), np.where(a == 0.0, epsilon, a)
    return np.asarray((a - e) * np.log(a / e))


def psi(expected: ArrayLike, actual: ArrayLike, epsilon: float = EPSILON) -> Any:
    """Return Σ (a − e)·ln(a/e) over the last axis of two arrays of counts: one float, or an array of them.

    Siddiqi, *Credit Risk Scorecards* (2006). What a value of it means depends on the rows: see
    :mod:`probatum.monitoring.drift`.

    >>> round(float(psi([8, 10, 9, 13, 11, 10, 9, 10, 11, 9], [7, 8, 7, 9, 11, 11, 10, 12, 11, 14])), 7)
    0.0532782
    """
    return psi_terms(_shares(expected), _shares(actual), epsilon).sum(axis=-1)


def _shares(counts: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(counts, np.float64)
    return np.asarray(array / array.sum(axis=-1, keepdims=True))


def occupied(bins: ReferenceBins) -> int:
    """Return how many bins, NaN's among them, the reference ever filled; one means a constant column."""
    return sum(count > 0 for count in all_counts(bins))


def all_counts(bins: ReferenceBins) -> Sequence[int]:
    """Return the reference's B + 1 counts, NaN last."""
    return (*bins.counts, bins.nan)
