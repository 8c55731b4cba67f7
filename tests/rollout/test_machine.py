"""The rollout's life, scene by scene: phases, holds, aborts, confirmation, validation, promotion."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from probatum.core.clock import NS_PER_S
from probatum.core.errors import BlockedError, ConfirmationError
from probatum.core.verdict import Provenance, Verdict
from probatum.rollout.choose import Mode
from probatum.rollout.confirm import build_phrase, promote_permission
from probatum.rollout.events import (
    Aborted,
    Confirmed,
    DigestsSeen,
    DryRunDone,
    Effect,
    Event,
    MoveAlias,
    Observed,
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
    event_from_record,
    event_to_record,
)
from probatum.rollout.machine import TERMINAL, Stage, State, advance, initial, reopen, replay, required_permission
from probatum.rollout.measurement import RateMeasurement
from probatum.rollout.plan import Plan
from probatum.rollout.policy import shipped_policy

MODEL = "a" * 64
T0 = 1_700_000_000 * NS_PER_S
POLL_S = 15


class Rollout:
    """Drive the machine as a loop would, with a stream of one-second decisions."""

    def __init__(self, plan: Plan | None = None, provenance: Provenance = Provenance.LIVE, **rates: float) -> None:
        self.plan = plan or make_plan()
        self.state: State = initial(self.plan)
        self.provenance = provenance
        self.rates = rates
        self.now = T0
        self.seen = 0.0
        self.traffic = 1.0
        self.bad: dict[str, float] = {}
        self.events: list[Event] = []
        self.effects: list[Effect] = []
        self.shares: list[int] = []

    def send(self, event: Event) -> tuple[Effect, ...]:
        self.state, effects = advance(self.plan, self.state, event)
        self.events.append(event)
        self.effects += effects
        self.shares += [effect.percent for effect in effects if isinstance(effect, SetShare)]
        return effects

    def prepare(self) -> Rollout:
        self.send(PreflightDone(self.now, Verdict.PASS, "pre", self.provenance))
        self.send(DryRunDone(self.now, Verdict.PASS, "dry", self.plan.digest, self.now))
        return self

    def phrase(self, **options: Any) -> str:
        return build_phrase(required_permission(self.plan, self.state, self.now, **options))

    def start(self, **options: Any) -> Rollout:
        self.prepare()
        self.send(Confirmed(self.now, self.phrase(**options), "ada"))
        assert self.state.stage is Stage.RUNNING, self.state.reason
        return self

    def measurements(self, **changes: Any) -> tuple[RateMeasurement, ...]:
        first = T0 + 1 if self.seen >= 1 else None
        return tuple(
            msgspec.structs.replace(
                RateMeasurement(
                    measure=measure,
                    n=int(self.seen),
                    bad=int(self.bad.get(measure, 0.0)),
                    first_ts=first,
                    last_ts=self.now if first else None,
                    read_ts=self.now,
                    source="test",
                    query=measure,
                    provenance=self.provenance,
                ),
                **changes,
            )
            for measure in dict.fromkeys(item.measure for item in self.plan.criteria)
        )

    def watch(self, seconds: int, **rates: float) -> Rollout:
        """Let time pass, traffic at the plan's rate and share flow, and the sources be read at each poll."""
        for _ in range(0, seconds, POLL_S):
            self.now += POLL_S * NS_PER_S
            more = self.traffic * POLL_S * self.plan.rate_per_s * max(self.state.share_percent, 0) / 100
            self.seen += more
            for measure, rate in {**self.rates, **rates}.items():
                self.bad[measure] = self.bad.get(measure, 0.0) + more * rate
            self.send(Observed(self.now, self.measurements()))
        return self


def make_plan(policy: str = "default", mode: Mode = Mode.OBSERVE, **changes: Any) -> Plan:
    units = {"units": 500} if mode is Mode.GATED else {}
    fields = {"name": "btc", "mode": mode, "policy": shipped_policy(policy), "model": MODEL, **units, **changes}
    return Plan(**fields)


def complete(plan: Plan | None = None, provenance: Provenance = Provenance.LIVE) -> Rollout:
    rollout = Rollout(plan, provenance).start().watch(5 * 1800)
    assert rollout.state.stage is Stage.COMPLETED
    return rollout


def promotion(rollout: Rollout, **changes: Any) -> PromotionAsked:
    now = rollout.state.ts
    phrase = build_phrase(promote_permission(rollout.plan, "gate", now + 600 * NS_PER_S))
    return msgspec.structs.replace(PromotionAsked(now, phrase, "grace", (), "gate", Provenance.LIVE), **changes)


