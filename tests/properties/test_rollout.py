"""What no history of a rollout can do, whatever happens in whatever order."""

from __future__ import annotations

import os
from math import log
from typing import Any

import msgspec
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from probatum.core.clock import NS_PER_S
from probatum.core.verdict import Provenance, Verdict
from probatum.rollout.choose import Mode
from probatum.rollout.confirm import build_phrase, promote_permission
from probatum.rollout.eprocess import log_e_below
from probatum.rollout.events import (
    Aborted,
    Confirmed,
    DigestsSeen,
    DryRunDone,
    Event,
    MoveAlias,
    Observed,
    Paused,
    PreflightDone,
    PromotionAsked,
    Refused,
    Resumed,
    RolledBack,
    SetShare,
    ValidationBegan,
    event_from_record,
    event_to_record,
)
from probatum.rollout.machine import TERMINAL, Stage, advance, initial, replay, required_permission
from probatum.rollout.measurement import RateCriterion, RateMeasurement, Stream, assess
from probatum.rollout.plan import Ladder, Plan, Policy, Validation

MODEL = "a" * 64
T0 = 1_700_000_000 * NS_PER_S
STEPS = (5, 25, 100)
PHASE_S = 120
CRITERIA = (
    RateCriterion("error_rate", "errors", "below", slo=0.05, abort=0.2, ladder=True),
    RateCriterion("latency", "slow", "below", slo=0.2),
)
PLANS = {
    mode: Plan(
        name="p",
        mode=mode,
        policy=Policy(
            name="small",
            canary=Ladder(STEPS, phase_s=PHASE_S, source_deadline_s=240),
            exposure=Ladder(STEPS, phase_s=PHASE_S),
            validation=Validation(min_s=180, max_s=600),
            criteria=CRITERIA,
        ),
        model=MODEL,
        units=100,
        rate_per_s=20.0,
    )
    for mode in (Mode.OBSERVE, Mode.GATED)
}
VERDICTS = st.sampled_from(
    [Verdict.PASS, Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR]
)
CLASSES = st.sampled_from(list(Provenance))


