"""Say how large the population stability index of a window gets when nothing has changed.

Market data remember: 1,000 rows of an AR(0.99) column hold about five independent values, and their PSI against an
unchanged reference exceeds 0.2 two times in three. So the null is drawn from the reference itself, which froze the counts of
consecutive blocks: contiguous windows of the same length against the rest of the reference. Where the window is too long for
ten of them, it is put together from pieces of a twentieth of the reference. Pieces always hold at least five memories
(the integrated autocorrelation time of the slowest direction in the space of bins), and there must be four of them.

The logarithm of PSI is close to normal over such windows, whatever their memory (skewness within ±0.3 where it is not
saturated). Few pieces tell its mean and deviation only roughly, so critical values are upper *tolerance* limits: with 90 %
confidence, at least 1 − α of the unchanged windows lie below (Natrella, *Experimental Statistics*, 1963, section 2-5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log, sqrt

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, chdtri, ndtr, ndtri

from probatum.monitoring.psi import psi

Counts = NDArray[np.int64]

PIECES_MIN = 4
DIRECT_FROM = 10  # disjoint windows in the reference; with fewer, windows are put together from pieces
PIECES = 20
MEMORIES_PER_PIECE = 5
DRAWS = 1000
EXPECTED_MIN = 5.0  # rows expected in a bin, below which chi-square is replaced by draws
_TINY = 1e-6  # a PSI below says nothing, and its logarithm would


class BlockNull(msgspec.Struct, frozen=True):
    """Hold the null of a window's PSI under autocorrelation: log PSI ~ normal, known from ``pieces`` independent pieces.

    ``memory_rows`` is the integrated autocorrelation time of the slowest column, ``piece_rows`` the length of a piece.
    """

    mean_log: float
    sd_log: float
    expected: float
    pieces: float
    piece_rows: int
    memory_rows: float

    def critical(self, alpha: float, confidence: float) -> float:
        """Return the PSI below which, with this confidence, 1 − ``alpha`` of unchanged windows lie."""
        z, c = float(ndtri(1.0 - alpha)), float(ndtri(confidence))
        a = 1.0 - c * c / (2.0 * (self.pieces - 1.0))
        k = (z + sqrt(z * z - a * (z * z - c * c / self.pieces))) / a
        return float(np.exp(self.mean_log + k * self.sd_log))

    def p_value(self, observed: float, confidence: float) -> float:
        """Return the least alpha whose critical value ``observed`` reaches."""
        k = (log(max(observed, _TINY)) - self.mean_log) / max(self.sd_log, _TINY)
        spread = sqrt(1.0 / self.pieces + k * k / (2.0 * (self.pieces - 1.0)))
        return float(ndtr(-(k - float(ndtri(confidence)) * spread)))


def block_null(
    columns: Sequence[Counts], block_rows: int, rows: int, *, epsilon: float, rng: np.random.Generator
) -> BlockNull | None:
    """Return the null of the mean PSI of ``columns`` over a window of ``rows`` rows.

    Each column is int64[blocks, B + 1], the same blocks for all, so that what columns share is kept. Returns None where the
    reference is too short for their memory: four pieces of five memories do not fit into it.
    """
    blocks = len(columns[0])
    window = max(1, round(rows / block_rows))
    length = window if blocks >= DIRECT_FROM * window else max(1, round(blocks / PIECES))
    while True:
        if blocks < PIECES_MIN * length:
            return None
        memory = max(_memory_blocks(column, length) for column in columns) * block_rows
        if length * block_rows >= MEMORIES_PER_PIECE * memory:
            break
        length = ceil(1.5 * length)
    piece = min(length, window)
    sums = [_window_sums(column, piece) for column in columns]
    if piece == window:
        gap = min(piece, ceil(memory / block_rows))
        draws = sum(psi(_rest(c, piece, gap), s, epsilon) for c, s in zip(columns, sums, strict=True))
        scale = piece * block_rows / rows
    else:
        whole = rows // (piece * block_rows)
        joined = max(1, min(whole, 10 * round(blocks / piece)))  # beyond, the reference's error is all there is
        draws = _resampled(sums, joined, round(blocks / piece), epsilon, rng)
        scale = joined * piece * block_rows / rows if joined >= whole else 1.0
    values = np.maximum(draws / len(columns) * scale, _TINY)
    pieces = blocks / length
    logs = np.log(values)
    return BlockNull(
        mean_log=float(logs.mean()),
        sd_log=float(logs.std()) * sqrt(pieces / (pieces - 1.0)),
        expected=float(values.mean()),
        pieces=pieces,
        piece_rows=length * block_rows,
        memory_rows=memory,
    )


def _window_sums(column: Counts, length: int) -> Counts:
    """Return the counts of every contiguous window of ``length`` blocks, overlapping ones too."""
    edge = np.zeros((1, column.shape[1]), np.int64)
    running = np.concatenate([edge, np.cumsum(column, axis=0)])
    return np.asarray(running[length:] - running[:-length])


def _rest(column: Counts, length: int, gap: int) -> Counts:
    """Return, for each of those windows, the counts of the reference without it and ``gap`` blocks on either side."""
    blocks = len(column)
    running = np.concatenate([np.zeros((1, column.shape[1]), np.int64), np.cumsum(column, axis=0)])
    start = np.arange(blocks - length + 1)
    left, right = np.maximum(start - gap, 0), np.minimum(start + length + gap, blocks)
    return np.asarray(running[-1] - (running[right] - running[left]))


def _resampled(
    sums: Sequence[Counts], joined: int, reference_pieces: int, epsilon: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw windows of ``joined`` pieces and references of as many as there are: both carry their sampling error."""
    window = rng.integers(len(sums[0]), size=(DRAWS, joined))
    reference = rng.integers(len(sums[0]), size=(DRAWS, reference_pieces))
    total = np.zeros(DRAWS)
    for counts in sums:
        total += psi(counts[reference].sum(axis=1), counts[window].sum(axis=1), epsilon)
    return total