def test_five_phases_of_thirty_minutes() -> None:
    """Good traffic goes 5, 10, 25, 50, 100 % at thirty minutes each and completes with its run record and rc tag."""
    rollout = complete()
    assert rollout.shares == [5, 10, 25, 50, 100]
    ended = [i for i, effect in enumerate(rollout.effects) if isinstance(effect, Record) and effect.kind == "phase"]
    assert len(ended) == 5
    assert Tag("rc") in rollout.effects
    assert rollout.state.streams["errors"].n == 3_420
    assert len(rollout.state.streams["errors"].segments) == 5


def test_phase_waits_for_its_time_and_its_samples() -> None:
    """One second before thirty minutes nothing moves; with too few samples it goes on waiting, then holds and says why."""
    plan = make_plan(rate_per_s=0.2)
    rollout = Rollout(plan).start().watch(1800)
    assert (rollout.state.stage, rollout.state.share_percent) == (Stage.RUNNING, 5)
    rollout.watch(1860)
    assert rollout.state.share_percent == 10
    slow = Rollout(plan)
    slow.traffic = 0.01
    slow.start().watch(5 * 3_600)
    assert slow.state.stage is Stage.HOLDING
    assert slow.state.verdict is Verdict.INCONCLUSIVE
    assert "samples short of a proof, expected in" in slow.state.reason


def test_seed_policy_needs_all_samples_in_the_first_phase() -> None:
    """Without the ladder the first phase at 5 % of one decision a second takes 375 samples, a little over two hours."""
    rollout = Rollout(make_plan("seed-v1.8")).start().watch(7_400)
    assert rollout.state.share_percent == 5
    assert rollout.watch(300).state.share_percent == 10


@pytest.mark.parametrize(
    ("measure", "rate", "within_s"),
    [("errors", 0.2, 1800), ("slower_than_120ms", 0.3, 1800), ("uncovered", 0.5, 1800), ("errors", 0.03, 12_000)],
)
def test_broken_abort_bound_aborts(measure: str, rate: float, within_s: int) -> None:
    """A rate beyond its abort bound ends the rollout at share 0 with a root-cause record naming the criterion."""
    rollout = Rollout(make_plan(rate_per_s=20.0), **{measure: rate}).start().watch(within_s)
    assert rollout.state.stage is Stage.ABORTED
    assert rollout.shares[-1] == 0
    cause = next(effect for effect in rollout.effects if isinstance(effect, Record) and effect.kind == "root_cause")
    assert "proven worse than the abort bound" in cause.reason
    assert any(check.aborts and check.lower is not None for check in cause.checks)


def test_between_the_bounds_holds() -> None:
    """Errors proven above the SLO but not above the abort bound hold for a human, the share unchanged."""
    rollout = Rollout(make_plan(rate_per_s=50.0), errors=0.0155).start().watch(3 * 1800)
    assert rollout.state.stage is Stage.HOLDING
    assert rollout.state.verdict is Verdict.FAIL
    assert rollout.state.share_percent in (10, 25, 50)


def test_late_turn_is_seen() -> None:
    """A model that turns bad in the last phase aborts within two polls, whatever good past it has."""
    rollout = Rollout(make_plan(rate_per_s=5.0)).start().watch(4 * 1800 + 60)
    assert rollout.state.share_percent == 100
    assert rollout.watch(45, errors=0.3).state.stage is Stage.ABORTED


def test_stopped_traffic_holds() -> None:
    """Fresh reads of counters that no longer move never pass: the rollout ends INCONCLUSIVE and holds."""
    rollout = Rollout().start().watch(1500)
    rollout.rates, seen = {}, rollout.seen
    for _ in range(2_000):
        rollout.now += POLL_S * NS_PER_S
        frozen = rollout.measurements(last_ts=T0 + 1500 * NS_PER_S, n=int(seen))
        rollout.send(Observed(rollout.now, frozen))
    assert rollout.state.stage is Stage.HOLDING
    assert rollout.state.verdict is Verdict.INCONCLUSIVE
    assert rollout.state.share_percent == 5