class RolloutHistory(RuleBasedStateMachine):
    """Throw events at the machine, sensible and senseless, and hold every step against the rules."""

    @initialize(mode=st.sampled_from(list(PLANS)), liveness=CLASSES, head_start=st.integers(0, 4))
    def begin(self, mode: Mode, liveness: Provenance, head_start: int) -> None:
        self.plan, self.liveness = PLANS[mode], liveness
        self.state = initial(self.plan)
        self.now, self.events, self.digests = T0, [], []
        self.n, self.bad, self.watched_s = 0, {"errors": 0, "slow": 0}, 0
        self.states = [self.state]
        if head_start:  # most histories should get somewhere
            self.preflight(Verdict.PASS)
            self.dry_run(Verdict.PASS, True)
            self.confirm(None, "")
            for _ in range(head_start - 1):
                self.traffic(9, 300, 0.0)

    def send(self, happened: Event) -> None:
        before = self.state
        self.state, effects = advance(self.plan, before, happened)
        self.events.append(happened)
        self.states.append(self.state)
        note_stage(self.state.stage)
        assert self.state == advance(self.plan, before, happened)[0]
        if any(isinstance(effect, Refused) for effect in effects):
            assert self.state == before
        for effect in effects:
            if isinstance(effect, SetShare):
                assert effect.percent == self.state.share_percent
                if effect.percent > before.share_percent:
                    self.may_rise(before, happened)
            if isinstance(effect, MoveAlias) and effect.to == MODEL:
                classes = [
                    item.provenance for seen in self.events if isinstance(seen, Observed) for item in seen.measurements
                ]
                assert set(classes) == {Provenance.LIVE}
                assert self.plan.mode is Mode.OBSERVE
        if self.state.share_percent > before.share_percent:
            assert SetShare(self.state.share_percent) in effects
            self.watched_s = 0

    def may_rise(self, before: Any, happened: Event) -> None:
        """Only a valid phrase starts; every other rise follows a full phase and counts that prove the next step."""
        steps = list(STEPS)
        if isinstance(happened, Confirmed):
            assert before.stage is Stage.AWAITING_CONFIRMATION
            assert self.state.share_percent == steps[0]
            return
        assert isinstance(happened, Observed)
        assert before.stage is Stage.RUNNING
        assert steps.index(self.state.share_percent) == steps.index(before.share_percent) + 1
        assert self.watched_s >= PHASE_S
        given_now = {item.measure: item for item in happened.measurements}
        for criterion in CRITERIA:
            seen = given_now[criterion.measure]
            bound = criterion.bound_at(self.state.share_percent / 100)
            assert bound is not None
            assert abs(happened.ts - seen.read_ts) <= 60 * NS_PER_S
            assert log_e_below(seen.n, seen.bad, bound) >= log(20)

    @rule(verdict=VERDICTS)
    def preflight(self, verdict: Verdict) -> None:
        self.send(PreflightDone(self.now, verdict, "p", self.liveness))

    @rule(verdict=VERDICTS, fresh=st.booleans())
    def dry_run(self, verdict: Verdict, fresh: bool) -> None:
        self.send(DryRunDone(self.now, verdict, f"d{len(self.events)}", self.plan.digest, self.now if fresh else 0))

    @rule(last=st.sampled_from([None, *STEPS]), spoil=st.sampled_from(["", "", "", "model", "late", "used"]))
    def confirm(self, last: int | None, spoil: str) -> None:
        phrase = build_phrase(required_permission(self.plan, self.state, self.now, last=last))
        if spoil == "model":
            phrase = phrase.replace("model=a", "model=b")
        if spoil == "used" and self.digests:
            phrase = self.digests[0]
        if spoil == "late":
            phrase = build_phrase(required_permission(self.plan, self.state, self.now - 7_200 * NS_PER_S, last=last))
        before = self.state.stage
        self.send(Confirmed(self.now, phrase, "ada"))
        if spoil in ("model", "late"):
            assert self.state.stage is before
        elif self.state.stage is not before:
            self.digests.append(phrase)
            if before is Stage.AWAITING_CONFIRMATION:
                self.n, self.bad = 0, {"errors": 0, "slow": 0}

    @rule(
        polls=st.integers(1, 20),
        per_poll=st.sampled_from([0, 1, 20, 300]),
        bad=st.sampled_from([0.0, 0.0, 0.0, 0.02, 0.5]),
    )
    def traffic(self, polls: int, per_poll: int, bad: float) -> None:
        for _ in range(polls):
            self.now += 15 * NS_PER_S
            self.n += per_poll
            for measure in self.bad:
                self.bad[measure] += int(per_poll * bad)
            self.observe(self.now, {})

    @rule(
        measure=st.sampled_from(["errors", "slow"]),
        fault=st.sampled_from(["missing", "stale", "reset", "old", "other class", "all gone"]),
        drift=st.none() | VERDICTS,
    )
    def faulty_read(self, measure: str, fault: str, drift: Verdict | None) -> None:
        self.now += 15 * NS_PER_S
        before = self.state
        self.observe(self.now, {measure: fault}, drift)
        if fault != "other class" and before.stage is Stage.RUNNING:
            assert self.state.share_percent <= before.share_percent
            assert self.state.verdict is not Verdict.PASS

    def observe(self, ts: int, faults: dict[str, str], drift: Verdict | None = None) -> None:
        first = self.state.started_ts + 1 if self.n else None
        items = [
            RateMeasurement(
                measure=measure,
                n=self.n,
                bad=min(bad, self.n),
                first_ts=first,
                last_ts=max(ts, first) if first else None,
                read_ts=max(ts, first or 0),
                source="s",
                query="q",
                provenance=self.liveness,
            )
            for measure, bad in self.bad.items()
        ]
        changes: dict[str, dict[str, Any]] = {
            "stale": {"read_ts": ts - 90 * NS_PER_S, "last_ts": None, "first_ts": None, "n": 0, "bad": 0},
            "reset": {"n": 0, "bad": 0, "first_ts": None, "last_ts": None},
            "old": {"n": self.n + 1, "first_ts": 1, "last_ts": ts},
            "other class": {"provenance": Provenance.REPLAY},
        }
        given_now = []
        for item in items:
            fault = faults.get(item.measure, "")
            if "all gone" in faults.values() or fault == "missing":
                continue
            if fault == "reset" and not self.state.streams.get(item.measure, Stream(((0, 0),))).n:
                continue
            given_now.append(msgspec.structs.replace(item, **changes.get(fault, {})))
        if not set(faults.values()) - {"other class"}:
            self.watched_s += 15
        self.send(Observed(ts, tuple(given_now), drift))

    @rule(kind=st.sampled_from([Paused, Resumed, Resumed, ValidationBegan]))
    def human(self, kind: Any) -> None:
        self.send(kind(self.now, "ada"))

    @rule(seconds=st.sampled_from([-86_400, -60, 3_600, 86_400]))
    def clock_jumps(self, seconds: int) -> None:
        elapsed = self.state.elapsed_ns
        self.send(Observed(self.now + seconds * NS_PER_S))
        assert self.state.elapsed_ns <= max(elapsed, 0) or self.state.stage not in (Stage.RUNNING, Stage.VALIDATING)
        self.now = max(self.now, self.state.ts)

    @rule(claim=CLASSES, blockers=st.sampled_from([(), (), ("drill",)]))
    def promote(self, claim: Provenance, blockers: tuple[str, ...]) -> None:
        phrase = build_phrase(promote_permission(self.plan, "g", self.now + 60 * NS_PER_S))
        before = self.state.stage
        self.send(PromotionAsked(self.now, phrase, "grace", blockers, "g", claim))
        if self.state.stage is not before:
            assert blockers == ()
            assert Provenance.LIVE is claim is self.liveness

    @precondition(lambda self: len(self.events) > 3)
    @rule(plan=st.booleans())
    def same_or_changed_digests(self, plan: bool) -> None:
        before = self.state
        self.send(DigestsSeen(self.now, self.plan.digest, MODEL))
        assert self.state.stage is before.stage
        if plan and len(self.events) % 5 == 0:
            self.send(DigestsSeen(self.now, "0" * 64, MODEL))
            if before.stage not in TERMINAL | {Stage.PROMOTED}:
                assert self.state.stage in (Stage.DRAFT, Stage.ABORTED, Stage.ROLLED_BACK)
                assert self.state.share_percent == 0

    @precondition(lambda self: len(self.events) > 25)
    @rule(kind=st.sampled_from([Aborted, RolledBack]))
    def end(self, kind: Any) -> None:
        self.send(kind(self.now, "ada"))

    @invariant()
    def abort_is_one_event_away(self) -> None:
        if not hasattr(self, "state"):
            return
        after, effects = advance(self.plan, self.state, Aborted(self.now, "ada"))
        assert after.stage in TERMINAL
        assert after.share_percent == 0
        assert SetShare(0) in effects

    @invariant()
    def ended_means_zero(self) -> None:
        if hasattr(self, "state") and self.state.stage in TERMINAL:
            assert self.state.share_percent == 0

    def teardown(self) -> None:
        """Replay, through the ledger's own form, gives the live state at every prefix."""
        if not hasattr(self, "state"):
            return
        records = [msgspec.json.decode(msgspec.json.encode(event_to_record(event))) for event in self.events]
        events = [event_from_record(record) for record in records]
        for count, live in enumerate(self.states):
            if count % 7 == 0 or count == len(events):
                assert replay(self.plan, events[:count])[0] == live


