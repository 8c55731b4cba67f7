"""Judge measurements against criteria: one table of thresholds, one rule for turning bounds into a verdict.

Every threshold of the product is declared here once; gates, alert rules and docs are derived from these tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from probatum.core.errors import ParameterError
from probatum.core.verdict import Verdict

ALPHA = 0.05
"""One-sided error of every bound that a verdict rests on."""


class Criterion(msgspec.Struct, frozen=True):
    """Name one test: the measure must be ``at_least`` or ``below`` ``bound``, over at least ``count_min`` observations.

    A criterion that is not ``enforced`` is only watched. ``measure`` says in words what is measured.
    """

    name: str
    direction: Literal["at_least", "below"]
    bound: float
    enforced: bool = True
    count_min: int = 0
    measure: str = ""


class Measurement(msgspec.Struct, frozen=True):
    """Hold an estimate with its one-sided bounds; ``counted`` makes an exact one (a share of what was seen)."""

    value: float | None
    lower: float | None
    upper: float | None
    n: int

    @classmethod
    def counted(cls, value: float, n: int) -> Measurement:
        """Return a measurement without uncertainty: it describes the rows themselves, not what they are drawn from."""
        return cls(value, value, value, n)


class Check(msgspec.Struct, frozen=True):
    """Hold how one criterion ended; ``reason`` says why it is no PASS, ``settle`` what would settle it."""

    name: str
    value: float | None
    bound: float
    lower: float | None
    upper: float | None
    n: int
    verdict: Verdict
    enforced: bool
    reason: str = ""
    settle: str = ""


class Assessment(msgspec.Struct, frozen=True):
    """Hold the verdict, the worst of the enforced checks, and all checks."""

    verdict: Verdict
    checks: tuple[Check, ...]


GATE_CRITERIA: tuple[Criterion, ...] = (
    Criterion("auc", "at_least", 0.62, measure="the area under the ROC curve"),
    Criterion("precision_at_20", "at_least", 0.58, measure="the share of hits in the best fifth"),
    Criterion("constant_score", "below", 0.5, measure="the share of rows with the commonest score"),
    Criterion("saturation", "below", 0.01, measure="the share of scores that are all but 0 or 1"),
    Criterion("level_features", "below", 1.0, enforced=False, measure="the number of level features"),
    Criterion("calibration_ece", "below", 0.05, enforced=False, measure="the mean gap of score and frequency"),
)
"""The offline gate. ``level_features`` is enforced at promotion; ``calibration_ece`` is watched."""

DRIFT_CRITERIA: tuple[Criterion, ...] = (
    Criterion("psi_overall", "below", 0.2, count_min=1_000),
    Criterion("psi_feature", "below", 0.3, count_min=1_000),
)
"""The drift snapshot; ``psi_feature`` is the worst feature's."""

RETRAIN_DATA_CRITERIA: tuple[Criterion, ...] = (
    Criterion("days", "at_least", 14.0, count_min=14 * 1_440, measure="the span of the data in days"),
    Criterion("incomplete", "below", 0.005, measure="the share of minutes in sessions without data"),
    Criterion("gaps_unexplained", "below", 1.0, measure="the number of unexplained gaps over five minutes"),
    Criterion("clock_skew_ms", "below", 100.0, measure="the largest daily median of |received - event time| in ms"),
)
"""What data must be before a model is trained on them again; ``days`` counts minutes."""

RETRAIN_FEATURE_CRITERIA: tuple[Criterion, ...] = (
    Criterion("rows", "at_least", 10_000.0, count_min=10_000, measure="the number of labelled rows"),
    Criterion("unit_roots", "below", 1.0, enforced=False, measure="the number of columns with a unit root"),
    Criterion("correlated", "below", 1.0, enforced=False, measure="the number of pairs of columns beyond |r| = 0.95"),
)
"""What the columns and rows made of such data must be; columns are warned of, for the gate judges what they lead to."""

CORRELATED = 0.95
"""Two columns whose |r| exceeds this say the same."""

RETRAIN_ATTEMPTS_MAX = 14
"""Attempts that one retrain proposal allows; each is judged at ALPHA over this many, so that all share one ALPHA."""

SMOKE_SLOW_MS = 80.0
"""Later than this is slow: "P95 < 80 ms" is the claim that fewer than 5 % of the replies are."""

SMOKE_CRITERIA: tuple[Criterion, ...] = (
    Criterion("success_rate", "at_least", 0.95),
    Criterion("slow_rate", "below", 0.05),
    Criterion("uncounted_requests", "below", 1.0),
)
"""The engine's smoke test; ``uncounted_requests`` is the difference between what was sent and what it counted."""

SHADOW_CRITERIA: tuple[Criterion, ...] = (
    Criterion("unanswered_decisions", "below", 1.0),
    Criterion("uncounted_requests", "below", 1.0),
    Criterion("shadow_error_rate", "below", 0.02),
    Criterion("slow_rate", "below", 0.05),
    Criterion("match_rate", "at_least", 0.95, enforced=False),
)
"""The shadow smoke test: the baseline answers always; match is only watched, for a good model may well disagree."""