def test_dead_source_holds_then_aborts() -> None:
    """A source that gives nothing stops the phase's clock at once and ends the rollout at the deadline."""
    rollout = Rollout().start().watch(600)
    elapsed = rollout.state.elapsed_ns
    stages = []
    for _ in range(21):
        rollout.now += POLL_S * NS_PER_S
        rollout.send(Observed(rollout.now))
        stages.append(rollout.state.stage)
    assert rollout.state.elapsed_ns == elapsed
    assert stages.index(Stage.ABORTED) == 300 // POLL_S - 1
    assert "no usable measurement for 300 s" in rollout.state.reason


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"read_ts": T0 + 60 * NS_PER_S, "last_ts": T0 + 2}, "s ago"),
        ({"n": 1, "bad": 0}, "counters fell"),
        ({"first_ts": T0 - 1}, "before the run"),
    ],
)
def test_unusable_measurements(change: dict[str, Any], problem: str) -> None:
    """A stale read, a counter that fell, and samples from before the run are an ERROR, and their counts are not taken."""
    rollout = Rollout().start().watch(600)
    known = rollout.state.streams["errors"].n
    rollout.now += POLL_S * NS_PER_S
    rollout.send(Observed(rollout.now, rollout.measurements(**change)))
    assert rollout.state.verdict is Verdict.ERROR
    assert problem in rollout.state.streams["errors"].problem
    assert rollout.state.streams["errors"].n == known


def test_clock_jumps() -> None:
    """A jump of a day ahead counts as no observation, nor does a jump back, and no phase is skipped."""
    rollout = Rollout().start().watch(600)
    elapsed = rollout.state.elapsed_ns
    rollout.now += 86_400 * NS_PER_S
    rollout.send(Observed(rollout.now, rollout.measurements()))
    assert rollout.state.elapsed_ns == elapsed
    after = rollout.state
    rollout.send(Observed(rollout.now - 3_600 * NS_PER_S, rollout.measurements()))
    assert rollout.state.elapsed_ns == after.elapsed_ns
    assert rollout.state.ts == after.ts
    assert rollout.state.share_percent == 5


def test_a_clock_that_was_put_back_does_not_blind() -> None:
    """After a jump ahead and back reads count at once, silence still aborts at its deadline, and errors still abort."""
    for rates, silent in (({}, False), ({}, True), ({"errors": 0.5}, False)):
        rollout = Rollout().start().watch(600)
        rollout.send(
            Observed(rollout.now + 3_600 * NS_PER_S, rollout.measurements(read_ts=rollout.now + 3_600 * NS_PER_S))
        )
        elapsed = rollout.state.elapsed_ns
        for _ in range(21):
            if silent:
                rollout.now += POLL_S * NS_PER_S
                rollout.send(Observed(rollout.now))
            else:
                rollout.watch(POLL_S, **rates)
        aborts = bool(silent or rates)
        assert (rollout.state.stage is Stage.ABORTED) == aborts, rollout.state.reason
        assert (rollout.state.elapsed_ns > elapsed) != silent


def test_pause_and_resume() -> None:
    """A pause stops the clock but not the abort criteria."""
    rollout = Rollout().start().watch(900)
    rollout.send(Paused(rollout.now, "ada", "lunch"))
    rollout.watch(3600)
    assert (rollout.state.stage, rollout.state.share_percent) == (Stage.PAUSED, 5)
    rollout.send(Resumed(rollout.now, "ada"))
    assert rollout.watch(840).state.share_percent == 5
    assert rollout.watch(60).state.share_percent == 10
    rollout.send(Paused(rollout.now, "ada"))
    assert rollout.watch(3600, errors=0.9).state.stage is Stage.ABORTED


def test_narrow_confirmation_holds_at_its_end() -> None:
    """A phrase for 5..10 % stops before 25 % until a wider one is given; the narrow one cannot be used again."""
    rollout = Rollout().prepare()
    narrow = rollout.phrase(last=10)
    rollout.send(Confirmed(rollout.now, narrow, "ada"))
    rollout.watch(2 * 1800 + 60)
    assert rollout.state.stage is Stage.HOLDING
    assert rollout.state.reason == "confirmed only up to 10%; the next step is 25%"
    assert "used before" in _refusal(rollout.send(Confirmed(rollout.now, narrow, "ada")))
    rollout.send(Confirmed(rollout.now, rollout.phrase(), "ada"))
    assert rollout.watch(60).state.share_percent == 25


def _refusal(effects: tuple[Effect, ...]) -> str:
    assert len(effects) == 1
    assert isinstance(effects[0], Refused)
    return effects[0].reason


