"""A canary over a recording: what it proves, what ends it, what it refuses, and that anyone gets the same again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from canary import Bench, bench

from probatum.core.clock import NS_PER_MINUTE, NS_PER_S, parse_utc
from probatum.core.errors import BlockedError, ConfirmationError
from probatum.core.verdict import Provenance, Verdict
from probatum.monitoring.shadow import Outcome, ShadowCounts
from probatum.pipeline.canary import dry_run, make_plan, preflight, prove_run, replay_run, spread
from probatum.pipeline.evidence import seal
from probatum.pipeline.replay import TapeFeed, read_tape, rehearse, source_of
from probatum.pipeline.rollout import LedgerEffects, Rollout
from probatum.pipeline.verify import verify
from probatum.rollout import confirm
from probatum.rollout.choose import is_in_share
from probatum.rollout.events import Confirmed, DigestsSeen, DryRunDone, Observed, PreflightDone
from probatum.rollout.machine import Stage, check_confirmation, required_permission
from probatum.rollout.policy import shipped_policy

COLUMNS = ("ts", "score", "baseline", "known", "right", "base_right", "session", "latency_ns", "outcome")


def prepared(place: Bench, **options: Any) -> Rollout:
    """Return a rollout that awaits its confirmation."""
    rollout = place.opened(place.plan(**options))
    preflight(rollout, now_ns=place.start_ns, newest_ns=place.start_ns, provenance=place.dataset.provenance)
    dry_run(rollout, place.recording, now_ns=place.start_ns)
    return rollout


def confirmed(place: Bench, rollout: Rollout, approver: str = "demo", **options: Any) -> Confirmed:
    phrase = confirm.build_phrase(required_permission(rollout.plan, rollout.state, place.start_ns, **options))
    return Confirmed(place.start_ns, phrase, approver)


def ran(place: Bench, rollout: Rollout) -> list[str]:
    """Run a rollout over the recording and return what humans were told."""
    told: list[str] = []
    recording = place.recording
    tape = read_tape(place.sources, place.model, recording)
    effects = LedgerEffects(
        prove_run=lambda rollout, effect: prove_run(rollout, effect, recording=recording, tape=tape) and None,
        tag_source=lambda _, kind: told.append(f"tag {kind}"),
        tell=told.append,
    )
    replay_run(rollout, recording, tape, confirmed(place, rollout), effects)
    return told


def found(place: Bench, kind: str) -> dict[str, Any]:
    return list(place.ledger.records(kind=kind))[-1].body["figures"]


def test_a_good_model_completes_and_the_record_holds_counts_durations_and_samples() -> None:
    """Five phases pass, time and samples are those of the recording, and every figure can be recomputed."""
    place = bench()
    rollout = prepared(place)
    told = ran(place, rollout)
    run = found(place, "canary_run")
    assert (rollout.state.stage, run["verdict"], found(place, "canary_dryrun_observe")["verdict"]) == (
        Stage.COMPLETED, "PASS", "PASS",
    )  # fmt: skip
    assert "tag rc" in told
    assert [phase["share_percent"] for phase in run["phases"]] == [5, 10, 25, 50, 100]
    assert parse_utc(run["ended"]) - parse_utc(run["started"]) == run["duration_s"] * NS_PER_S
    assert run["duration_s"] == sum(phase["duration_s"] for phase in run["phases"])
    assert run["started"] <= run["first_sample"] < run["last_sample"] <= run["ended"]
    errors = [phase["counts"]["errors"]["n"] for phase in run["phases"]]
    assert sum(errors) == run["measurements"]["errors"]["n"] == run["against_baseline"]["attempts"]
    assert verify(place.ledger, place.sources).findings == ()


def test_the_same_canary_twice_is_the_same_chain() -> None:
    """Recorded data, a virtual clock and measured latencies: nothing is left to chance."""
    heads = []
    for _ in range(2):
        place = bench()
        ran(place, prepared(place))
        heads.append(place.ledger.head())
    assert heads[0] == heads[1]


def test_counts_are_those_of_an_executor_that_saw_each_decision() -> None:
    """The feed's sums agree, decision by decision, with ShadowCounts and the share's hash."""
    place = bench(bad_share=0.1, slow_share=0.1)
    plan, recording = place.plan(), place.recording
    tape = read_tape(place.sources, place.model, recording)
    feed = TapeFeed(tape, plan, source_of(recording))
    steps = [(place.start_ns, 5), (place.start_ns + 600 * NS_PER_MINUTE, 25)]
    until = place.start_ns + 2_000 * NS_PER_MINUTE
    for ts, percent in steps:
        feed.set_share(percent, ts)
    counts = ShadowCounts()
    for i, ts in enumerate(tape.ts.tolist()):
        percent = next((percent for since, percent in reversed(steps) if ts > since), 0)
        if ts > until or not is_in_share(str(ts), percent / 100, plan.digest):
            continue
        if tape.outcome[i]:
            counts.missed((Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT)[tape.outcome[i]])
        else:
            counts.heard(float(tape.baseline[i]), float(tape.score[i]), 0, int(tape.latency_ns[i]))
    seen = {item.measure: (item.n, item.bad) for item in feed.read(until)}
    assert seen["errors"] == (counts.attempts, counts.failures)
    assert seen["mismatches"] == (counts.outcomes[Outcome.OK], counts.mismatches)
    assert seen["slower_than_80ms"][1] == counts.slow[1]
    assert feed.counts(until).to_dict() == counts.to_dict()


def test_outcomes_that_overlap_are_counted_once() -> None:
    """Of decisions that differ only those count that began after the outcome counted before was known."""
    place = bench()
    tape = read_tape(place.sources, place.model, place.recording)
    longer = replace(tape, known=np.where(tape.known < 0, -1, tape.ts + 10 * NS_PER_MINUTE))
    n = {}
    for name, item in (("apart", tape), ("overlapping", longer)):
        feed = TapeFeed(item, place.plan(), "test")
        feed.set_share(100, place.start_ns)
        n[name] = next(m.n for m in feed.read(place.end_ns) if m.measure == "outcome_losses")
    assert 0 < n["overlapping"] <= (place.end_ns - place.start_ns) // (10 * NS_PER_MINUTE) < n["apart"]


def test_three_percent_errors_abort_within_a_day_of_seconds() -> None:
    """Not far above the abort bound of 2 %, at one decision a second and half of them mirrored: it ends, at share 0."""
    place = bench()
    place.smoke([3.0] * 1_000, [500 if i % 100 in (7, 40, 73) else 200 for i in range(1_000)], Provenance.SYNTHETIC)
    tape = read_tape(place.sources, place.model, place.recording)
    n, end_ns = 86_400, place.start_ns + 86_400 * NS_PER_S
    day = replace(tape, **{name: np.resize(getattr(tape, name), n) for name in COLUMNS})
    day = replace(day, ts=place.start_ns + NS_PER_S * np.arange(1, n + 1), known=np.full(n, -1))
    half = msgspec.structs.replace(shipped_policy("default").canary, shares_percent=(50, 100))
    policy = msgspec.structs.replace(shipped_policy("default"), canary=half)
    plan = msgspec.structs.replace(place.plan(spread(policy, n)), rate_per_s=1.0)
    steps = rehearse(plan, TapeFeed(day, plan, "test"), place.start_ns, end_ns)
    state = steps[-1][1][0]
    assert (state.stage, state.share_percent) == (Stage.ABORTED, 0)
    assert state.streams["errors"].bad / state.streams["errors"].n > 0.02
    assert "error_rate" in state.reason


def test_an_abort_leaves_a_root_cause() -> None:
    """Errors above the abort bound end the run: share 0, what fired with n and bound, the decisions around it."""
    place = bench()
    rollout = prepared(place)
    place.smoke([3.0] * 1_000, [500 if i % 5 == 0 else 200 for i in range(1_000)], Provenance.SYNTHETIC)
    told = ran(place, rollout)
    run = found(place, "canary_run")
    cause = run["root_cause"]
    assert (rollout.state.stage, rollout.state.share_percent, run["verdict"]) == (Stage.ABORTED, 0, "FAIL")
    assert "error_rate" in [check["name"] for check in cause["fired"]]
    assert all(check["n"] > 0 and check["bad"] > 0 for check in cause["fired"])
    assert {row["outcome"] for row in cause["decisions"]} == {"error"}
    assert any("aborted" in text for text in told)
    assert verify(place.ledger, place.sources).findings == ()


def test_an_abort_wants_a_new_dry_run_and_a_new_phrase() -> None:
    """After an end nothing proven or confirmed before counts; the same recording is told later."""
    place = bench()
    rollout = prepared(place)
    used = confirmed(place, rollout)
    place.smoke([3.0] * 1_000, [500] * 1_000, Provenance.SYNTHETIC)
    ran(place, rollout)
    assert rollout.state.stage is Stage.ABORTED
    ended = rollout.state.ts
    rollout.open(rollout.plan, place.start_ns)
    assert (rollout.state.stage, rollout.state.attempt, rollout.state.ts) == (Stage.DRAFT, 2, ended)
    rollout.apply(PreflightDone(ended, Verdict.PASS, "x", Provenance.SYNTHETIC))
    _, effects = rollout.apply(DryRunDone(ended, Verdict.PASS, "x", rollout.plan.digest, ended - 1))
    assert "older than the end of the last attempt" in str(effects)
    rollout.apply(DryRunDone(ended, Verdict.PASS, "x", rollout.plan.digest, ended))
    with pytest.raises(ConfirmationError):
        check_confirmation(rollout.plan, rollout.state, used)


def test_traffic_that_stops_holds_as_inconclusive() -> None:
    """A recording that falls silent is no success: the phase holds for a human and says what is missing."""
    place = bench()
    rollout = prepared(place)
    tape = read_tape(place.sources, place.model, place.recording)
    stop = int(np.searchsorted(tape.ts, place.start_ns + 300 * NS_PER_MINUTE))
    silent = replace(
        tape,
        **{
            name: getattr(tape, name)[:stop]
            for name in ("ts", "score", "baseline", "known", "right", "base_right", "session", "latency_ns", "outcome")
        },
    )
    feed = TapeFeed(silent, rollout.plan, "test")
    rollout.apply(confirmed(place, rollout))
    feed.set_share(rollout.state.share_percent, place.start_ns)
    now = place.start_ns
    while rollout.state.stage is Stage.RUNNING:
        now += rollout.plan.ladder.poll_s * NS_PER_S
        rollout.apply(Observed(now, feed.read(now)))
    assert rollout.state.stage is Stage.HOLDING
    assert "no new sample" in rollout.state.reason
    record = prove_run(rollout)
    assert record is not None
    assert record.body["figures"]["verdict"] == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda phrase: phrase.replace("model=", "model=f"), "model"),
        (lambda phrase: phrase.replace("plan=", "plan=0"), "plan"),
        (lambda phrase: phrase.replace("5..100%", "5..17%"), "phases"),
        (lambda phrase: phrase.replace("5..100%", "1..100%"), "first"),
        (lambda phrase: "please " + phrase, "prefix"),
    ],
)
def test_a_phrase_that_is_not_the_one_shown_moves_nothing(change: Any, field: str) -> None:
    """Each refusal names its field, exits 5 and leaves the chain as it was."""
    place = bench()
    rollout = prepared(place)
    event = confirmed(place, rollout)
    head = place.ledger.head()
    with pytest.raises(ConfirmationError) as refused:
        check_confirmation(rollout.plan, rollout.state, Confirmed(event.ts, change(event.phrase), "demo"))
    rollout.apply(Confirmed(event.ts, change(event.phrase), "demo"))
    assert (refused.value.fields["field"], refused.value.exit_code) == (field, 5)
    assert (place.ledger.head(), rollout.state.stage) == (head, Stage.AWAITING_CONFIRMATION)


def test_a_phrase_lapses_and_does_not_survive_an_edited_plan() -> None:
    """After its hour, and after the plan was edited, a phrase permits nothing."""
    place = bench()
    rollout = prepared(place)
    event = confirmed(place, rollout)
    late = Confirmed(event.ts + 2 * 3_600 * NS_PER_S, event.phrase, "demo")
    with pytest.raises(ConfirmationError, match="expired"):
        check_confirmation(rollout.plan, rollout.state, late)
    edited = msgspec.structs.replace(rollout.plan, rate_per_s=2.0)
    rollout.apply(DigestsSeen(event.ts, edited.digest, edited.model))
    with pytest.raises(ConfirmationError):
        check_confirmation(rollout.plan, rollout.state, event)
    assert rollout.state.stage is Stage.DRAFT


def test_a_running_canary_whose_plan_is_edited_ends() -> None:
    """What was confirmed is not what would run: the share is 0 at once."""
    place = bench()
    rollout = prepared(place)
    rollout.apply(confirmed(place, rollout))
    assert rollout.state.share_percent == 5
    rollout.apply(DigestsSeen(place.start_ns + 1, "0" * 64, rollout.plan.model))
    assert (rollout.state.stage, rollout.state.share_percent) == (Stage.ABORTED, 0)


def test_preflight_refuses_what_is_not_proven() -> None:
    """Stale data, or a model without a smoke test, ends in DRAFT with the reason in the record."""
    place = bench()
    rollout = place.opened()
    stale = place.start_ns - 86_400 * NS_PER_S
    record = preflight(rollout, now_ns=place.start_ns, newest_ns=stale, provenance=Provenance.SYNTHETIC)
    checks = {check["name"]: check["verdict"] for check in record.body["figures"]["checks"]}
    assert (checks["fresh_data"], checks["engine_health"], rollout.state.stage) == ("FAIL", "PASS", Stage.DRAFT)
    other = make_plan(place.sources, place.model, shipped_policy("default"), name="other")
    bare = replace(place, sources=place.sources)
    bare.ledger._records = [r for r in bare.ledger._records if r.kind != "smoke_1k"]
    with pytest.raises(BlockedError, match="latencies"):
        _ = bare.recording
    assert other.digest != rollout.plan.digest


def test_an_edited_canary_figure_is_found() -> None:
    """A count changed in the events, in a chain that was hashed anew, differs from what the recording gives."""
    place = bench()
    ran(place, prepared(place))
    records, prev = place.ledger._records, ""
    target = next(i for i, r in enumerate(records) if r.kind == "rollout_event" and i > len(records) // 2)
    body = msgspec.json.decode(msgspec.json.encode(records[target].body))
    body["inputs"]["event"]["measurements"][0]["n"] += 1
    for i in range(target, len(records)):
        r = records[i]
        body = body if i == target else r.body
        records[i] = seal(r.seq, r.ts, r.kind, r.subject, r.provenance, body, prev or r.prev)
        prev = records[i].hash
    assert verify(place.ledger, place.sources).findings


def test_a_canary_figure_edited_alone_is_named() -> None:
    """A rate that was polished in canary_run is named by its path."""
    place = bench()
    ran(place, prepared(place))
    records = place.ledger._records
    at = next(i for i, r in enumerate(records) if r.kind == "canary_run")
    body = msgspec.json.decode(msgspec.json.encode(records[at].body))
    body["figures"]["phases"][0]["counts"]["errors"]["n"] += 50
    r = records[at]
    records[at] = seal(r.seq, r.ts, r.kind, r.subject, r.provenance, body, r.prev)
    places = [finding.place for finding in verify(place.ledger, place.sources).findings]
    assert any("figures.phases[0].counts.errors.n" in text for text in places)


def test_a_spread_policy_keeps_its_thresholds() -> None:
    """Spreading changes durations and polls only."""
    policy = shipped_policy("seed-v1.8")
    wide = spread(policy, 86_400)
    assert wide.criteria == policy.criteria
    assert wide.canary.phase_s * 5 <= 86_400
    assert spread(policy, 600).canary.phase_s == policy.canary.phase_s
