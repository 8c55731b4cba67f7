"""Say where a rollout stands, JSON-safe: its phases and clock, and each criterion with its bound, n and n needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from probatum.core.clock import NS_PER_S, format_utc
from probatum.core.errors import ProbatumError
from probatum.pipeline.chronicle import Trail
from probatum.pipeline.operate import ACTS, AWAITING
from probatum.pipeline.ports import Sources
from probatum.pipeline.rollout import Rollout, read_plan, refusal, state_from_record
from probatum.rollout.confirm import build_phrase
from probatum.rollout.eprocess import n_needed
from probatum.rollout.machine import TERMINAL, Stage, State, advance, judge, required_permission
from probatum.rollout.plan import Plan, forecast

BAD_MAX = 200
"""Beyond so many bad events the samples that would prove a bound are not worth computing: the bound is far away."""


def summary(rollout: Rollout, problem: str = "") -> dict[str, Any]:
    """Return what ``canary status`` and ``/status`` show; ``problem`` is why the source cannot be relied on just now."""
    plan, state = rollout.plan, rollout.state
    return {
        "rollout": rollout.name,
        "stage": state.stage.value,
        "attempt": state.attempt,
        "share_percent": state.share_percent,
        "phase": state.phase + 1,
        "phases": list(plan.ladder.shares_percent),
        "verdict": None if state.verdict is None else state.verdict.value,
        "reason": state.reason,
        "source": problem or "fresh",
        "elapsed_s": state.elapsed_ns // NS_PER_S,
        "needs_s": _needs_s(plan, state),
        "holds_at_s": state.max_ns // NS_PER_S,
        "approver": state.approver,
        "record": None if rollout.head is None else rollout.head.seq,
        "checks": msgspec.to_builtins(judge(plan, state).checks) if state.phase >= 0 else [],
    }


def _needs_s(plan: Plan, state: State) -> int:
    """Return how long the phase, or the validation, lasts at least."""
    return plan.policy.validation.min_s if state.phase == len(plan.ladder.shares_percent) else plan.ladder.phase_s


def standing(trail: Trail, sources: Sources, now_ns: int, *, live: bool) -> dict[str, Any]:
    """Return one rollout as its page shows it. ``live``: executors follow it, so a human may stop it also when it is over.

    A record that this version cannot read is shown as a problem, not raised.
    """
    record = trail.record
    found: dict[str, Any] = {"name": record.subject, "seq": record.seq, "provenance": record.provenance.value,
                             "live": live, "problem": "", "said": list(trail.said)[::-1]}  # fmt: skip
    try:
        plan = read_plan(sources, record.body["inputs"]["rollout_plan"])
        state = state_from_record(record.body["figures"]["state"])
        return {**found, **_plan(plan), **_state(state), "needs_s": _needs_s(plan, state), "phases": list(_phases(plan, state)),
                "checks": list(_checks(plan, state)), "trail": _trail(trail, plan, state),
                "acts": _acts(plan, state, now_ns, live), "phrase": _phrase(plan, state, now_ns)}  # fmt: skip
    except (ProbatumError, msgspec.ValidationError, KeyError, TypeError) as error:
        return {**found, "problem": str(error) or type(error).__name__}


def _plan(plan: Plan) -> dict[str, Any]:
    return {"plan": plan.digest, "mode": plan.mode.value, "policy": plan.policy.name, "model": plan.model,
            "champion": plan.champion, "rate_per_s": plan.rate_per_s}  # fmt: skip


def _state(state: State) -> dict[str, Any]:
    return {
        "stage": state.stage.value,
        "over": state.stage in TERMINAL,
        "attempt": state.attempt,
        "share_percent": state.share_percent,
        "phase": state.phase + 1,
        "verdict": None if state.verdict is None else state.verdict.value,
        "reason": state.reason,
        "approver": state.approver,
        "confirmed_percent": state.confirmed_percent,
        "ts": format_utc(state.ts),
        "started": format_utc(state.started_ts) if state.started_ts else None,
        "elapsed_s": state.elapsed_ns // NS_PER_S,
        "holds_at_s": state.max_ns // NS_PER_S,
        "blind_s": state.blind_ns // NS_PER_S,
    }


def _phases(plan: Plan, state: State) -> Iterator[dict[str, Any]]:
    """Yield each step with what it was expected to need; what stopped in a phase did not finish it."""
    finished = state.stage in (Stage.COMPLETED, Stage.VALIDATING, Stage.VALIDATED, Stage.PROMOTED)
    for index, phase in enumerate(forecast(plan)):
        word = "done" if finished or index < state.phase else "next"
        if index == state.phase and not finished:
            word = "stopped" if state.stage in TERMINAL else "now"
        yield {**msgspec.to_builtins(phase), "standing": word}


def _checks(plan: Plan, state: State) -> Iterator[dict[str, Any]]:
    if state.phase < 0:
        return
    alpha, target_share = plan.policy.alpha, plan.share_next(min(state.phase, len(plan.ladder.shares_percent) - 1))
    for item, check in zip(plan.criteria, judge(plan, state).checks, strict=True):
        bound = item.bound_at(target_share)
        needed = None
        if bound is not None and check.bad < BAD_MAX:
            needed = max(item.samples_min, n_needed(check.bad, bound, alpha))
        yield {
            **msgspec.to_builtins(check),
            "measure": item.measure,
            "direction": item.direction,
            "abort": item.abort,
            "n_needed": needed if needed is not None or not check.missing else check.n + check.missing,
        }


def _trail(trail: Trail, plan: Plan, state: State) -> dict[str, Any]:
    """Return share and counts over the seconds of the attempt, from its start where it has one."""
    points = [point for point in trail.points if point.ts >= state.started_ts]
    begin = points[0].ts if points else 0
    measures = dict.fromkeys(item.measure for item in plan.criteria)
    return {
        "t_s": [(point.ts - begin) / NS_PER_S for point in points],
        "share_percent": [point.share for point in points],
        "counts": {name: [list(point.counts.get(name, (0, 0))) for point in points] for name in measures},
    }


def _acts(plan: Plan, state: State, now_ns: int, live: bool) -> list[str]:
    """Return what a human may do now: the machine itself is asked, and nothing is moved."""
    if not live and state.stage in (Stage.COMPLETED, Stage.VALIDATED, Stage.PROMOTED, Stage.DRAFT, Stage.PREFLIGHTED):
        return []
    return [verb for verb, event in ACTS.items() if not refusal(advance(plan, state, event(now_ns, "?"))[1])]


def _phrase(plan: Plan, state: State, now_ns: int) -> str | None:
    """Return the phrase that is awaited; its expiry follows the minute, so that it can be typed while the page lives."""
    if state.stage not in AWAITING:
        return None
    return build_phrase(required_permission(plan, state, now_ns - now_ns % (60 * NS_PER_S)))
