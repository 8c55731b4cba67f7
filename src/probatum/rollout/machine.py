"""Move a rollout through its life: a pure function of plan, state and event.

::

    DRAFT ─preflight─▶ PREFLIGHTED ─dry-run─▶ AWAITING_CONFIRMATION ─phrase─▶ RUNNING ─last phase PASS─▶ COMPLETED
                                                                            ▲   │ ▲                        │
                                                                     resume │   ▼ │ resume                 ▼
                                                                        PAUSED   HOLDING               VALIDATING
                                                                                                           │
    any ─abort, abort bound, dead source, changed digest─▶ ABORTED   ROLLED_BACK ◀─rollback─ PROMOTED ◀─ VALIDATED

``advance`` is total: an event that means nothing in a state is refused and changes nothing. ABORTED and ROLLED_BACK absorb;
a new attempt is a new stream of events that begins with :func:`reopen`. Observe and exposure rollouts are the same machine
with another ladder. Start-up is :func:`replay` of the ledger, so recovery and start are one path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

import msgspec

from probatum.core.clock import NS_PER_S
from probatum.core.errors import BlockedError, ConfirmationError
from probatum.core.verdict import Provenance, Verdict
from probatum.rollout import confirm
from probatum.rollout.choose import Mode
from probatum.rollout.events import (
    Aborted,
    Confirmed,
    DigestsSeen,
    DryRunDone,
    Effect,
    Event,
    MoveAlias,
    Notify,
    Observed,
    Opened,
    Paused,
    PreflightDone,
    PromotionAsked,
    Record,
    Refused,
    Resumed,
    RolledBack,
    SetShare,
    Tag,
    ValidationBegan,
)
from probatum.rollout.measurement import Judgement, RateMeasurement, Stream, assess
from probatum.rollout.plan import Plan, forecast


class Stage(StrEnum):
    """Name where a rollout stands."""

    DRAFT = "draft"
    PREFLIGHTED = "preflighted"
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    RUNNING = "running"
    PAUSED = "paused"
    HOLDING = "holding"
    COMPLETED = "completed"
    VALIDATING = "validating"
    VALIDATED = "validated"
    PROMOTED = "promoted"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled_back"


TERMINAL = frozenset({Stage.ABORTED, Stage.ROLLED_BACK})
"""Stages that nothing leaves; the share is 0."""

_MOVING = (Stage.RUNNING, Stage.PAUSED, Stage.HOLDING)
_DONE = (Stage.COMPLETED, Stage.VALIDATING, Stage.VALIDATED)


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Hold everything the next decision depends on. Times and durations are ns, shares per cent.

    ``elapsed_ns`` is time under observation in this phase, ``blind_ns`` time without it, ``clock_ts`` what the controller's
    clock said when either was last counted (``ts`` never runs back, that clock may); ``max_ns`` is when the phase holds. ``streams`` holds the counts per measure and phase, ``provenance`` the weakest class seen so far.
    """

    stage: Stage
    plan: str
    attempt: int = 1
    not_before: int = 0
    ts: int = 0
    clock_ts: int = 0
    phase: int = -1
    share_percent: int = 0
    confirmed_percent: int = 0
    approver: str = ""
    started_ts: int = 0
    elapsed_ns: int = 0
    max_ns: int = 0
    blind_ns: int = 0
    streams: dict[str, Stream] = {}
    provenance: Provenance | None = None
    preflight: str = ""
    dry_run: str = ""
    used: tuple[str, ...] = ()
    verdict: Verdict | None = None
    reason: str = ""


Step = tuple[State, tuple[Effect, ...]]


def initial(plan: Plan) -> State:
    """Return the state before anything happened."""
    return State(stage=Stage.DRAFT, plan=plan.digest)