SKEW_CRITERIA: tuple[Criterion, ...] = (
    Criterion(
        "unequal_rows",
        "below",
        1.0,
        count_min=1_000,
        measure="the number of logged rows that batch computes differently",
    ),
)
"""The skew proof, over the rows that could be recomputed."""


def assess(criteria: Sequence[Criterion], measurements: Mapping[str, Measurement]) -> Assessment:
    """Check every criterion and return the worst enforced verdict.

    A missing or NaN measurement is an ERROR. Raises ParameterError when no criterion is enforced: that proves nothing.

    >>> assess([Criterion("auc", "at_least", 0.62)], {"auc": Measurement(0.633, 0.617, 0.649, 8000)}).verdict
    <Verdict.INCONCLUSIVE: 'INCONCLUSIVE'>
    """
    checks = tuple(check(criterion, measurements.get(criterion.name)) for criterion in criteria)
    if not any(item.enforced for item in checks):
        raise ParameterError("criteria", "at least one that is enforced", [item.name for item in checks])
    return Assessment(Verdict.worst(item.verdict for item in checks if item.enforced), checks)


def check(criterion: Criterion, measured: Measurement | None) -> Check:
    """Judge one measurement: the near bound decides for PASS, the far one for FAIL, between them it is INCONCLUSIVE."""
    if measured is not None and measured.n < criterion.count_min:
        reason = f"{measured.n:,} of the {criterion.count_min:,} observations needed"
        return _check(
            criterion, measured, Verdict.INCONCLUSIVE, reason, f"{criterion.count_min - measured.n:,} more rows"
        )
    if measured is None or measured.value is None or math.isnan(measured.value):
        n = 0 if measured is None else measured.n
        return _check(
            criterion, Measurement(None, None, None, n), Verdict.ERROR, "could not be measured", "data to measure it"
        )
    if measured.lower is None or measured.upper is None:
        return _check(
            criterion, measured, Verdict.INCONCLUSIVE, "too few independent blocks for a bound", "a longer window"
        )
    if _passes(criterion, measured.lower, measured.upper):
        return _check(criterion, measured, Verdict.PASS)
    if _fails(criterion, measured.lower, measured.upper):
        return _check(
            criterion,
            measured,
            Verdict.FAIL,
            _why_fail(criterion, measured),
            "another model or other features; more rows of the same will not",
        )
    return _check(
        criterion, measured, Verdict.INCONCLUSIVE, _why_open(criterion, measured), _settle(criterion, measured)
    )


def _passes(criterion: Criterion, lower: float, upper: float) -> bool:
    return lower >= criterion.bound if criterion.direction == "at_least" else upper < criterion.bound


def _fails(criterion: Criterion, lower: float, upper: float) -> bool:
    return upper < criterion.bound if criterion.direction == "at_least" else lower >= criterion.bound


def _why_fail(criterion: Criterion, measured: Measurement) -> str:
    far = measured.upper if criterion.direction == "at_least" else measured.lower
    at = "" if far == measured.value else f", at {'best' if criterion.direction == 'at_least' else 'least'} {far:.4g}"
    return f"{_subject(criterion)}{measured.value:.4g}{at}; must be {_rule(criterion)}"


def _why_open(criterion: Criterion, measured: Measurement) -> str:
    span = f"between {measured.lower:.4g} and {measured.upper:.4g}"
    return f"{_subject(criterion)}{measured.value:.4g}, {span}; must be {_rule(criterion)} on the bound"


def _subject(criterion: Criterion) -> str:
    return f"{criterion.measure} is " if criterion.measure else ""


def _rule(criterion: Criterion) -> str:
    return f"{'at least' if criterion.direction == 'at_least' else 'below'} {criterion.bound:g}"


def _settle(criterion: Criterion, measured: Measurement) -> str:
    """Say how many more rows would bring the near bound to the threshold: its distance shrinks with 1/√n."""
    value, lower, upper = (float(x) for x in (measured.value, measured.lower, measured.upper) if x is not None)
    margin = value - criterion.bound if criterion.direction == "at_least" else criterion.bound - value
    passing = margin > 0.0
    width = value - lower if passing == (criterion.direction == "at_least") else upper - value
    if margin == 0.0:
        return "cannot be settled by more rows: the estimate lies on the bound"
    more = f"about {max(math.ceil(measured.n * ((width / margin) ** 2 - 1.0)), 1):,} more rows"
    return (
        more
        if passing
        else f"cannot be settled as PASS by more rows: the estimate misses the bound ({more} would show it)"
    )


def _check(criterion: Criterion, measured: Measurement, verdict: Verdict, reason: str = "", settle: str = "") -> Check:
    return Check(
        name=criterion.name,
        value=measured.value,
        bound=criterion.bound,
        lower=measured.lower,
        upper=measured.upper,
        n=measured.n,
        verdict=verdict,
        enforced=criterion.enforced,
        reason=reason,
        settle=settle,
    )
