"""Say what a rollout will do, before it does it: shares, durations, samples needed, and the time they take."""

from __future__ import annotations

import re
from math import ceil, isfinite
from typing import Any

import msgspec

from probatum.core.canonical import digest
from probatum.core.clock import NS_PER_S
from probatum.core.errors import ParameterError
from probatum.rollout.choose import Mode
from probatum.rollout.eprocess import check_rate, n_needed
from probatum.rollout.measurement import RateCriterion

UNITS_MIN = 5
"""Sticky units that the first step of an exposure must hold: with fewer, one of them is the whole experiment."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Ladder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold the steps of one kind of rollout.

    A phase lasts at least ``phase_s``; past the longer of ``phase_s`` and ``hold_factor`` times its planned duration it
    holds for a human. A feed older than ``stale_s`` is no evidence; a source silent for ``source_deadline_s`` aborts.
    """

    shares_percent: tuple[int, ...]
    phase_s: int = 1_800
    hold_factor: int = 4
    poll_s: int = 15
    stale_s: int = 60
    source_deadline_s: int = 300

    def __post_init__(self) -> None:
        steps = self.shares_percent
        if not steps or list(steps) != sorted(set(steps)) or not 1 <= steps[0] <= steps[-1] <= 100:
            raise ParameterError("shares_percent", "rising integers in [1, 100], at least one", steps)
        for name in ("phase_s", "hold_factor", "poll_s", "stale_s", "source_deadline_s"):
            if getattr(self, name) < 1:
                raise ParameterError(name, "at least 1", getattr(self, name))


class Validation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how much fresh data must be watched after a completed canary, and again after promotion."""

    min_s: int = 86_400
    max_s: int = 172_800
    recommended_s: int = 604_800

    def __post_init__(self) -> None:
        if not 1 <= self.min_s <= self.max_s:
            raise ParameterError("min_s, max_s", "1 <= min_s <= max_s", (self.min_s, self.max_s))


class Promotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how old the proofs of the promote gate may be, and how long a confirmation lives."""

    drill_age_max_s: int = 30 * 86_400
    drift_age_max_s: int = 7_200
    verify_age_max_s: int = 86_400
    alert_window_s: int = 86_400
    alert_warnings_max: int = 2
    confirmation_ttl_s: int = 3_600

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < (name == "confirmation_ttl_s"):
                raise ParameterError(name, "at least 0 (confirmation_ttl_s: 1)", getattr(self, name))


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hold every threshold and duration of a rollout; two are shipped, a user's own is a TOML file of the same shape."""

    name: str
    description: str = ""
    alpha: float = 0.05
    canary: Ladder
    exposure: Ladder
    validation: Validation = Validation()
    promotion: Promotion = Promotion()
    criteria: tuple[RateCriterion, ...]

    def __post_init__(self) -> None:
        check_rate("alpha", self.alpha)
        names = [criterion.name for criterion in self.criteria]
        if len(set(names)) != len(names):
            raise ParameterError("criteria", "of different names", sorted(names))
        if not any(item.enforced and item.slo is not None and item.when == "always" for item in self.criteria):
            raise ParameterError(
                "criteria", "a list with at least one enforced SLO: nothing asked is nothing proven", names
            )


