"""Measure scores against labels, with bounds that know that neighbouring rows of a market are not independent.

Everything rests on one thing: rows ranked by score, best first, and cumulative counts over that ranking. A resample of the
block bootstrap (Künsch 1989) only changes each row's weight to the number of times its block was drawn. Weights are whole
numbers, so sums are exact and the figures are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probatum.core.errors import ParameterError

Floats = NDArray[np.float64]

RESAMPLES = 2_000
BLOCKS_MIN = 20
"""Fewer blocks than this say nothing about their own spread, so there is no bound."""
TOP_SHARE = 0.2
SATURATED = 1e-5
"""A score within this of 0 or 1 is saturated: it ranks nothing and a log loss on it is meaningless."""
_CHUNK_VALUES = 250_000  # two megabytes: cumulative sums stay in the cache


@dataclass(frozen=True)
class Estimate:
    """Hold an estimate and its one-sided 95 % bounds; None where it is undefined or the blocks are too few."""

    value: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Ranked:
    """Hold n rows ranked by score, best first: ``order`` int64[n], ``label`` float64[n] in that order, ``ends`` the last
    row of each group of equal scores."""

    order: NDArray[np.int64]
    label: Floats
    ends: NDArray[np.int64]


def rank(score: Floats, label: NDArray[Any]) -> Ranked:
    """Rank rows for :func:`curves`; ``label`` is 0 or 1. Raises ParameterError for NaN scores or no rows."""
    if len(score) == 0 or len(score) != len(label) or bool(np.isnan(score).any()):
        raise ParameterError(
            "score", "as many numbers as there are labels, none NaN, at least one", f"{len(score)} rows"
        )
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return Ranked(order, label[order].astype(np.float64), ends)


def curves(ranked: Ranked, weights: Floats) -> tuple[Floats, Floats]:
    """Return cumulative rows and positives, float64[r, groups], for weights float64[r, n] in the rows' own order."""
    ordered = weights[:, ranked.order]
    rows = np.cumsum(ordered, axis=1)[:, ranked.ends]
    return rows, np.cumsum(ordered * ranked.label, axis=1)[:, ranked.ends]


def auc_of(rows: Floats, positives: Floats) -> Floats:
    """Return the probability that a positive outranks a negative (ties half), float64[r]; NaN without both classes."""
    negatives = rows - positives
    heights = positives[:, 1:] + positives[:, :-1]
    twice = negatives[:, 0] * positives[:, 0] + np.einsum("ij,ij->i", np.diff(negatives, axis=1), heights)
    return _ratio(twice / 2.0, positives[:, -1] * negatives[:, -1])


def precision_of(rows: Floats, positives: Floats, share: float = TOP_SHARE) -> Floats:
    """Return the share of positives among the best ``share`` of rows, float64[r]; of a tie at its edge, the fraction."""
    return _ratio(_found(rows, positives, share), share * rows[:, -1])


def recall_of(rows: Floats, positives: Floats, share: float = TOP_SHARE) -> Floats:
    """Return the share of all positives that are among the best ``share`` of rows, float64[r]."""
    return _ratio(_found(rows, positives, share), positives[:, -1])


def _found(rows: Floats, positives: Floats, share: float) -> Floats:
    wanted = share * rows[:, -1]
    group = np.argmax(rows >= wanted[:, None], axis=1)
    at = np.arange(len(rows))
    before = np.where(group > 0, rows[at, group - 1], 0.0)
    found = np.where(group > 0, positives[at, group - 1], 0.0)
    fraction = _ratio(wanted - before, rows[at, group] - before)
    return np.asarray(found + fraction * (positives[at, group] - found))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    out = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0.0)
    return out


def auc(score: Floats, label: NDArray[Any]) -> float:
    """Return the area under the ROC curve, ties counted half; NaN without both classes.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
    0.875
    """
    return float(auc_of(*curves(rank(score, label), np.ones((1, len(score)))))[0])