def advance(plan: Plan, state: State, event: Event) -> Step:
    """Return the state after an event, and what is to be done about it.

    Time never runs backwards: an event stamped before the last one is taken to have happened with it.
    """
    handler = _TABLE.get((state.stage, type(event)))
    if handler is None:
        word = type(event).__struct_config__.tag
        return state, (Refused(f"'{word}' means nothing while {state.stage.value}"), *_keep_zero(state))
    after, effects = handler(plan, _but(state, ts=max(event.ts, state.ts)), event)
    refused = any(isinstance(effect, Refused) for effect in effects)
    return (state if refused else after), effects


def replay(plan: Plan, events: Iterable[Event]) -> Step:
    """Fold events into the state they lead to, with the effects of the last one, which may be carried out again."""
    step: Step = (initial(plan), ())
    for event in events:
        step = advance(plan, step[0], event)
    return step


def reopen(state: State, ts: int) -> Opened:
    """Return the first event of the next attempt; BlockedError while this one has not ended.

    Dry-runs and phrases from before the end of this attempt will not count.
    """
    if state.stage not in TERMINAL:
        raise BlockedError(
            f"the rollout is {state.stage.value}; only an ended one can be tried again", stage=state.stage.value
        )
    return Opened(max(ts, state.ts), state.attempt + 1, state.ts, state.used)


def required_permission(plan: Plan, state: State, now_ns: int, *, last: int | None = None) -> confirm.Permission:
    """Return what an approver must confirm now; :func:`probatum.rollout.confirm.build_phrase` writes it."""
    expires_ts = now_ns + plan.policy.promotion.confirmation_ttl_s * NS_PER_S
    return confirm.start_permission(plan, state.dry_run, expires_ts, last=last)


def check_confirmation(plan: Plan, state: State, event: Confirmed) -> confirm.Permission:
    """Return what a phrase permits here, or raise ConfirmationError: nothing is moved by a void one."""
    if state.stage not in (Stage.AWAITING_CONFIRMATION, Stage.HOLDING):
        raise ConfirmationError(
            f"confirmation void: nothing awaits one while {state.stage.value}; nothing was moved", field="stage"
        )
    if plan.digest != state.plan:
        raise ConfirmationError("confirmation void: the plan was edited; nothing was moved", field="plan")
    return confirm.check_phrase(
        event.phrase,
        required_permission(plan, state, event.ts),
        shares=plan.ladder.shares_percent,
        now_ns=max(event.ts, state.ts),
        used=state.used,
        approver=event.approver,
        provenance=state.provenance,
    )


def check_promotion(plan: Plan, state: State, event: PromotionAsked) -> None:
    """Raise BlockedError or ConfirmationError unless this history may move ``champion``."""
    if plan.mode is not Mode.OBSERVE or state.stage not in (Stage.COMPLETED, Stage.VALIDATED):
        raise BlockedError(
            f"a {plan.mode.value} rollout that is {state.stage.value} promotes nothing", stage=state.stage.value
        )
    classes = Provenance.weakest([event.provenance, state.provenance or Provenance.SYNTHETIC])
    if classes is not Provenance.LIVE:
        raise BlockedError(f"promote blocked: evidence is {classes.value}", blockers=["provenance_live"])
    if event.blockers:
        raise BlockedError(f"promote blocked: {', '.join(event.blockers)}", blockers=list(event.blockers))
    expires_ts = event.ts + plan.policy.promotion.confirmation_ttl_s * NS_PER_S
    confirm.check_phrase(
        event.phrase,
        confirm.promote_permission(plan, event.evidence, expires_ts),
        shares=(),
        now_ns=max(event.ts, state.ts),
        used=state.used,
        approver=event.approver,
        provenance=state.provenance,
    )


def judge(plan: Plan, state: State, *, with_bounds: bool = True) -> Judgement:
    """Judge the evidence of this phase as it stands; since a validation began only what was seen from then on."""
    steps = len(plan.ladder.shares_percent)
    streams = state.streams
    if state.phase >= steps:
        streams = {
            name: msgspec.structs.replace(item, segments=item.segments[steps:] or ((0, 0),))
            for name, item in streams.items()
        }
    share_next = plan.share_next(min(max(state.phase, 0), steps - 1))
    return assess(
        plan.criteria,
        streams,
        alpha=plan.policy.alpha,
        share_next=share_next,
        phases=steps + 1,
        with_bounds=with_bounds,
    )


