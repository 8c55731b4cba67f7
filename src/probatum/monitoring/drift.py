"""Judge whether a window still looks like the training data, and whether an unchanged market could look like that too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

import msgspec
import numpy as np
from numpy.typing import NDArray

from probatum.core.errors import ParameterError
from probatum.core.verdict import Verdict
from probatum.models.artifact import ReferenceBins
from probatum.monitoring.null import PIECES_MIN, BlockNull, SamplingNull, block_null, sampling_null
from probatum.monitoring.psi import EPSILON, SCORE, all_counts, occupied, psi_terms
from probatum.monitoring.windows import WindowCounts


class DriftSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Set what counts as drift; ``confidence`` is that of the null's tolerance limits."""

    overall_max: float = 0.2
    feature_max: float = 0.3
    rows_min: int = 1000
    alpha: float = 0.05
    confidence: float = 0.9
    epsilon: float = EPSILON
    seed: int = 7

    def __post_init__(self) -> None:
        for name in ("alpha", "epsilon"):
            if not 0.0 < getattr(self, name) < 0.5:
                raise ParameterError(name, "a number in (0, 0.5)", getattr(self, name))
        if not 0.5 <= self.confidence <= 0.99:
            raise ParameterError("confidence", "a number in [0.5, 0.99]", self.confidence)
        for name in ("overall_max", "feature_max"):
            if not 0.0 < getattr(self, name) < inf:
                raise ParameterError(name, "a number > 0", getattr(self, name))
        if self.rows_min < 1:
            raise ParameterError("rows_min", "at least 1", self.rows_min)


class DriftCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one PSI against its bound and its null.

    ``expected`` and ``critical`` are the larger of the two nulls' mean and critical value at ``level``; ``p_value`` is the
    larger of ``p_sampling`` (independent rows) and ``p_blocks`` (rows that remember; None where the reference is too short
    to say). ``independent_pieces`` tells how much the second knows; ``memory_rows`` is the autocorrelation time it found.
    """

    name: str
    psi: float | None
    bound: float
    level: float
    expected: float | None = None
    critical: float | None = None
    p_value: float | None = None
    p_sampling: float | None = None
    p_blocks: float | None = None
    memory_rows: float | None = None
    independent_pieces: float | None = None
    enforced: bool = True
    verdict: Verdict = Verdict.INCONCLUSIVE
    reason: str = ""
    settle: str = ""


class BinShare(msgspec.Struct, frozen=True):
    """Hold one bin [lower, upper), then and now: counts, and its term of the PSI. None is open; ``nan`` marks NaN's bin."""

    lower: float | None
    upper: float | None
    nan: bool
    reference: int
    window: int
    term: float


class FeatureDrift(msgspec.Struct, frozen=True):
    """Hold one column's check and its bins. ``raw`` columns are enforced, and in the overall PSI unless ``constant``."""

    check: DriftCheck
    raw: bool
    constant: bool
    bins: tuple[BinShare, ...]


class DriftReport(msgspec.Struct, frozen=True):
    """Hold the verdict (that of the worst enforced check) and everything it follows from."""

    rows: int
    reference_rows: int
    overall: DriftCheck
    features: tuple[FeatureDrift, ...]
    score: FeatureDrift | None
    verdict: Verdict

    @property
    def largest(self) -> FeatureDrift:
        """Return the feature that moved most."""
        return max(self.features, key=lambda feature: feature.check.psi or 0.0)