def test_abort_requires_a_new_dry_run_and_confirmation() -> None:
    """After an abort neither the old dry-run nor the old phrase opens the next attempt."""
    rollout = Rollout().prepare()
    unused = rollout.phrase()
    rollout.send(Confirmed(rollout.now, rollout.phrase(last=100), "ada"))
    rollout.watch(60)
    old = DryRunDone(rollout.now, Verdict.PASS, "dry", rollout.plan.digest, T0)
    rollout.send(Aborted(rollout.now, "ada", "drill"))
    again = Rollout(rollout.plan)
    again.now = rollout.now
    again.send(reopen(rollout.state, rollout.now))
    again.send(PreflightDone(again.now, Verdict.PASS, "pre2", Provenance.LIVE))
    assert "new one is required" in _refusal(again.send(old))
    again.send(DryRunDone(again.now, Verdict.PASS, "dry2", again.plan.digest, again.now))
    assert again.state.attempt == 2
    for phrase in (unused, rollout.events[2].phrase):  # type: ignore[union-attr]
        assert _refusal(again.send(Confirmed(again.now, phrase, "ada"))).startswith("confirmation void")
    again.send(Confirmed(again.now, again.phrase(), "ada"))
    assert again.state.stage is Stage.RUNNING


def test_running_attempt_cannot_be_reopened() -> None:
    """A retry of something that has not ended is refused."""
    with pytest.raises(BlockedError, match="only an ended one"):
        reopen(Rollout().start().state, T0)


def test_changed_digests() -> None:
    """An edited plan or another model voids what was prepared, and ends what runs."""
    for change in ({"plan": "0" * 64}, {"model": "b" * 64}):
        waiting, running = Rollout().prepare(), Rollout().start()
        for rollout in (waiting, running):
            seen = DigestsSeen(rollout.now, rollout.plan.digest, MODEL)
            rollout.send(seen)
            rollout.send(msgspec.structs.replace(seen, **change))
        assert waiting.state.stage is Stage.DRAFT
        assert (waiting.state.dry_run, waiting.state.preflight) == ("", "")
        assert running.state.stage is Stage.ABORTED


def test_failed_steps_before_the_run() -> None:
    """A preflight or dry-run that is no PASS leads no further, and takes back what followed it."""
    rollout = Rollout().prepare()
    rollout.send(DryRunDone(rollout.now, Verdict.INCONCLUSIVE, "x", rollout.plan.digest, rollout.now))
    assert rollout.state.stage is Stage.PREFLIGHTED
    rollout.prepare()
    rollout.send(PreflightDone(rollout.now, Verdict.ERROR, "x", Provenance.LIVE))
    assert rollout.state.stage is Stage.DRAFT
    foreign = DryRunDone(rollout.now, Verdict.PASS, "x", "0" * 64, rollout.now)
    rollout.send(PreflightDone(rollout.now, Verdict.PASS, "pre", Provenance.LIVE))
    assert "another plan" in _refusal(rollout.send(foreign))


def test_validation_and_promotion() -> None:
    """A completed live canary is validated on a day of fresh data and promoted: alias, share 0, record, tag."""
    rollout = complete()
    rollout.send(ValidationBegan(rollout.now, "ada"))
    rollout.watch(86_400 - 60)
    assert rollout.state.stage is Stage.VALIDATING
    rollout.watch(60)
    assert rollout.state.stage is Stage.VALIDATED
    effects = rollout.send(promotion(rollout))
    assert rollout.state.stage is Stage.PROMOTED
    assert effects[:3] == (MoveAlias("previous", "champion"), MoveAlias("champion", MODEL), SetShare(0))
    back = rollout.send(RolledBack(rollout.now, "ada", "regret"))
    assert rollout.state.stage is Stage.ROLLED_BACK
    assert back[:2] == (SetShare(0), MoveAlias("champion", "previous"))


@pytest.mark.parametrize("provenance", [Provenance.SYNTHETIC, Provenance.REPLAY])
def test_only_live_promotes(provenance: Provenance) -> None:
    """The same path on synthetic or replayed data is blocked at promote, even when the caller claims live."""
    rollout = complete(provenance=provenance)
    assert f"evidence is {provenance.value}" in _refusal(rollout.send(promotion(rollout)))
    assert rollout.state.stage is Stage.COMPLETED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"blockers": ("drill",)}, "promote blocked: drill"),
        ({"provenance": Provenance.REPLAY}, "evidence is replay"),
        ({"evidence": "other"}, "evidence is gate"),
        ({"approver": " "}, "approver must be named"),
    ],
)
def test_promotion_refused(change: dict[str, Any], reason: str) -> None:
    """Open blockers, weak evidence, another gate record and a nameless approver stop a promotion."""
    rollout = complete()
    assert reason in _refusal(rollout.send(promotion(rollout, **change)))
    assert rollout.state.stage is Stage.COMPLETED