# --- before the run -------------------------------------------------------------------------------------------------


def _open(plan: Plan, state: State, event: Opened) -> Step:  # noqa: ARG001
    if state.preflight or state.attempt > 1:
        return state, (Refused("an attempt is opened once, before anything else"),)
    return _but(state, attempt=event.attempt, not_before=event.not_before, used=event.used), ()


def _preflight(plan: Plan, state: State, event: PreflightDone) -> Step:  # noqa: ARG001
    if event.verdict is not Verdict.PASS:
        reason = f"preflight is {event.verdict.value}"
        return _but(state, stage=Stage.DRAFT, preflight="", dry_run="", reason=reason), (Notify(reason),)
    after = _but(
        state, stage=Stage.PREFLIGHTED, preflight=event.evidence, dry_run="", provenance=event.provenance, reason=""
    )
    return after, ()


def _dry_run(plan: Plan, state: State, event: DryRunDone) -> Step:
    if event.plan != plan.digest or event.plan != state.plan:
        return state, (Refused("the dry-run is of another plan"),)
    if event.began < state.not_before:
        return state, (Refused("the dry-run is older than the end of the last attempt; a new one is required"),)
    if event.verdict is not Verdict.PASS:
        reason = f"dry-run is {event.verdict.value}"
        return _but(state, stage=Stage.PREFLIGHTED, dry_run="", reason=reason), (Notify(reason),)
    after = _but(state, stage=Stage.AWAITING_CONFIRMATION, dry_run=event.evidence, reason="")
    return after, (Notify("ready: awaiting confirmation"),)


def _confirmed(plan: Plan, state: State, event: Confirmed) -> Step:
    try:
        permission = check_confirmation(plan, state, event)
    except ConfirmationError as error:
        return state, (Refused(error.message),)
    widened = _but(
        state,
        confirmed_percent=max(permission.last, state.confirmed_percent),
        approver=event.approver,
        used=(*state.used, confirm.phrase_id(event.phrase)),
    )
    if state.stage is Stage.HOLDING:
        return _but(widened, stage=Stage.RUNNING, max_ns=state.max_ns + _max_ns(plan, state.phase), reason=""), ()
    return _enter(plan, _but(widened, started_ts=state.ts, streams={}, blind_ns=0), 0)


def _digests(plan: Plan, state: State, event: DigestsSeen) -> Step:
    if event.plan == state.plan and event.model == plan.model:
        return state, ()
    reason = "the model was changed" if event.plan == state.plan else "the plan was edited"
    if state.stage in (*_MOVING, *_DONE):
        return _abort(plan, state, reason, None)
    after = _but(state, stage=Stage.DRAFT, preflight="", dry_run="", reason=reason)
    return after, (Notify(f"{reason}: preflight, dry-run and confirmation are void"),)


# --- the run --------------------------------------------------------------------------------------------------------


def _observe(plan: Plan, state: State, event: Observed) -> Step:
    state = _read(plan, state, event)
    judgement = judge(plan, state, with_bounds=False)
    state = _but(state, verdict=judgement.verdict)
    reason = _reason_to_abort(plan, state, event, judgement)
    if reason:
        return _abort(plan, state, reason, judge(plan, state))
    return _ACTIONS[state.stage](plan, state, judgement) if state.stage in _ACTIONS else (state, ())