def assess_drift(
    reference: Mapping[str, ReferenceBins], window: WindowCounts, settings: DriftSettings | None = None
) -> DriftReport:
    """Compare a window's counts with an artifact's frozen reference, column by column and over all.

    Below the bound PASS; at or above it and beyond what the null explains FAIL; at or above it and explained, or fewer than
    ``rows_min`` rows, INCONCLUSIVE. Features share alpha (each is tested at alpha over their number), the overall PSI has
    its own. Columns that are not raw, and the model's own output under the name "score", are judged but not enforced. A
    column that never varied in training has no null to hide behind; nor have NaN where training had none.

    >>> from probatum.monitoring.psi import freeze
    >>> from probatum.monitoring.windows import count_window
    >>> rng = np.random.default_rng(7)
    >>> frozen = {"x": freeze(rng.normal(size=20_000), raw=True)}
    >>> [str(assess_drift(frozen, count_window(frozen, {"x": rng.normal(s, size=2_000)})).verdict) for s in (0.0, 1.0)]
    ['PASS', 'FAIL']
    """
    settings = settings or DriftSettings()
    columns = _columns(reference, window, settings)
    features = [column for column in columns if column.name != SCORE]
    varying = [column for column in features if column.raw and not column.constant]
    level = settings.alpha / max(1, len(varying))
    overall = _check("overall", varying, window.rows, settings.overall_max, settings.alpha, settings)
    judged = [_feature(c, window.rows, level if c.name != SCORE else settings.alpha, settings) for c in columns]
    score = next((f for f in judged if f.check.name == SCORE), None)
    judged = [feature for feature in judged if feature is not score]
    verdict = Verdict.worst([overall.verdict, *(f.check.verdict for f in judged if f.check.enforced)])
    return DriftReport(window.rows, int(features[0].reference.sum()), overall, tuple(judged), score, verdict)


@dataclass(frozen=True)
class _Column:
    name: str
    bins: ReferenceBins
    reference: NDArray[np.int64]
    window: NDArray[np.int64]
    blocks: NDArray[np.int64]
    terms: NDArray[np.float64] | None  # None: the window is empty

    @property
    def raw(self) -> bool:
        return self.bins.raw and self.name != SCORE

    @property
    def constant(self) -> bool:
        return occupied(self.bins) == 1

    def is_broken(self, bound: float) -> bool:
        """Return whether something happened that no memory of the reference explains."""
        assert self.terms is not None
        return self.constant or (self.bins.nan == 0 and float(self.terms[-1]) >= bound)


def _columns(reference: Mapping[str, ReferenceBins], window: WindowCounts, settings: DriftSettings) -> list[_Column]:
    if not reference.keys() - {SCORE}:
        raise ParameterError("reference", "frozen bins of at least one feature", sorted(reference))
    if window.counts.keys() != reference.keys():
        raise ParameterError("window", f"counts of the frozen columns {sorted(reference)}", sorted(window.counts))
    blocks = {(bins.block_rows, len(bins.block_counts), sum(all_counts(bins))) for bins in reference.values()}
    if len(blocks) != 1:
        raise ParameterError("reference", "frozen over the same rows and blocks", sorted(blocks))
    return [_column(name, bins, window.counts[name], settings.epsilon) for name, bins in reference.items()]


def _column(name: str, bins: ReferenceBins, counts: Sequence[int], epsilon: float) -> _Column:
    width = len(bins.edges) + 2
    if {len(bins.counts) + 1, len(counts), *map(len, bins.block_counts)} != {width}:
        raise ParameterError(f"bins of {name}", f"{width - 1} and NaN's, as many as the edges open", len(counts))
    expected, seen = np.array(all_counts(bins)), np.array(counts)
    terms = psi_terms(expected / expected.sum(), seen / seen.sum(), epsilon) if seen.sum() else None
    return _Column(name, bins, expected, seen, np.array(bins.block_counts, np.int64).reshape(-1, width), terms)


def _feature(column: _Column, rows: int, level: float, settings: DriftSettings) -> FeatureDrift:
    check = _check(column.name, [column], rows, settings.feature_max, level, settings)
    lower, upper = (None, *column.bins.edges, None), (*column.bins.edges, None, None)
    terms = np.zeros(len(lower)) if column.terms is None else column.terms
    counts = zip(lower, upper, column.reference.tolist(), column.window.tolist(), terms.tolist(), strict=True)
    last = len(lower) - 1
    table = tuple(BinShare(lo, up, i == last, then, now, term) for i, (lo, up, then, now, term) in enumerate(counts))
    check = msgspec.structs.replace(check, enforced=column.raw)
    return FeatureDrift(check, column.raw, column.constant, table)