def precision_at(score: Floats, label: NDArray[Any], share: float = TOP_SHARE) -> float:
    """Return the precision of the best ``share`` of rows, ties at the edge counted by the fraction that fits.

    >>> precision_at(np.array([0.9, 0.9, 0.1, 0.1, 0.1]), np.array([1, 0, 0, 0, 0]))
    0.5
    """
    return float(precision_of(*curves(rank(score, label), np.ones((1, len(score)))), share)[0])


def blocks_of(ts: NDArray[np.int64], block_ns: int) -> NDArray[np.int64]:
    """Number each row's block: rows of all symbols within the same ``block_ns`` of time are drawn together.

    >>> blocks_of(np.array([0, 5, 10, 30]), 10).tolist()
    [0, 0, 1, 2]
    """
    if block_ns < 1:
        raise ParameterError("block_ns", "at least 1", block_ns)
    numbers: NDArray[np.int64] = np.unique(ts // block_ns, return_inverse=True)[1]
    return numbers


@dataclass(frozen=True)
class Bootstrap:
    """Hold how often each block is drawn in each resample, ``counts`` float64[r, blocks], and each row's ``block``.

    Every statistic drawn from one Bootstrap sees the same resamples, so differences between them are paired.
    """

    counts: Floats
    block: NDArray[np.int64]

    @classmethod
    def draw(cls, block: NDArray[np.int64], *, seed: int, resamples: int = RESAMPLES) -> Bootstrap:
        """Draw with replacement as many blocks as there are.

        RandomState and not a Generator, whose stream may change with numpy: a verifier must draw the same blocks.
        """
        blocks = int(block.max()) + 1
        drawn = np.random.RandomState(seed).randint(0, blocks, (resamples, blocks), dtype=np.int64)
        counts = np.array([np.bincount(row, minlength=blocks) for row in drawn], dtype=np.float64)
        return cls(counts, block)

    def weights(self) -> Iterator[Floats]:
        """Yield row weights float64[chunk, n] of all resamples, in pieces that fit in memory."""
        size = max(1, _CHUNK_VALUES // len(self.block))
        for start in range(0, len(self.counts), size):
            yield self.counts[start : start + size][:, self.block]

    def ranked(self, ranked: Ranked, *statistics: Callable[[Floats, Floats], Floats]) -> list[Floats]:
        """Return each statistic of :func:`curves` over all resamples, float64[r, …]."""
        parts = [[s(*cumulated) for s in statistics] for cumulated in (curves(ranked, w) for w in self.weights())]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def mean(self, values: Floats) -> Floats:
        """Return the mean of ``values`` over all resamples, float64[r]."""
        sums = np.bincount(self.block, values, self.counts.shape[1])
        return _ratio((self.counts * sums).sum(axis=1), (self.counts * np.bincount(self.block)).sum(axis=1))

    def estimate(self, value: float, resampled: Floats, alpha: float) -> Estimate:
        """Return the value with its percentile bounds, each one-sided at ``alpha``.

        A resample in which the statistic is undefined counts for the worse on either side. Percentiles are expanded, for
        few blocks vary less than what they are drawn from (Hesterberg 2015, section 5.2).
        """
        if np.isnan(value):
            return Estimate(None, None, None)
        if self.counts.shape[1] < BLOCKS_MIN:
            return Estimate(value, None, None)
        level = expanded(alpha, self.counts.shape[1])
        lower = np.quantile(np.nan_to_num(resampled, nan=-np.inf, neginf=-np.inf), level, method="lower")
        upper = np.quantile(np.nan_to_num(resampled, nan=np.inf, posinf=np.inf), 1.0 - level, method="higher")
        if not np.isfinite([lower, upper]).all():
            return Estimate(value, None, None)
        return Estimate(value, float(lower), float(upper))


def expanded(alpha: float, blocks: int) -> float:
    """Return the percentile that covers like Student's t does, for a mean of so many blocks.

    >>> round(expanded(0.05, 20), 4), round(expanded(0.05, 2_000), 4)
    (0.038, 0.0499)
    """
    from scipy.special import ndtr, stdtrit

    return float(ndtr(np.sqrt(blocks / (blocks - 1)) * stdtrit(blocks - 1, alpha)))


def roc_points(rows: Floats, positives: Floats, grid: Floats) -> Floats:
    """Return the true-positive rate at each false-positive rate of ``grid``, float64[r, len(grid)]; NaN without both
    classes."""
    negatives = rows - positives
    out = np.full((len(rows), len(grid)), np.nan)
    for i in np.flatnonzero((negatives[:, -1] > 0.0) & (positives[:, -1] > 0.0)):
        x = np.append(0.0, negatives[i] / negatives[i, -1])
        out[i] = np.interp(grid, x, np.append(0.0, positives[i] / positives[i, -1]))
    return out


def brier(score: Floats, label: NDArray[Any]) -> float:
    """Return the mean squared distance of score and outcome (Brier 1950); 0.25 is what a coin gets."""
    return float(np.mean((score - label) ** 2))


def calibration(score: Floats, label: NDArray[Any], bins: int = 10) -> list[dict[str, float | int]]:
    """Return, for each of ``bins`` equal intervals of score that holds rows, its rows, mean score and share of positives."""
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    return [
        {
            "from": i / bins,
            "to": (i + 1) / bins,
            "n": int(np.sum(index == i)),
            "mean_score": float(np.mean(score[index == i])),
            "positive_share": float(np.mean(label[index == i])),
        }
        for i in range(bins)
        if bool(np.any(index == i))
    ]


def ece(score: Floats, label: NDArray[Any], bins: int = 10) -> float:
    """Return the expected calibration error: |mean score − share of positives|, weighted by the rows of each bin.

    >>> ece(np.array([0.25, 0.25, 0.25, 0.25]), np.array([0, 0, 0, 1]))
    0.0
    """
    table = calibration(score, label, bins)
    gaps = [row["n"] * abs(row["mean_score"] - row["positive_share"]) for row in table]
    return float(sum(gaps) / len(score))


def commonest_share(score: Floats) -> float:
    """Return the share of rows that have the most frequent score; 1 for a constant model.

    >>> commonest_share(np.array([0.5, 0.5, 0.7, 0.9]))
    0.5
    """
    return float(np.unique(score, return_counts=True)[1].max() / len(score))


def saturated_share(score: Floats) -> float:
    """Return the share of scores within ``SATURATED`` of 0 or 1."""
    return float(np.mean((score <= SATURATED) | (score >= 1.0 - SATURATED)))


def in_top(score: Floats, share: float = TOP_SHARE) -> Floats:
    """Return how much of each row is among the best ``share``, float64[n] in [0, 1]; ties at the edge share alike."""
    ranked = rank(score, np.ones(len(score)))
    last = np.append(0, ranked.ends[:-1] + 1)
    size = ranked.ends + 1 - last
    part = np.clip((share * len(score) - last) / size, 0.0, 1.0)
    out = np.empty(len(score))
    out[ranked.order] = np.repeat(part, size)
    return out


def positions(score: Floats) -> Floats:
    """Return the position that a direction score takes: +1 above 0.5, −1 below, 0 on it."""
    return np.sign(score - 0.5)


def correlations(values: Floats, names: tuple[str, ...]) -> list[tuple[str, str, float]]:
    """Return (feature, feature, Pearson's r), strongest first; constant features take no part."""
    varying = [i for i in range(values.shape[1]) if np.ptp(values[:, i]) > 0.0]
    scaled = {i: (values[:, i] - values[:, i].mean()) / values[:, i].std() for i in varying}
    pairs = [(names[a], names[b], float(np.mean(scaled[a] * scaled[b]))) for a in varying for b in varying if a < b]
    return sorted(pairs, key=lambda pair: -abs(pair[2]))