def _reason_to_abort(plan: Plan, state: State, event: Observed, judgement: Judgement) -> str:
    if judgement.aborts:
        return "; ".join(f"{check.name}: {check.reason}" for check in judgement.aborts)
    deciding = plan.mode is Mode.GATED or state.stage in _MOVING
    if deciding and state.blind_ns >= plan.ladder.source_deadline_s * NS_PER_S:
        return f"no usable measurement for {state.blind_ns // NS_PER_S} s"
    if plan.mode is Mode.GATED and event.drift is Verdict.FAIL:
        return "drift: the champion decides on data it was not trained for"
    live = any(item.provenance is Provenance.LIVE for item in event.measurements)
    return "live decisions under a demo confirmation" if live and state.approver == confirm.DEMO else ""


def _run(plan: Plan, state: State, judgement: Judgement) -> Step:
    if judgement.verdict is Verdict.FAIL:
        return _hold(plan, state, "; ".join(f"{check.name}: {check.reason}" for check in judgement.open))
    if state.elapsed_ns >= plan.ladder.phase_s * NS_PER_S and judgement.verdict is Verdict.PASS:
        return _end_phase(plan, state)
    if state.elapsed_ns >= state.max_ns:
        return _hold(plan, state, _lacks(plan, state, judgement))
    return state, ()


def _end_phase(plan: Plan, state: State) -> Step:
    steps = plan.ladder.shares_percent
    done = Record("phase", f"phase {state.phase + 1} of {len(steps)} passed", judge(plan, state).checks)
    if state.phase + 1 == len(steps):
        after = _but(state, stage=Stage.COMPLETED, reason="")
        return after, (done, Record("run", "completed"), Tag("rc"), Notify("completed"))
    if steps[state.phase + 1] > state.confirmed_percent:
        reason = f"confirmed only up to {state.confirmed_percent}%; the next step is {steps[state.phase + 1]}%"
        return _but(state, stage=Stage.HOLDING, reason=reason), (Notify(reason),)
    after, effects = _enter(plan, state, state.phase + 1)
    return after, (done, *effects)


def _enter(plan: Plan, state: State, phase: int) -> Step:
    percent = plan.ladder.shares_percent[phase]
    after = _but(
        state,
        stage=Stage.RUNNING,
        phase=phase,
        share_percent=percent,
        clock_ts=state.ts,
        elapsed_ns=0,
        max_ns=_max_ns(plan, phase),
        streams=_new_segment(state),
        reason="",
    )
    return after, (SetShare(percent),)


def _hold(plan: Plan, state: State, reason: str) -> Step:
    record = Record("hold", reason, judge(plan, state).checks)
    return _but(state, stage=Stage.HOLDING, reason=reason), (record, Notify(f"holding for a human: {reason}"))


def _pause(plan: Plan, state: State, event: Paused) -> Step:  # noqa: ARG001
    reason = f"paused by {event.by}" + (f": {event.reason}" if event.reason else "")
    return _but(state, stage=Stage.PAUSED, reason=reason), (Notify(reason),)


def _resume(plan: Plan, state: State, event: Resumed) -> Step:
    more_ns = _max_ns(plan, state.phase) if state.stage is Stage.HOLDING else 0
    after = _but(state, stage=Stage.RUNNING, clock_ts=state.ts, max_ns=state.max_ns + more_ns, reason="")
    return after, (Notify(f"resumed by {event.by}"),)


# --- after the run --------------------------------------------------------------------------------------------------


def _begin_validation(plan: Plan, state: State, event: ValidationBegan) -> Step:
    after = _but(
        state,
        stage=Stage.VALIDATING,
        phase=len(plan.ladder.shares_percent),
        clock_ts=state.ts,
        elapsed_ns=0,
        blind_ns=0,
        max_ns=plan.policy.validation.max_s * NS_PER_S,
        streams=_new_segment(state),
        reason="",
    )
    return after, (Notify(f"validation began, by {event.by}"),)


