"""Prepare a canary, rehearse it, run it over a recording, and turn what happened into evidence.

Figures of ``canary_dryrun_observe`` and ``canary_run`` are the replay of events: integer counts first, then what follows from
them. For a recorded run every count is taken again from the recording; for a live one the events hold query and raw values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from probatum.core.clock import NS_PER_S, format_utc, parse_utc, utc_day
from probatum.core.errors import BlockedError, IntegrityError
from probatum.core.verdict import Provenance, Verdict
from probatum.features.labels import parse_target
from probatum.market.dataset import Dataset
from probatum.monitoring.shadow import Outcome, ShadowCounts
from probatum.pipeline.alerts import BLOB, not_enforced, summarise
from probatum.pipeline.evidence import prove
from probatum.pipeline.ports import Ledger, Sources
from probatum.pipeline.ports import Record as LedgerRecord
from probatum.pipeline.registry import CHAMPION, aliases, load_artifact
from probatum.pipeline.replay import (
    Recording,
    Tape,
    TapeFeed,
    read_tape,
    rehearse,
    set_shares,
    source_of,
    step_of,
    walk,
)
from probatum.pipeline.rollout import Effects, Rollout, accept, history, read_plan
from probatum.rollout.bounds import clopper_pearson, sequence_upper
from probatum.rollout.choose import Mode
from probatum.rollout.criteria import Check
from probatum.rollout.eprocess import n_needed
from probatum.rollout.events import Confirmed, DryRunDone, Event, Observed, Paused, PreflightDone, Record
from probatum.rollout.machine import TERMINAL, Stage, State, Step, judge
from probatum.rollout.measurement import RateCheck
from probatum.rollout.plan import Ladder, Plan, Policy, describe, forecast

PREFLIGHT, DRY_RUN, RUN = "canary_preflight", "canary_dryrun_observe", "canary_run"
POINTS = 120
AROUND = 10
PREFLIGHT_PROOFS = {
    "offline_gate": ("offline_report", "an offline gate that passes"),
    "engine_health": ("smoke_1k", "`probatum smoke` on an engine that serves this model"),
    "drift": ("psi_snapshot", "a drift snapshot that passes"),
}
"""Which record proves what before a canary starts. The smoke test's metrics are the baseline to compare with later."""

_DONE = frozenset({Stage.COMPLETED, Stage.VALIDATING, Stage.VALIDATED, Stage.PROMOTED})


def make_plan(
    sources: Sources,
    model: str,
    policy: Policy,
    *,
    name: str = "",
    rate_per_s: float = 1.0,
    units: int | None = None,
) -> Plan:
    """Return the plan for a model (digest): a canary, or with ``units`` an exposure, against the champion there is."""
    artifact = load_artifact(sources, model)
    champion = aliases(sources.ledger.records(kind="alias")).get(CHAMPION)
    champion = None if champion == model else champion
    return Plan(
        name=name or (f"{artifact.name}-exposure" if units else f"{artifact.name}-canary"),
        mode=Mode.GATED if units else Mode.OBSERVE,
        policy=policy,
        model=model,
        champion=champion,
        same_target=champion is not None and load_artifact(sources, champion).target == artifact.target,
        rate_per_s=rate_per_s,
        units=units,
    )