def test_failed_validation() -> None:
    """Validation looks at fresh data alone: a good canary does not outweigh a bad day after it."""
    rollout = complete()
    rollout.send(ValidationBegan(rollout.now, "ada"))
    assert rollout.watch(1800, errors=0.2).state.stage is Stage.ABORTED


def test_exposure_falls_back() -> None:
    """Exposure begins at 1 % with a confirmation of its own; drift after completion falls back to the baseline."""
    rollout = Rollout(make_plan(mode=Mode.GATED, rate_per_s=5.0)).prepare()
    assert rollout.phrase().startswith("ONAY: Exposure START 1..100%/30m gated ")
    rollout.send(Confirmed(rollout.now, rollout.phrase(), "ada"))
    rollout.watch(7 * 1800)
    assert (rollout.shares, rollout.state.stage) == ([1, 5, 10, 25, 50, 100], Stage.COMPLETED)
    rollout.now += POLL_S * NS_PER_S
    rollout.send(Observed(rollout.now, rollout.measurements(), drift=Verdict.FAIL))
    assert (rollout.state.stage, rollout.shares[-1]) == (Stage.ROLLED_BACK, 0)


def test_drift_is_only_watched_in_observe() -> None:
    """In observe the baseline decides, so drift does not end the run."""
    rollout = Rollout().start().watch(60)
    rollout.now += POLL_S * NS_PER_S
    rollout.send(Observed(rollout.now, rollout.measurements(), drift=Verdict.FAIL))
    assert rollout.state.stage is Stage.RUNNING


def test_demo_confirms_no_live_rollout() -> None:
    """Approver demo is refused on live evidence, and a live sample under its confirmation ends the run."""
    rollout = Rollout().prepare()
    assert "demo" in _refusal(rollout.send(Confirmed(rollout.now, rollout.phrase(), "demo")))
    replayed = Rollout(provenance=Provenance.REPLAY).prepare()
    replayed.send(Confirmed(replayed.now, replayed.phrase(), "demo"))
    assert replayed.watch(60).state.stage is Stage.RUNNING
    replayed.provenance = Provenance.LIVE
    assert replayed.watch(15).state.stage is Stage.ABORTED


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage not in TERMINAL])
def test_abort_outranks_every_stage(stage: Stage) -> None:
    """Abort ends every stage at share 0."""
    state = msgspec.structs.replace(initial(make_plan()), stage=stage, share_percent=50, phase=1)
    after, effects = advance(make_plan(), state, Aborted(T0, "ada", "now"))
    assert after.stage in TERMINAL
    assert after.share_percent == 0
    assert effects[0] == SetShare(0)


def test_advance_is_total() -> None:
    """Every event in every stage gives a state; ended ones absorb everything, and keep the share at 0."""
    rollout = complete()
    kinds = {type(event): event for event in rollout.events}
    extra = [Aborted(T0, "a"), RolledBack(T0, "a"), Paused(T0, "a"), Resumed(T0, "a"), ValidationBegan(T0, "a")]
    events = [*kinds.values(), *extra, DigestsSeen(T0, "x", "y"), promotion(rollout), reopen_of(rollout)]
    for stage in Stage:
        state = msgspec.structs.replace(rollout.state, stage=stage, streams={}, phase=4)
        for event in events:
            after, effects = advance(rollout.plan, state, event)
            assert isinstance(after, State)
            if stage in TERMINAL:
                assert after == state
                assert effects[-1] == SetShare(0)


def reopen_of(rollout: Rollout) -> Event:
    return reopen(msgspec.structs.replace(rollout.state, stage=Stage.ABORTED), rollout.now)


def test_records_round_trip_and_replay() -> None:
    """Events survive canonical JSON, and their replay is the live state, a promoted one among them."""
    rollout = complete()
    rollout.send(promotion(rollout))
    records = [msgspec.json.decode(msgspec.json.encode(event_to_record(event))) for event in rollout.events]
    assert all(isinstance(record["ts"], str) for record in records)
    state, effects = replay(rollout.plan, (event_from_record(record) for record in records))
    assert state == rollout.state
    assert effects == tuple(rollout.effects[-len(effects) :])


def test_confirmation_outside_its_time() -> None:
    """A phrase given while nothing awaits one raises when asked beforehand."""
    from probatum.rollout.machine import check_confirmation

    rollout = Rollout().start()
    with pytest.raises(ConfirmationError, match="nothing awaits one while running"):
        check_confirmation(rollout.plan, rollout.state, Confirmed(rollout.now, rollout.phrase(), "ada"))