def _validate(plan: Plan, state: State, judgement: Judgement) -> Step:
    if judgement.verdict is Verdict.FAIL:
        return _abort(plan, state, "validation failed", judge(plan, state))
    if state.elapsed_ns >= plan.policy.validation.min_s * NS_PER_S and judgement.verdict is Verdict.PASS:
        record = Record("validation", "passed on fresh data", judge(plan, state).checks)
        return _but(state, stage=Stage.VALIDATED, reason=""), (record, Notify("validated"))
    if state.elapsed_ns >= state.max_ns and not state.reason:
        reason = _lacks(plan, state, judgement)
        return _but(state, reason=reason), (Notify(f"validation is past its window: {reason}"),)
    return state, ()


def _promote(plan: Plan, state: State, event: PromotionAsked) -> Step:
    try:
        check_promotion(plan, state, event)
    except (BlockedError, ConfirmationError) as error:
        return state, (Refused(error.message),)
    after = _but(
        state,
        stage=Stage.PROMOTED,
        share_percent=0,
        approver=event.approver,
        used=(*state.used, confirm.phrase_id(event.phrase)),
        reason="",
    )
    return after, (
        MoveAlias("previous", "champion"),
        MoveAlias("champion", plan.model),
        SetShare(0),
        Record("promotion", f"approved by {event.approver}"),
        Tag("release"),
        Notify("promoted"),
    )


def _roll_back(plan: Plan, state: State, event: RolledBack | Aborted) -> Step:
    return _abort(plan, state, f"by {event.by}" + (f": {event.reason}" if event.reason else ""), None)


def _abort(plan: Plan, state: State, reason: str, judgement: Judgement | None) -> Step:
    """End the rollout: share 0 first, then the report. What had been reached already is rolled back, the alias too."""
    reached = state.stage is Stage.PROMOTED or (plan.mode is Mode.GATED and state.stage in _DONE)
    after = _but(state, stage=Stage.ROLLED_BACK if reached else Stage.ABORTED, share_percent=0, reason=reason)
    alias = (MoveAlias("champion", "previous"),) if state.stage is Stage.PROMOTED else ()
    kind = "rollback" if reached else "root_cause"
    checks = () if judgement is None else judgement.checks
    return after, (
        SetShare(0),
        *alias,
        Record(kind, reason, checks),
        Notify(f"{after.stage.value.replace('_', ' ')}: {reason}"),
    )


# --- measurements ---------------------------------------------------------------------------------------------------


def _read(plan: Plan, state: State, event: Observed) -> State:
    """Take over the counts that can be relied on, and note for the rest why they cannot."""
    given = {item.measure: item for item in event.measurements}
    streams = {
        name: _stream(plan, state, event.ts, state.streams.get(name) or _new_stream(state), given.get(name))
        for name in {item.measure: None for item in plan.criteria}
    }
    seen = all(not streams[item.measure].problem for item in plan.criteria if item.enforced)
    # A clock that jumped ahead, or a loop that slept, has not observed anything in between; one that was put back goes on.
    most_ns = max(plan.ladder.stale_s, 2 * plan.ladder.poll_s) * NS_PER_S
    dt_ns = min(max(event.ts - state.clock_ts, 0), most_ns)
    counting = seen and event.ts - state.clock_ts <= most_ns and state.stage in (Stage.RUNNING, Stage.VALIDATING)
    classes = [item.provenance for item in event.measurements]
    return _but(
        state,
        streams=streams,
        clock_ts=event.ts,
        elapsed_ns=state.elapsed_ns + (dt_ns if counting else 0),
        blind_ns=0 if seen else state.blind_ns + dt_ns,
        provenance=Provenance.weakest([*classes, *([state.provenance] if state.provenance else [])])
        if classes
        else state.provenance,
    )


def _stream(plan: Plan, state: State, now_ns: int, known: Stream, given: RateMeasurement | None) -> Stream:
    """Return the stream with the new counts, or as it was with the reason why they were not taken."""
    problem = _problem(plan, state, now_ns, known, given)
    if problem or given is None:
        return Stream(known.segments, problem, measured=False)
    *before, (n, bad) = known.segments
    grown = (n + given.n - known.n, bad + given.bad - known.bad)
    phase = min(max(state.phase, 0), len(plan.ladder.shares_percent) - 1)
    age_ns = now_ns - given.last_ts if given.last_ts is not None else 0
    quiet = f"no new sample for {age_ns // NS_PER_S} s" if age_ns > plan.stale_ns(phase) else ""
    return Stream((*before, grown), quiet=quiet)


