"""Judge streams of good and bad events: counts come in, rates and verdicts are derived, and silence is never success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Literal

import msgspec

from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance, Verdict
from probatum.rollout.bounds import sequence_lower, sequence_upper
from probatum.rollout.eprocess import (
    Counts,
    check_counts,
    check_rate,
    is_proven,
    log_e_above_since,
    log_e_below,
    n_needed,
)

LADDER_BOUND_MAX = 0.5
"""A share so small that any rate would do still asks for proof that most events are good."""


class RateCriterion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name one test of a stream: its measure, the SLO bound to prove, the abort bound that ends the rollout.

    ``direction`` "below" bounds the rate of bad events itself (errors below 1 %); "at_least" bounds the rate of good ones
    (match at least 95 %). A ``ladder`` criterion is asked, at share s', for its SLO's bad rate divided by s' only, so that
    expected harm stays the same at every step. ``when`` "same_target" enforces it only against a champion with the same
    target, for agreeing with a rule that decides something else proves nothing.
    """

    name: str
    measure: str
    direction: Literal["below", "at_least"]
    slo: float | None = None
    abort: float | None = None
    samples_min: int = 0
    enforced: bool = True
    ladder: bool = False
    when: Literal["always", "same_target"] = "always"

    def __post_init__(self) -> None:
        if not (self.name and self.measure):
            raise ParameterError("name, measure", "given", (self.name, self.measure))
        if self.slo is None and self.abort is None:
            raise ParameterError(f"{self.name}: slo, abort", "given, at least one of them", None)
        for field in ("slo", "abort"):
            if (value := getattr(self, field)) is not None:
                check_rate(f"{self.name}: {field}", value)
        if self.slo_bad is not None and self.abort_bad is not None and self.abort_bad < self.slo_bad:
            raise ParameterError(f"{self.name}: abort", f"no better than the SLO bound ({self.slo})", self.abort)
        if self.samples_min < 0:
            raise ParameterError(f"{self.name}: samples_min", "at least 0", self.samples_min)

    @property
    def slo_bad(self) -> float | None:
        """Return the SLO bound as a rate of bad events."""
        return self._bad(self.slo)

    @property
    def abort_bad(self) -> float | None:
        """Return the abort bound as a rate of bad events."""
        return self._bad(self.abort)

    def bound_at(self, share_next: float) -> float | None:
        """Return the rate of bad events that must be disproven before going on to ``share_next`` (0 < share <= 1)."""
        if self.slo_bad is None or not self.ladder:
            return self.slo_bad
        return min(round(self.slo_bad / share_next, 12), max(self.slo_bad, LADDER_BOUND_MAX))

    def shown(self, bad_rate: float) -> float:
        """Return a rate of bad events in the criterion's own direction."""
        return bad_rate if self.direction == "below" else round(1.0 - bad_rate, 12)

    def _bad(self, bound: float | None) -> float | None:
        return bound if bound is None or self.direction == "below" else round(1.0 - bound, 12)


class RateMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one read of one stream: integer counts since the run began, when the first and last were seen, and where.

    Times are ns UTC. ``raw`` keeps the samples as the source gave them (one per process and start time). A source that
    answers NaN has measured nothing: no such value can be built, and a measurement that is missing never passes.
    """

    measure: str
    n: int
    bad: int
    first_ts: int | None
    last_ts: int | None
    read_ts: int
    source: str
    query: str
    provenance: Provenance
    raw: dict[str, float] = {}

    def __post_init__(self) -> None:
        check_counts(self.n, self.bad)
        if self.n and not (
            self.first_ts is not None
            and self.last_ts is not None
            and 0 <= self.first_ts <= self.last_ts <= self.read_ts
        ):
            raise ParameterError(
                f"{self.measure}: first_ts, last_ts, read_ts",
                "in this order",
                (self.first_ts, self.last_ts, self.read_ts),
            )
        if (name := next((key for key, value in self.raw.items() if not isfinite(value)), None)) is not None:
            raise ParameterError(f"{self.measure}: raw[{name}]", "a finite number", self.raw[name])


class Stream(msgspec.Struct, frozen=True):
    """Hold what is known of one measure: (n, bad) per phase, the present one last, and why it cannot pass just now.

    ``problem`` says why the source cannot be relied on (``measured`` false: it gave nothing usable), ``quiet`` that no new
    event came for too long. A criterion with nothing but an abort bound, often on a rare event, does not mind the latter.
    """

    segments: tuple[Counts, ...]
    problem: str = ""
    measured: bool = True
    quiet: str = ""

    @property
    def n(self) -> int:
        """Return the number of events over all phases."""
        return sum(n for n, _ in self.segments)

    @property
    def bad(self) -> int:
        """Return the number of bad ones."""
        return sum(bad for _, bad in self.segments)


class RateCheck(msgspec.Struct, frozen=True):
    """Hold how one criterion ended, in the fields of every check of ours, with the counts behind it.

    ``bound`` is what had to be proven at this step. ``aborts`` marks an enforced abort bound that was proven broken.
    """

    name: str
    value: float | None
    bound: float
    lower: float | None
    upper: float | None
    n: int
    bad: int
    verdict: Verdict
    enforced: bool
    reason: str = ""
    settle: str = ""
    missing: int = 0
    aborts: bool = False


class Judgement(msgspec.Struct, frozen=True):
    """Hold the worst enforced verdict and every check."""

    verdict: Verdict
    checks: tuple[RateCheck, ...]

    @property
    def aborts(self) -> tuple[RateCheck, ...]:
        """Return the checks that end the rollout."""
        return tuple(check for check in self.checks if check.aborts)

    @property
    def open(self) -> tuple[RateCheck, ...]:
        """Return the enforced checks that are no PASS."""
        return tuple(check for check in self.checks if check.enforced and check.verdict is not Verdict.PASS)


def assess(
    criteria: Sequence[RateCriterion],
    streams: Mapping[str, Stream],
    *,
    alpha: float,
    share_next: float,
    phases: int,
    with_bounds: bool = False,
) -> Judgement:
    """Judge every criterion and return the worst enforced verdict.

    Passing needs every enforced criterion, each at ``alpha``: an intersection, so alpha is not split. The abort criteria
    share one alpha, and each divides its part over the ``phases`` starts at which a rate may have risen. An empty list
    raises ParameterError: nothing asked, nothing proven. ``with_bounds`` adds the confidence sequence's ends, for records.
    """
    if not any(criterion.enforced for criterion in criteria):
        raise ParameterError("criteria", "at least one that is enforced", [item.name for item in criteria])
    sharing = sum(item.enforced and item.abort is not None for item in criteria)
    checks = tuple(
        _check(item, streams.get(item.measure), alpha, share_next, phases, sharing if item.enforced else 1, with_bounds)
        for item in criteria
    )
    return Judgement(Verdict.worst(check.verdict for check in checks if check.enforced), checks)


def _check(
    criterion: RateCriterion,
    stream: Stream | None,
    alpha: float,
    share_next: float,
    phases: int,
    sharing: int,
    with_bounds: bool,
) -> RateCheck:
    stream = stream or Stream(((0, 0),), "not measured", measured=False)
    target = criterion.bound_at(share_next)
    lower, upper = _ends(criterion, stream, alpha) if with_bounds and stream.n else (None, None)
    verdict, reason, settle, missing, aborts = _verdict(criterion, stream, target, alpha, phases, sharing)
    return RateCheck(
        name=criterion.name,
        value=criterion.shown(stream.bad / stream.n) if stream.n else None,
        bound=criterion.shown(next(bound for bound in (target, criterion.abort_bad) if bound is not None)),
        lower=lower,
        upper=upper,
        n=stream.n,
        bad=stream.bad,
        verdict=verdict,
        enforced=criterion.enforced,
        reason=reason,
        settle=settle,
        missing=missing,
        aborts=aborts and criterion.enforced,
    )


def _verdict(
    criterion: RateCriterion, stream: Stream, target: float | None, alpha: float, phases: int, sharing: int
) -> tuple[Verdict, str, str, int, bool]:
    """Return verdict, reason, what settles it, samples missing, and whether the abort bound is broken: worst case first."""
    seen = f"{stream.bad:,} bad of {stream.n:,}"
    if criterion.abort_bad is not None and _rose(stream, criterion.abort_bad, alpha, phases, sharing):
        reason = f"{seen}: proven worse than the abort bound {criterion.abort:g}"
        return Verdict.FAIL, reason, "root cause, then a new dry-run and confirmation", 0, True
    if criterion.slo_bad is not None and _rose(stream, criterion.slo_bad, alpha, phases, 1):
        return (
            Verdict.FAIL,
            f"{seen}: proven worse than the SLO bound {criterion.slo:g}",
            "a human's decision",
            0,
            False,
        )
    if problem := stream.problem or (stream.quiet if target is not None else ""):
        return (
            (Verdict.INCONCLUSIVE if stream.measured else Verdict.ERROR),
            problem,
            "fresh samples from the source",
            0,
            False,
        )
    missing = max(_missing(stream, target, alpha), criterion.samples_min - stream.n)
    if missing > 0:
        reason = f"{seen}: {missing:,} samples short of a proof"
        return Verdict.INCONCLUSIVE, reason, f"about {missing:,} more samples without a bad one", missing, False
    return Verdict.PASS, "", "", 0, False


def _rose(stream: Stream, bound: float, alpha: float, phases: int, sharing: int) -> bool:
    return is_proven(log_e_above_since(stream.segments, bound, phases), alpha, sharing)


def _missing(stream: Stream, target: float | None, alpha: float) -> int:
    if target is None or is_proven(log_e_below(stream.n, stream.bad, target), alpha):
        return 0
    return n_needed(stream.bad, target, alpha) - stream.n


def _ends(criterion: RateCriterion, stream: Stream, alpha: float) -> tuple[float, float]:
    ends = sequence_lower(stream.n, stream.bad, alpha), sequence_upper(stream.n, stream.bad, alpha)
    low, high = sorted(criterion.shown(end) for end in ends)
    return low, high
