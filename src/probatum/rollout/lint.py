"""Find what a plan promises and cannot keep, before anybody waits for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from probatum.core.errors import InputError
from probatum.rollout.plan import Plan, Policy, forecast, planned_s
from probatum.rollout.policy import parse_policy

_MS = re.compile(r"slower_than_(\d+(?:\.\d+)?)ms")
_LONG_S = 7 * 86_400


class Finding(msgspec.Struct, frozen=True):
    """Hold one contradiction: where it is, what is wrong, what would mend it. An ``error`` cannot work, a ``warning`` may."""

    severity: Literal["error", "warning"]
    place: str
    problem: str
    mend: str


class Alert(msgspec.Struct, frozen=True):
    """Name an alert rule and how long its condition must hold."""

    name: str
    for_s: float


class Surroundings(msgspec.Struct, frozen=True):
    """Hold what a plan meets: timeouts and bucket edges of the latencies it bounds (ms), alert rules, measures there are.

    A request that times out is only known to be slower than its timeout, so a bound beyond that can never be seen.
    ``measures`` empty means: not known.
    """

    timeout_ms: float | None = None
    buckets_ms: tuple[float, ...] = ()
    alerts: tuple[Alert, ...] = ()
    measures: frozenset[str] = frozenset()
    level_features: tuple[str, ...] = ()


def lint_policy_text(text: str, *, place: str) -> tuple[Policy | None, list[Finding]]:
    """Read a policy and return it with its findings; one that cannot be read is one finding (an empty list of criteria)."""
    try:
        policy = parse_policy(text, place=place)
    except InputError as error:
        return None, [Finding("error", place, error.message, "a policy that its JSON schema accepts")]
    return policy, lint_policy(policy)


def lint_policy(policy: Policy) -> list[Finding]:
    """Return what a policy's own numbers contradict."""
    return [
        *_unguarded(policy),
        *(
            _error(f"{name}.source_deadline_s", f"{ladder.source_deadline_s} s is no longer than stale_s", "a later deadline")
            for name, ladder in (("canary", policy.canary), ("exposure", policy.exposure))
            if ladder.source_deadline_s <= ladder.stale_s
        ),
        *(
            _error(f"{name}.poll_s", f"a poll each {ladder.poll_s} s, a phase of {ladder.phase_s} s", "shorter polls")
            for name, ladder in (("canary", policy.canary), ("exposure", policy.exposure))
            if ladder.poll_s > ladder.phase_s or ladder.poll_s > ladder.stale_s
        ),
        *(
            _warning(f"{name}.shares_percent", f"ends at {ladder.shares_percent[-1]} %", "a last step of 100")
            for name, ladder in (("canary", policy.canary), ("exposure", policy.exposure))
            if ladder.shares_percent[-1] != 100
        ),
    ]  # fmt: skip


def lint_plan(plan: Plan, around: Surroundings, *, rate_per_s: float | None = None) -> list[Finding]:
    """Return every contradiction of a plan, its policy, and what it meets; empty when there is none."""
    return [
        *lint_policy(plan.policy),
        *_latency(plan, around),
        *_alerts(plan, around.alerts),
        *_measures(plan, around.measures),
        *_reach(plan, plan.rate_per_s if rate_per_s is None else rate_per_s),
        *(_warning(f"feature {name}", "follows a level, so its drift proves nothing", "a stationary feature")
          for name in around.level_features),
    ]  # fmt: skip


def time_to_samples(plan: Plan, rates_per_s: Sequence[float]) -> Mapping[float, int]:
    """Return for each decision rate the seconds that the whole plan takes without a bad event."""
    return {rate: planned_s(plan, rate) for rate in rates_per_s}


def _unguarded(policy: Policy) -> Iterable[Finding]:
    if not any(item.enforced and item.abort is not None for item in policy.criteria):
        yield _warning(
            "criteria", "nothing enforced has an abort bound: only a human can end a rollout", "an abort bound"
        )


def _latency(plan: Plan, around: Surroundings) -> Iterable[Finding]:
    for item in plan.criteria:
        match = _MS.fullmatch(item.measure)
        if match is None:
            continue
        bound = float(match[1])
        if around.timeout_ms is not None and bound >= around.timeout_ms:
            problem = f"calls end at {around.timeout_ms:g} ms, so none is ever seen slower than {bound:g} ms"
            yield _error(item.name, problem, "a timeout beyond the bound, or a bound below it")
        if around.buckets_ms and bound not in around.buckets_ms:
            problem = f"no bucket edge at {bound:g} ms: the count of slower calls would be a guess"
            yield _error(item.name, problem, f"an edge at {bound:g}")


def _alerts(plan: Plan, alerts: Iterable[Alert]) -> Iterable[Finding]:
    for alert in alerts:
        if alert.for_s >= plan.ladder.phase_s:
            problem = (
                f"'for: {alert.for_s:g} s' is no shorter than a phase of {plan.ladder.phase_s} s: it cannot fire in it"
            )
            yield _error(alert.name, problem, "a shorter 'for', or longer phases")


def _measures(plan: Plan, measures: frozenset[str]) -> Iterable[Finding]:
    for item in plan.criteria:
        if measures and item.measure not in measures:
            yield _error(item.name, f"nothing measures {item.measure!r}", f"one of {', '.join(sorted(measures))}")


def _reach(plan: Plan, rate_per_s: float) -> Iterable[Finding]:
    """Find phases that end INCONCLUSIVE by arithmetic: fewer samples by their maximum than the proof takes."""
    expected = forecast(plan)
    for phase, now in zip(expected, forecast(plan, rate_per_s), strict=True):
        place = f"phase {phase.share_percent} %"
        if now.planned_s > phase.max_s:
            problem = (
                f"{phase.samples_needed} samples take {now.planned_s:,} s at {rate_per_s:g} decisions/s, "
                f"but the phase holds after {phase.max_s:,} s"
            )
            yield _error(place, problem, "the true rate in the plan, a larger share, or fewer criteria")
        elif now.planned_s > _LONG_S:
            yield _warning(place, f"takes {now.planned_s / 86_400:.1f} days", "a larger share or a ladder criterion")


def _error(place: str, problem: str, mend: str) -> Finding:
    return Finding("error", place, problem, mend)


def _warning(place: str, problem: str, mend: str) -> Finding:
    return Finding("warning", place, problem, mend)