def _problem(plan: Plan, state: State, now_ns: int, known: Stream, given: RateMeasurement | None) -> str:
    stale_ns = plan.ladder.stale_s * NS_PER_S
    if given is None:
        return "not measured"
    if abs(now_ns - given.read_ts) > stale_ns:
        return f"read {abs(now_ns - given.read_ts) // NS_PER_S} s {'ago' if given.read_ts < now_ns else 'ahead'}"
    if given.n < known.n or given.bad < known.bad or given.n - known.n < given.bad - known.bad:
        return f"counters fell from {known.bad} of {known.n} to {given.bad} of {given.n}"
    if given.first_ts is not None and given.first_ts < state.started_ts:
        return "holds samples from before the run"
    return ""


def _new_stream(state: State) -> Stream:
    return Stream(((0, 0),) * (state.phase + 1))


def _new_segment(state: State) -> dict[str, Stream]:
    """Begin a phase: its own (n, bad) pair behind those of the phases before."""
    return {
        name: msgspec.structs.replace(item, segments=(*item.segments, (0, 0))) for name, item in state.streams.items()
    }


def _max_ns(plan: Plan, phase: int) -> int:
    return forecast(plan)[phase].max_s * NS_PER_S


def _lacks(plan: Plan, state: State, judgement: Judgement) -> str:
    """Say which criterion lacks how many samples, and when they are expected."""
    phase = min(max(state.phase, 0), len(plan.ladder.shares_percent) - 1)
    per_s = plan.rate_per_s * plan.share(phase)
    return "; ".join(
        f"{check.name}: {check.reason}"
        + (f", expected in {check.missing / per_s / 60.0:.0f} min" if check.missing else "")
        for check in judgement.open
    )


def _but(state: State, **changes: Any) -> State:
    return msgspec.structs.replace(state, **changes)


def _keep_zero(state: State) -> tuple[Effect, ...]:
    return (SetShare(0),) if state.stage in TERMINAL else ()


_ACTIONS: dict[Stage, Callable[[Plan, State, Judgement], Step]] = {
    Stage.RUNNING: _run,
    Stage.VALIDATING: _validate,
}

_Handler = Callable[[Plan, State, Any], Step]

_TABLE: dict[tuple[Stage, type], _Handler] = {
    (Stage.DRAFT, Opened): _open,
    **{(s, PreflightDone): _preflight for s in (Stage.DRAFT, Stage.PREFLIGHTED, Stage.AWAITING_CONFIRMATION)},
    **{(s, DryRunDone): _dry_run for s in (Stage.PREFLIGHTED, Stage.AWAITING_CONFIRMATION)},
    **{(s, Confirmed): _confirmed for s in (Stage.AWAITING_CONFIRMATION, Stage.HOLDING)},
    **{(s, DigestsSeen): _digests for s in Stage if s not in TERMINAL | {Stage.PROMOTED}},
    **{(s, Observed): _observe for s in (*_MOVING, *_DONE)},
    (Stage.RUNNING, Paused): _pause,
    **{(s, Resumed): _resume for s in (Stage.PAUSED, Stage.HOLDING)},
    (Stage.COMPLETED, ValidationBegan): _begin_validation,
    **{(s, PromotionAsked): _promote for s in (Stage.COMPLETED, Stage.VALIDATED)},
    **{(s, Aborted): _roll_back for s in Stage if s not in TERMINAL},
    **{(s, RolledBack): _roll_back for s in (*_MOVING, *_DONE, Stage.PROMOTED)},
}
"""What each event does in each stage; a pair that is missing is refused."""