def _check(
    name: str, columns: Sequence[_Column], rows: int, bound: float, level: float, settings: DriftSettings
) -> DriftCheck:
    empty = DriftCheck(name=name, psi=None, bound=bound, level=level)
    if not columns:
        text = "no raw column varied in training, so there is nothing to compare"
        return msgspec.structs.replace(empty, verdict=Verdict.ERROR, reason=text, settle="another feature set")
    psis = [float(column.terms.sum()) for column in columns if column.terms is not None]
    if not psis:
        return _judge(empty, rows, settings)
    rng = np.random.default_rng(settings.seed)
    nulls = [sampling_null(c.reference, c.window, epsilon=settings.epsilon, rng=rng) for c in columns]
    draws = nulls[0].draws if len(nulls) == 1 else None
    sampling = SamplingNull(float(np.mean([null.degrees for null in nulls])), nulls[0].scale, draws)
    block = block_null([c.blocks for c in columns], columns[0].bins.block_rows, rows, epsilon=settings.epsilon, rng=rng)
    broken = len(columns) == 1 and columns[0].is_broken(bound)
    psi = float(np.mean(psis))
    return _judge(_with_nulls(empty, psi, sampling, None if broken else block, broken, settings), rows, settings)


def _with_nulls(
    check: DriftCheck,
    psi: float,
    sampling: SamplingNull,
    block: BlockNull | None,
    broken: bool,
    settings: DriftSettings,
) -> DriftCheck:
    p_sampling, critical, expected = sampling.p_value(psi), sampling.critical(check.level), sampling.expected
    p_blocks = (0.0 if psi > 0.0 else 1.0) if broken else None
    if block is not None:
        p_blocks = block.p_value(psi, settings.confidence)
        critical = max(critical, block.critical(check.level, settings.confidence))
        expected = max(expected, block.expected)
    known = p_blocks is not None
    return msgspec.structs.replace(
        check,
        psi=psi,
        expected=expected if known else None,
        critical=critical if known else None,
        p_value=max(p_sampling, p_blocks) if p_blocks is not None else None,
        p_sampling=p_sampling,
        p_blocks=p_blocks,
        memory_rows=block.memory_rows if block else None,
        independent_pieces=block.pieces if block else None,
    )


def _judge(check: DriftCheck, rows: int, settings: DriftSettings) -> DriftCheck:
    verdict, reason, settle = _verdict(check, rows, settings.rows_min)
    return msgspec.structs.replace(check, verdict=verdict, reason=reason, settle=settle)


def _verdict(check: DriftCheck, rows: int, rows_min: int) -> tuple[Verdict, str, str]:
    if rows < rows_min or check.psi is None:
        return Verdict.INCONCLUSIVE, f"{rows:,} rows; {rows_min:,} are needed", f"{rows_min - rows:,} more rows"
    if check.psi < check.bound:
        return Verdict.PASS, "", ""
    above = f"PSI {check.psi:.3g} is not below {check.bound:g}"
    if check.p_value is None or check.critical is None:
        reason = f"{above}, but it may just wander: training shows fewer than {PIECES_MIN} independent stretches of it"
        return (
            Verdict.INCONCLUSIVE,
            reason,
            "a stationary form of the column (return, ratio, z-score), or longer training",
        )
    if check.p_value <= check.level:
        chance = f"an unchanged market gets there with probability {max(check.p_value, 1e-9):.2g}"
        reason = f"{above}, and {chance if check.memory_rows else 'training saw nothing of the kind'}"
        return Verdict.FAIL, reason, "not more rows: the distribution has moved; retrain, or find what moved it"
    more = max(1, ceil(rows * (check.critical / check.psi - 1.0)))
    reason = f"{above}, but an unchanged market reaches {check.critical:.3g} in {rows:,} rows (p = {check.p_value:.2g})"
    return Verdict.INCONCLUSIVE, reason, f"about {more:,} more rows"