def note_stage(stage: Stage) -> None:
    """Let Hypothesis report what histories reach (``--hypothesis-show-statistics``)."""
    event(f"reached {stage.value}")


TestRolloutHistory = RolloutHistory.TestCase
TestRolloutHistory.settings = settings(
    max_examples=int(os.environ.get("PROBATUM_EXAMPLES", "60")),
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

COUNTS = st.lists(
    st.integers(0, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1, max_size=4
).map(tuple)
RANK = list(Verdict)


@given(COUNTS, COUNTS, st.sampled_from(["missing", "unmeasured", "quiet"]))
@settings(deadline=None)
def test_silence_never_improves_a_verdict(errors: Any, slow: Any, fault: str) -> None:
    """Taking a measure away, or marking it stale or quiet, leaves the verdict as bad as it was or makes it worse."""

    def verdict(streams: dict[str, Stream]) -> int:
        return RANK.index(assess(CRITERIA, streams, alpha=0.05, share_next=1.0, phases=4).verdict)

    streams = {"errors": Stream(errors), "slow": Stream(slow)}
    worse = {
        "unmeasured": {**streams, "errors": Stream(errors, "read 90 s ago", measured=False)},
        "quiet": {**streams, "errors": Stream(errors, quiet="no new sample for 90 s")},
        "missing": {"slow": streams["slow"]},
    }[fault]
    assert verdict(worse) >= max(verdict(streams), RANK.index(Verdict.INCONCLUSIVE))


@given(COUNTS, st.integers(1, 50))
@settings(deadline=None)
def test_more_bad_events_never_improve_a_verdict(errors: Any, more: int) -> None:
    """Adding bad events to the present phase leaves the verdict or worsens it."""

    def verdict(segments: Any) -> int:
        criteria = (CRITERIA[0],)
        return RANK.index(assess(criteria, {"errors": Stream(segments)}, alpha=0.05, share_next=1.0, phases=4).verdict)

    *before, (n, bad) = errors
    assert verdict((*before, (n + more, bad + more))) >= verdict(errors)