def _memory_blocks(column: Counts, length: int) -> float:
    """Return the integrated autocorrelation time, in blocks, as far as windows of ``length`` blocks can show it.

    Shares of a window scatter more than those of independent rows would; the largest eigenvalue of their covariance, in
    units of the multinomial's, is that excess for the slowest thing the column does. A window that is shorter than the
    memory shows a memory as long as itself, so the caller asks again with a longer one.
    """
    total = column.sum(axis=0)
    filled = total > 0
    if filled.sum() < 2:
        return 0.0
    share = total[filled] / total.sum()
    sums = _window_sums(column, length)[:, filled]
    deviation = (sums / sums.sum(axis=1, keepdims=True) - share) / np.sqrt(share)
    largest = float(np.linalg.eigvalsh(deviation.T @ deviation / len(deviation))[-1])
    pieces = len(column) / length
    return length * largest * pieces / (pieces - 1.0)


@dataclass(frozen=True)
class SamplingNull:
    """Hold the null of a window of *independent* rows: PSI ~ scale·χ²(degrees), Yurdakul (2018).

    ``draws``, sorted, stand in for chi-square where a bin is too thin for it.
    """

    degrees: float
    scale: float
    draws: NDArray[np.float64] | None = None

    @property
    def expected(self) -> float:
        """Return (B − 1)(1/N + 1/M)."""
        return self.degrees * self.scale

    def critical(self, alpha: float) -> float:
        """Return the PSI that an unchanged window exceeds with probability ``alpha``."""
        if self.draws is not None:
            return float(np.quantile(self.draws, 1.0 - alpha))
        return float(chdtri(self.degrees, alpha)) * self.scale if self.degrees > 0 else 0.0

    def p_value(self, observed: float) -> float:
        """Return the probability of a PSI at least as large."""
        if self.draws is not None:
            above = len(self.draws) - int(np.searchsorted(self.draws, observed))
            return (1 + above) / (1 + len(self.draws))
        return float(chdtrc(self.degrees, observed / self.scale)) if self.degrees > 0 else 1.0


def sampling_null(reference: Counts, window: Counts, *, epsilon: float, rng: np.random.Generator) -> SamplingNull:
    """Return the null of the sampling error alone, over the bins that either side ever filled."""
    pooled = reference + window
    share = pooled[pooled > 0] / float(pooled.sum())
    n, m = int(reference.sum()), int(window.sum())
    draws = None
    if float(share.min()) * m < EXPECTED_MIN:
        drawn = psi(rng.multinomial(n, share, size=DRAWS), rng.multinomial(m, share, size=DRAWS), epsilon)
        draws = np.sort(drawn)
    return SamplingNull(len(share) - 1.0, 1.0 / n + 1.0 / m, draws)
