"""Metrics meet scikit-learn, brute force and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from probatum.core.errors import ParameterError
from probatum.models.metrics import (
    BLOCKS_MIN,
    Bootstrap,
    auc,
    auc_of,
    blocks_of,
    brier,
    calibration,
    commonest_share,
    correlations,
    curves,
    ece,
    in_top,
    positions,
    precision_at,
    precision_of,
    rank,
    recall_of,
    roc_points,
    saturated_share,
)

SCORES = arrays.arrays(np.float64, st.integers(4, 40), elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]))


@given(score=SCORES, seed=st.integers(0, 1000))
def test_auc_with_ties_is_scikit_learns(score: np.ndarray, seed: int) -> None:
    """AUC equals scikit-learn's, ties and all; without both classes it is NaN."""
    label = np.random.default_rng(seed).integers(0, 2, len(score))
    if label.min() == label.max():
        assert np.isnan(auc(score, label))
    else:
        assert auc(score, label) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


@settings(deadline=None)
@given(score=SCORES, seed=st.integers(0, 1000), share=st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_top_share_is_the_mean_over_tie_breaks(score: np.ndarray, seed: int, share: float) -> None:
    """Precision in the top share equals Σ (how much of the row is in) × label / (share × n), ties shared alike."""
    label = np.random.default_rng(seed).integers(0, 2, len(score))
    part = in_top(score, share)
    assert part.sum() == pytest.approx(share * len(score))
    assert all(len(set(part[score == value])) == 1 for value in set(score))
    assert precision_at(score, label, share) == pytest.approx(part @ label / part.sum())
    cumulated = curves(rank(score, label), np.ones((1, len(score))))
    if label.any():
        assert recall_of(*cumulated, share)[0] == pytest.approx(part @ label / label.sum())


def test_top_share_without_ties_counts_rows() -> None:
    """Without ties it is the plain precision of the best fifth."""
    rng = np.random.default_rng(2)
    score, label = rng.permutation(100) / 100.0, rng.integers(0, 2, 100)
    assert precision_at(score, label) == label[score >= 0.8].mean()


@settings(deadline=None, max_examples=30)
@given(score=SCORES, seed=st.integers(0, 1000))
def test_a_resample_is_the_rows_repeated(score: np.ndarray, seed: int) -> None:
    """Weighting rows by how often their block was drawn gives what the repeated rows give."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, len(score))
    block = blocks_of(np.arange(len(score)), 3)
    boot = Bootstrap.draw(block, seed=seed, resamples=5)
    aucs, precisions, means = *boot.ranked(rank(score, label), auc_of, precision_of), boot.mean(score)
    for drawn, area, precision, mean in zip(boot.counts, aucs, precisions, means, strict=True):
        repeated = np.repeat(np.arange(len(score)), drawn[block].astype(int))
        assert drawn.sum() == block.max() + 1
        np.testing.assert_allclose(area, auc(score[repeated], label[repeated]))
        np.testing.assert_allclose(precision, precision_at(score[repeated], label[repeated]))
        assert mean == pytest.approx(score[repeated].mean())


def test_bounds_cover_as_often_as_they_say() -> None:
    """On autocorrelated rows the one-sided 95 % bounds miss the true AUC in about 5 % of 150 markets; rowwise ones in far more."""
    misses = {1: 0, 40: 0}
    shift = 0.8
    truth = 0.5 + 0.5 * 0.428392  # Φ(shift/√2) = 0.714196, the AUC of two unit normals this far apart
    for seed in range(150):
        rng = np.random.default_rng(seed)
        label = np.repeat(rng.integers(0, 2, 120), 20)
        score = np.repeat(rng.normal(size=120), 20) + shift * label
        for length in misses:
            boot = Bootstrap.draw(blocks_of(np.arange(len(label)), length), seed=7, resamples=150)
            (resampled,) = boot.ranked(rank(score, label), auc_of)
            lower = boot.estimate(auc(score, label), resampled, 0.05).lower
            misses[length] += lower is not None and lower > truth
    assert misses[40] <= 15  # 10 %: room for the luck of 150 draws
    assert misses[1] >= 2 * max(misses[40], 8)


def test_few_blocks_give_no_bound() -> None:
    """With fewer than 20 blocks the spread is unknown, so there is no bound to pass by."""
    label = np.arange(100) % 2
    boot = Bootstrap.draw(blocks_of(np.arange(100), 6), seed=7, resamples=50)
    found = boot.estimate(
        auc(label.astype(float), label), boot.ranked(rank(label.astype(float), label), auc_of)[0], 0.05
    )
    assert boot.counts.shape[1] == 17 < BLOCKS_MIN
    assert (found.value, found.lower, found.upper) == (1.0, None, None)


def test_an_undefined_resample_counts_for_the_worse() -> None:
    """Resamples without a positive widen the bounds instead of being dropped."""
    boot = Bootstrap.draw(np.arange(30), seed=1, resamples=100)
    resampled = np.r_[np.full(90, 0.9), np.full(10, np.nan)]
    assert boot.estimate(0.9, resampled, 0.05).lower is None
    resampled = np.r_[np.full(98, 0.9), np.full(2, np.nan)]
    assert boot.estimate(0.9, resampled, 0.05).lower == 0.9


def test_drawing_is_reproducible_forever() -> None:
    """The draw comes from RandomState, whose stream numpy promises not to change: these are its first numbers."""
    boot = Bootstrap.draw(np.arange(5), seed=7, resamples=2)
    assert boot.counts.astype(int).tolist() == [[0, 1, 0, 2, 2], [1, 2, 2, 0, 0]]


def test_blocks_are_pieces_of_time() -> None:
    """Rows of every symbol within the same piece of time are drawn together; a night is no block."""
    ts = np.array([0, 0, 59, 60, 60, 3_600, 3_601])
    assert blocks_of(ts, 60).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_roc_points_follow_scikit_learns_curve() -> None:
    """The band's grid is the ROC curve, interpolated."""
    rng = np.random.default_rng(4)
    label = rng.integers(0, 2, 500)
    score = np.round(rng.normal(size=500) + label, 1)
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    grid = np.linspace(0.0, 1.0, 21)
    np.testing.assert_allclose(
        roc_points(*curves(rank(score, label), np.ones((1, 500))), grid)[0], np.interp(grid, fpr, tpr), atol=1e-12
    )


def test_calibration_counts_every_row() -> None:
    """The table's rows add up, a perfect forecaster has ECE 0, and the Brier score is scikit-learn's."""
    rng = np.random.default_rng(6)
    score = rng.uniform(size=20_000)
    label = (rng.uniform(size=20_000) < score).astype(int)
    table = calibration(score, label)
    assert sum(row["n"] for row in table) == 20_000
    assert ece(score, label) < 0.01
    assert ece(np.ones(10), np.zeros(10)) == 1.0
    assert brier(score, label) == pytest.approx(brier_score_loss(label, score))


def test_saturation_and_constants() -> None:
    """The seed's clipped scores are saturated, all of them; a tie is no constant."""
    assert saturated_share(np.full(9, 0.999999)) == 1.0
    assert saturated_share(np.array([1e-6, 0.5, 0.9999])) == pytest.approx(1 / 3)
    assert commonest_share(np.full(9, 0.3)) == 1.0
    assert commonest_share(np.array([0.3, 0.3, 0.4, 0.5])) == 0.5


def test_positions_and_correlations() -> None:
    """A score on 0.5 takes no position; correlations leave constants out and come strongest first."""
    assert positions(np.array([0.2, 0.5, 0.7])).tolist() == [-1.0, 0.0, 1.0]
    x = np.random.default_rng(8).normal(size=(500, 2))
    values = np.column_stack([x[:, 0], np.ones(500), -x[:, 0], x[:, 1]])
    pairs = correlations(values, ("a", "one", "minus_a", "b"))
    assert pairs[0][:2] == ("a", "minus_a")
    assert pairs[0][2] == pytest.approx(-1.0)
    assert len(pairs) == 3


@pytest.mark.parametrize("score", [np.array([]), np.array([0.5, np.nan])])
def test_unusable_scores_are_refused(score: np.ndarray) -> None:
    """NaN cannot be ranked, and no rows prove nothing."""
    with pytest.raises(ParameterError):
        auc(score, np.zeros(len(score)))