def spread(policy: Policy, window_s: int) -> Policy:
    """Return the policy with canary phases that fill nine tenths of a recording; the rest is room for a slow phase.

    Polls are spread likewise, for a day in seconds of virtual time needs no more looks than two hours do.
    """
    ladder = policy.canary
    phase_s = max(ladder.phase_s, int(0.9 * window_s) // len(ladder.shares_percent))
    poll_s = max(ladder.poll_s, phase_s // POINTS)
    stale_s = max(ladder.stale_s, poll_s)
    wide: Ladder = msgspec.structs.replace(
        ladder,
        phase_s=phase_s - phase_s % 60 or phase_s,
        poll_s=poll_s,
        stale_s=stale_s,
        source_deadline_s=max(ladder.source_deadline_s, 5 * stale_s),
    )
    return msgspec.structs.replace(policy, canary=wide)


def record_of(sources: Sources, model: str, dataset: Dataset, start_ns: int, end_ns: int) -> Recording:
    """Return a recording of a dataset with the latencies of the model's newest smoke test; BlockedError without one.

    It begins with its first event: a night before the first session is no time under observation.
    """
    smoke = _newest(sources.ledger, "smoke_1k", model)
    if smoke is None:
        raise BlockedError(
            "no measured latencies to replay: run `probatum smoke` on an engine that serves this model first"
        )
    ts, step_ns = dataset.frames[dataset.spine]["ts_event"], step_of(dataset)
    first = int(ts[min(int(ts.search_sorted(start_ns, side="right")), len(ts) - 1)])
    start_ns = max(start_ns, first - first % step_ns - step_ns)
    return Recording(
        symbol=dataset.symbol,
        dataset=dataset.sha256,
        start=format_utc(start_ns),
        end=format_utc(end_ns),
        requests=smoke.body["inputs"]["requests"],
        smoke=smoke.hash,
    )


def open_s(dataset: Dataset, start_ns: int, end_ns: int) -> int:
    """Return the seconds between two times at which the dataset's market is open."""
    spans = dataset.calendar.sessions(utc_day(start_ns), utc_day(end_ns))
    return sum(max(0, min(end, end_ns) - max(start, start_ns)) for start, end in spans) // NS_PER_S


def rate_of(dataset: Dataset) -> float:
    """Return the decisions per second of a recording."""
    return NS_PER_S / step_of(dataset)


# --- preflight ------------------------------------------------------------------------------------------------------


def preflight(rollout: Rollout, *, now_ns: int, newest_ns: int | None, provenance: Provenance) -> LedgerRecord:
    """Append ``canary_preflight`` and the event that it is done.

    ``newest_ns`` is the time of the newest market data behind a decision (None: there is none), of class ``provenance``.
    """
    ledger, sources, plan = rollout.ledger, rollout.sources, rollout.plan
    proofs = {kind: _newest(ledger, kind, plan.model) for kind, _ in PREFLIGHT_PROOFS.values()}
    inputs = {
        "rollout": rollout.name,
        "rollout_plan": plan.digest,
        "artifact": plan.model,
        "proofs": {kind: record.hash for kind, record in proofs.items() if record},
        "now": format_utc(now_ns),
        "newest": None if newest_ns is None else format_utc(newest_ns),
    }
    classes = [provenance, *(record.provenance for record in proofs.values() if record)]
    record = prove(
        ledger,
        sources,
        kind=PREFLIGHT,
        subject=_subject(rollout),
        provenance=Provenance.weakest(classes),
        inputs=inputs,
        derive=preflight_figures,
    )
    verdict = Verdict(record.body["figures"]["verdict"])
    accept(rollout.apply(PreflightDone(now_ns, verdict, record.hash, record.provenance)))
    return record


def preflight_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute the checks before a start from the records that prove them, and what each phase will need."""
    plan = read_plan(sources, inputs["rollout_plan"])
    checks = list(_proof_checks(inputs["proofs"], plan.model, sources.ledger))
    checks += [_fresh(plan, inputs["now"], inputs["newest"]), _reachable(plan)]
    verdict = Verdict.worst(check.verdict for check in checks)
    return {"verdict": verdict, "checks": msgspec.to_builtins(checks), **describe(plan)}


def _proof_checks(proofs: Mapping[str, str], model: str, ledger: Ledger) -> Iterator[Check]:
    for name, (kind, settle) in PREFLIGHT_PROOFS.items():
        record = next((r for r in ledger.records(kind=kind) if r.hash == proofs.get(kind)), None)
        if record is None or record.body["inputs"].get("artifact") != model:
            yield _check(name, Verdict.ERROR, "not measured", settle)
            continue
        verdict = Verdict(record.body["figures"]["verdict"])
        yield _check(name, verdict, f"record {record.seq} is {verdict.value}", settle)
    measured = Verdict.PASS if "smoke_1k" in proofs else Verdict.ERROR
    yield _check("metrics_baseline", measured, "no metrics to compare with", PREFLIGHT_PROOFS["engine_health"][1])


def _fresh(plan: Plan, now: str, newest: str | None) -> Check:
    limit_s = plan.stale_ns(0) / NS_PER_S
    age_s = None if newest is None else (parse_utc(now) - parse_utc(newest)) / NS_PER_S
    verdict = Verdict.ERROR if age_s is None else Verdict.PASS if 0 <= age_s <= limit_s else Verdict.FAIL
    reason = "no market data" if age_s is None else f"the newest market data are {age_s:,.0f} s old"
    return _check("fresh_data", verdict, reason, "a feed that runs", value=age_s, bound=limit_s)


def _reachable(plan: Plan) -> Check:
    late = [phase for phase in forecast(plan) if phase.planned_s > phase.max_s]
    reason = "; ".join(f"{phase.share_percent} % needs {phase.planned_s} s, holds at {phase.max_s} s" for phase in late)
    return _check("reachable", Verdict.FAIL if late else Verdict.PASS, reason, "longer phases or larger shares")


def _check(
    name: str, verdict: Verdict, reason: str, settle: str, *, value: float | None = None, bound: float = 1.0
) -> Check:
    passed = verdict is Verdict.PASS
    value = float(passed) if value is None and verdict is not Verdict.ERROR else value
    said = ("", "") if passed else (reason, settle)
    return Check(name, value, bound, value, value, 1, verdict, True, *said)


# --- dry-run and replayed run -----------------------------------------------------------------------------------------


def dry_run(rollout: Rollout, recording: Recording, *, now_ns: int) -> LedgerRecord:
    """Run the whole plan over a recording in memory, append ``canary_dryrun_observe`` and the event that it is done."""
    plan = rollout.plan
    inputs = {
        "rollout": rollout.name,
        "rollout_plan": plan.digest,
        "artifact": plan.model,
        "recording": msgspec.to_builtins(recording),
    }
    dataset = rollout.sources.datasets.load(recording.symbol, recording.dataset)
    record = prove(
        rollout.ledger,
        rollout.sources,
        kind=DRY_RUN,
        subject=_subject(rollout),
        provenance=Provenance.weakest([dataset.provenance, Provenance.REPLAY]),
        inputs=inputs,
        derive=dry_run_figures,
    )
    verdict = Verdict(record.body["figures"]["verdict"])
    accept(rollout.apply(DryRunDone(now_ns, verdict, record.hash, plan.digest, now_ns)))
    return record


def dry_run_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute a dry-run from the recording: the machine runs anew."""
    plan = read_plan(sources, inputs["rollout_plan"])
    recording = msgspec.convert(inputs["recording"], Recording)
    feed = TapeFeed(read_tape(sources, plan.model, recording), plan, source_of(recording))
    return _run_figures(plan, rehearse(plan, feed, *recording.span), feed)


def replay_run(rollout: Rollout, recording: Recording, tape: Tape, confirmed: Confirmed, handler: Effects) -> State:
    """Confirm a rollout and run it over a recording's tape under a virtual clock; every event enters the ledger.

    Where the recording ends first, the rollout pauses: nothing more can be observed.
    """
    feed = TapeFeed(tape, rollout.plan, source_of(recording))
    start_ns, end_ns = recording.span
    state, _ = walk(
        feed, accept(rollout.apply(confirmed)), lambda event: rollout.apply(event, handler), start_ns, end_ns
    )
    if state.stage is Stage.RUNNING:
        state, _ = rollout.apply(Paused(end_ns, "the replay", "the recording ended"), handler)
    return state


# --- the run's evidence -----------------------------------------------------------------------------------------------


def prove_run(
    rollout: Rollout,
    effect: Record | None = None,
    *,
    recording: Recording | None = None,
    tape: Tape | None = None,
    beside: Callable[[], dict[str, Any]] | None = None,
) -> LedgerRecord | None:
    """Append ``canary_run`` (of a validation ``validation``) for the events so far, once for the newest event.

    Phases and holds are in the events themselves. ``beside`` looks up what else a live run rests on
    (:func:`probatum.pipeline.beside.look_beside`); ``tape`` is that of the ``recording``, where it is at hand.
    """
    kind = "validation" if effect is not None and effect.kind == "validation" else RUN
    if rollout.head is None or (effect is not None and effect.kind in ("phase", "hold", "promotion")):
        return None  # the events themselves hold what these would say
    inputs = {
        "rollout": rollout.name,
        "artifact": rollout.plan.model,
        "last": rollout.head.hash,
        "recording": None if recording is None else msgspec.to_builtins(recording),
    }
    for record in rollout.ledger.records(kind=kind, subject=_subject(rollout)):
        if record.body["inputs"]["last"] == rollout.head.hash:
            return record
    inputs |= beside() if beside is not None else {}
    return prove(
        rollout.ledger,
        rollout.sources,
        kind=kind,
        subject=_subject(rollout),
        provenance=rollout.provenance,
        inputs=inputs,
        derive=lambda given, sources: run_figures(given, sources, tape),
    )


def run_figures(inputs: dict[str, Any], sources: Sources, tape: Tape | None = None) -> dict[str, Any]:
    """Recompute a run from its events; where it was a replay, take every count again from the recording.

    Raises IntegrityError naming the first record whose counts are not what the recording gives.
    """
    told = list(history(sources.ledger, sources, inputs["rollout"], inputs["last"]))
    plan, steps = told[0][1], [(event, step) for _, _, event, step in told]
    feed = None
    if inputs["recording"] is not None:
        recording = msgspec.convert(inputs["recording"], Recording)
        feed = TapeFeed(tape or read_tape(sources, plan.model, recording), plan, source_of(recording))
        for record, _, event, step in told:
            if isinstance(event, Observed) and event.measurements != feed.read(event.ts):
                raise IntegrityError(f"record {record.seq} ({record.kind})", "counts that the recording does not give")
            set_shares(feed, step, event.ts)
    return _run_figures(plan, steps, feed, inputs.get("around", ())) | _beside(plan, steps[-1][1][0], inputs, sources)


def _beside(plan: Plan, state: State, inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Return the figures that a live run takes from what stood beside it: the decision log, and Prometheus' alerts."""
    found: dict[str, Any] = {}
    if "counts" in inputs:
        counts = ShadowCounts()
        counts.merge(msgspec.json.decode(sources.blobs.get("counts", inputs["counts"])))
        counted = max((stream.n for stream in state.streams.values()), default=0)
        found["against_baseline"] = {**_against(counts), "counted_by_metrics": counted}
    if BLOB in inputs:
        found["alerts"] = summarise(sources, inputs[BLOB], not_enforced(plan))
    return {name: rounded(value) for name, value in found.items()}


def _run_figures(
    plan: Plan, steps: Sequence[tuple[Event, Step]], feed: TapeFeed | None, around: Sequence[Any] = ()
) -> dict[str, Any]:
    last_event, (state, effects) = steps[-1]
    if feed is not None:
        around = feed.around(last_event.ts, AROUND)
    checks = [*judge(plan, state).checks, _completed(plan, state)]
    found = {
        "verdict": Verdict.worst(check.verdict for check in checks if check.enforced),
        "checks": msgspec.to_builtins(checks),
        "provenance": state.provenance.value if state.provenance else None,
        "stage": state.stage.value,
        "reason": state.reason,
        "attempt": state.attempt,
        "approver": state.approver,
        "started": format_utc(state.started_ts),
        "ended": format_utc(last_event.ts),
        "duration_s": (last_event.ts - state.started_ts) / NS_PER_S if state.started_ts else 0.0,
        "validation_s": state.elapsed_ns / NS_PER_S if state.stage in (Stage.VALIDATING, Stage.VALIDATED) else 0.0,
        **_samples(steps),
        "phases": list(_phases(plan, steps)),
        "against_baseline": _against(feed.counts(last_event.ts)) | feed.hits(last_event.ts) if feed else None,
        "root_cause": _root_cause(state, effects, steps, around) if state.stage in TERMINAL else None,
        "series": _series(plan, steps),
        "plan": describe(plan),
    }
    return {name: rounded(value) for name, value in found.items()}


def _completed(plan: Plan, state: State) -> RateCheck:
    """Say whether every phase was passed: the check that an ended or interrupted run cannot pass."""
    steps = len(plan.ladder.shares_percent)
    done = steps if state.stage in _DONE else max(state.phase, 0)
    verdict = Verdict.PASS if state.stage in _DONE else Verdict.INCONCLUSIVE
    verdict = Verdict.FAIL if state.stage in TERMINAL else verdict
    reason, settle = ("", "") if verdict is Verdict.PASS else (state.reason or state.stage.value, "a run to its end")
    return RateCheck(
        "completed", done / steps, 1.0, done / steps, done / steps, steps, steps - done, verdict, True, reason, settle
    )


def _samples(steps: Sequence[tuple[Event, Step]]) -> dict[str, Any]:
    """Return first and last sample, and the newest read of each measure with its query and raw values."""
    read = next((e.measurements for e, _ in reversed(steps) if isinstance(e, Observed) and e.measurements), ())
    firsts, lasts = [m.first_ts for m in read if m.first_ts], [m.last_ts for m in read if m.last_ts]
    return {
        "first_sample": format_utc(min(firsts)) if firsts else None,
        "last_sample": format_utc(max(lasts)) if lasts else None,
        "reads": sum(isinstance(event, Observed) for event, _ in steps),
        "measurements": {
            m.measure: {"n": m.n, "bad": m.bad, "source": m.source, "query": m.query, "raw": m.raw} for m in read
        },
    }


def _phases(plan: Plan, steps: Sequence[tuple[Event, Step]]) -> Iterator[dict[str, Any]]:
    """Yield for each phase that began: when, how long, and the counts of its own segment with Clopper-Pearson bounds."""
    state = steps[-1][1][0]
    began: dict[int, int] = {}
    for event, (after, _) in steps:
        if after.phase >= 0:
            began.setdefault(after.phase, event.ts)
    for index, percent in enumerate(plan.ladder.shares_percent[: len(began)]):
        end = began.get(index + 1, steps[-1][0].ts)
        counts = {name: s.segments[index] for name, s in state.streams.items() if index < len(s.segments)}
        yield {
            "share_percent": percent,
            "start": format_utc(began[index]),
            "end": format_utc(end),
            "duration_s": (end - began[index]) / NS_PER_S,
            "counts": {name: _rate(n, bad) for name, (n, bad) in counts.items()},
        }


def _rate(n: int, bad: int) -> dict[str, Any]:
    if not n:
        return {"n": 0, "bad": 0, "rate": None}
    lower, upper = clopper_pearson(n, bad)
    return {"n": n, "bad": bad, "rate": bad / n, "lower": lower, "upper": upper}


def _against(counts: ShadowCounts) -> dict[str, Any]:
    """Return the canary beside the baseline: how often they agree, and how long the canary took."""
    ok, sketch = counts.outcomes[Outcome.OK], counts.shadow_latency
    return {
        "attempts": counts.attempts,
        "ok": ok,
        "failures": counts.failures,
        "matches": counts.matches,
        "agreements": counts.agreements,
        "match_rate": counts.match_rate,
        "agreement_rate": counts.agreements / ok if ok else None,
        "canary_latency_ms": {f"p{q}": sketch.quantile_ms(q / 100) for q in (50, 95, 99)} if sketch.count else None,
    }


def _root_cause(
    state: State, effects: Sequence[Any], steps: Sequence[tuple[Event, Step]], around: Sequence[Any]
) -> dict[str, Any]:
    """Return what ended a run: the reason, the checks that fired, the reads before, and the bad decisions around it."""
    fired = [check for effect in effects if isinstance(effect, Record) for check in effect.checks if check.aborts]
    reads = [event for event, _ in steps if isinstance(event, Observed)][-3:]
    before = steps[-2][1][0] if len(steps) > 1 else state
    return {
        "reason": state.reason,
        "share_percent": before.share_percent,
        "fired": [
            {name: getattr(c, name) for name in ("name", "n", "bad", "value", "bound", "lower", "upper")} for c in fired
        ],
        "reads": [
            {"ts": format_utc(r.ts), "counts": {m.measure: {"n": m.n, "bad": m.bad} for m in r.measurements}}
            for r in reads
        ],
        "decisions": list(around),
    }


def _series(plan: Plan, steps: Sequence[tuple[Event, Step]]) -> dict[str, Any]:
    """Return what the pictures show: share over time, and each criterion's bound, upper end, n and n needed."""
    running = [(event.ts, step[0]) for event, step in steps if isinstance(event, Observed) and step[0].started_ts]
    points = (
        [running[i] for i in sorted({round(k * (len(running) - 1) / POINTS) for k in range(POINTS + 1)})]
        if running
        else []
    )
    alpha = plan.policy.alpha
    criteria: dict[str, Any] = {}
    for item in plan.criteria:
        rows = []
        for _, state in points:
            stream = state.streams.get(item.measure)
            n, bad = (stream.n, stream.bad) if stream else (0, 0)
            target = item.bound_at(plan.share_next(min(max(state.phase, 0), len(plan.ladder.shares_percent) - 1)))
            upper = sequence_upper(n, bad, alpha) if n else None
            rows.append(
                (n, upper, target or item.abort_bad, n_needed(bad, target, alpha) if target and bad < 200 else None)
            )
        criteria[item.name] = {
            key: [row[place] for row in rows] for place, key in enumerate(("n", "upper", "bound", "needed"))
        }
    return {
        "t_s": [(ts - state.started_ts) / NS_PER_S for ts, state in points],
        "share_percent": [state.share_percent for _, state in points],
        "criteria": criteria,
    }


def rounded(value: Any) -> Any:
    """Keep ten decimals of every float: sums may differ in the last bits between machines, and evidence may not."""
    if isinstance(value, float):
        return round(value, 10) + 0.0
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _subject(rollout: Rollout) -> str:
    """Return the name of the model that a rollout is about: evidence is filed under it."""
    return load_artifact(rollout.sources, rollout.plan.model).name


def _newest(ledger: Ledger, kind: str, model: str) -> LedgerRecord | None:
    """Return the newest record of a kind about a model (digest)."""
    return next(
        (r for r in reversed(list(ledger.records(kind=kind))) if r.body["inputs"].get("artifact") == model), None
    )


def window_of(sources: Sources, model: str, dataset: Dataset) -> tuple[int, int]:
    """Return the part of a dataset that a model was never trained on and whose outcomes are known (ns UTC)."""
    artifact = load_artifact(sources, model)
    end = int(dataset.frames[dataset.spine]["ts_event"][-1]) - parse_target(artifact.target).horizon_ns
    return parse_utc(artifact.split["test_start"]), end - end % step_of(dataset)