class Phase(msgspec.Struct, frozen=True):
    """Forecast one phase at the expected rate, without a bad event.

    ``samples_needed`` counts from the start of the run: evidence accumulates. ``planned_s`` is how long the phase is
    expected to last, ``max_s`` the time under observation after which it holds.
    """

    share_percent: int
    samples_needed: int
    planned_s: int
    max_s: int


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bind a policy to the models it is for. Its digest is what a confirmation names, so an edited plan is another plan.

    ``model`` and ``champion`` are artifact digests; ``champion`` None compares with the baseline rule. ``units`` is the
    number of sticky units (strategy, symbol, session), which only ``gated`` rollouts divide.
    """

    name: str
    mode: Mode
    policy: Policy
    model: str
    champion: str | None = None
    same_target: bool = False
    rate_per_s: float = 1.0
    units: int | None = None

    def __post_init__(self) -> None:
        for name in ("model", "champion"):
            if (value := getattr(self, name)) is not None and not _DIGEST.fullmatch(value):
                raise ParameterError(name, "an artifact digest, 64 hex digits", value)
        if not (isfinite(self.rate_per_s) and self.rate_per_s > 0.0):
            raise ParameterError("rate_per_s", "a finite number > 0", self.rate_per_s)
        if self.mode is Mode.OFF:
            raise ParameterError("mode", "observe or gated", self.mode.value)
        if self.mode is Mode.GATED:
            first = self.ladder.shares_percent[0]
            needed = ceil(UNITS_MIN * 100 / first)
            if self.units is None or self.units < needed:
                raise ParameterError(
                    "units",
                    f"at least {needed} sticky units, so that {UNITS_MIN} are in the first step of {first} %",
                    self.units,
                )

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the plan's canonical JSON."""
        return digest(msgspec.to_builtins(self))

    @property
    def ladder(self) -> Ladder:
        """Return the steps of this plan's mode: shadow share in ``observe``, exposure in ``gated``."""
        return self.policy.canary if self.mode is Mode.OBSERVE else self.policy.exposure

    @property
    def criteria(self) -> tuple[RateCriterion, ...]:
        """Return the criteria as this plan enforces them: agreement only against a champion with the same target."""
        comparable = self.champion is not None and self.same_target
        return tuple(
            msgspec.structs.replace(item, enforced=item.enforced and (item.when == "always" or comparable))
            for item in self.policy.criteria
        )

    def share(self, phase: int) -> float:
        """Return a phase's share as a fraction."""
        return self.ladder.shares_percent[phase] / 100.0

    def share_next(self, phase: int) -> float:
        """Return the share that a PASS in this phase leads to; the last phase must prove what its own share demands."""
        return self.share(min(phase + 1, len(self.ladder.shares_percent) - 1))

    def stale_ns(self, phase: int) -> int:
        """Return the age at which the newest sample is no longer fresh: a slow signal's samples may lie further apart."""
        gap_s = 10.0 / (self.rate_per_s * self.share(phase))  # a Poisson stream pauses that long once in 22,000 samples
        return ceil(max(float(self.ladder.stale_s), gap_s)) * NS_PER_S


def samples_needed(plan: Plan, phase: int, bad: int = 0) -> int:
    """Return how many samples since the run's start prove every enforced criterion of a phase, ``bad`` of them bad."""
    needed = [
        max(item.samples_min, 0 if bound is None else n_needed(bad, bound, plan.policy.alpha))
        for item in plan.criteria
        if item.enforced
        for bound in (item.bound_at(plan.share_next(phase)),)
    ]
    return max(needed, default=0)


def forecast(plan: Plan, rate_per_s: float | None = None) -> tuple[Phase, ...]:
    """Forecast every phase at a decision rate (the plan's own by default), evidence accumulating, no bad event."""
    rate = plan.rate_per_s if rate_per_s is None else rate_per_s
    if not (isfinite(rate) and rate > 0.0):
        raise ParameterError("rate_per_s", "a finite number > 0", rate)
    phases = []
    seen = 0.0
    for index, percent in enumerate(plan.ladder.shares_percent):
        needed = samples_needed(plan, index)
        per_s = rate * plan.share(index)
        planned = max(plan.ladder.phase_s, ceil(max(needed - seen, 0.0) / per_s))
        maximum = max(plan.ladder.phase_s, ceil(plan.ladder.hold_factor * needed / per_s))
        seen += planned * per_s
        phases.append(Phase(percent, needed, planned, maximum))
    return tuple(phases)


def planned_s(plan: Plan, rate_per_s: float | None = None) -> int:
    """Return the seconds that the whole rollout is expected to take without a bad event."""
    return sum(phase.planned_s for phase in forecast(plan, rate_per_s))


def describe(plan: Plan) -> dict[str, Any]:
    """Return the plan as evidence shows it: digests, limits and the forecast."""
    return {
        "plan": plan.digest,
        "name": plan.name,
        "mode": plan.mode.value,
        "policy": plan.policy.name,
        "model": plan.model,
        "champion": plan.champion,
        "rate_per_s": plan.rate_per_s,
        "planned_s": planned_s(plan),
        "phases": [msgspec.to_builtins(phase) for phase in forecast(plan)],
        "criteria": [msgspec.to_builtins(item) for item in plan.criteria],
    }
