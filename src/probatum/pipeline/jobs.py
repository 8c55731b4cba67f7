"""Run what is due by the clock, each slot exactly once: the slot's record is the claim, and its evidence goes with it.

A job computes entries; they and ``job_run`` enter the ledger in one transaction, which is refused where another has led or
done the slot since. So a crash leaves all of a slot or nothing of it, and of two who race one wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from probatum.core.clock import NS_PER_S, format_utc, parse_utc
from probatum.core.errors import ParameterError, UnknownNameError
from probatum.core.schedule import DAILY, HOURLY, WEEKLY, Schedule
from probatum.core.verdict import Provenance
from probatum.pipeline import live_drift, periodic
from probatum.pipeline.drift import KIND as DRIFT
from probatum.pipeline.hours import Hours
from probatum.pipeline.ports import Decisions, Entry, Ledger, Record, Sources
from probatum.pipeline.proposals import open_proposal, propose_on_drift
from probatum.pipeline.registry import CHAMPION, aliases
from probatum.rollout.policy import shipped_policy

KIND = "job_run"
DONE, FAILED, REGISTERED = "done", "failed", "registered"
OUTCOMES = (DONE, FAILED, REGISTERED)
RETRAIN = "retrain_schedule"
GRACE_NS = 10 * NS_PER_S
"""A slot is run this much later: decisions in flight have been logged by then."""


class Place:
    """Hold what jobs work on."""

    def __init__(self, sources: Sources, decisions: Decisions) -> None:
        self.sources, self.hours = sources, Hours(decisions, sources.blobs)

    @property
    def ledger(self) -> Ledger:
        """Return the ledger that holds the evidence."""
        return self.sources.ledger


class Job(msgspec.Struct, frozen=True):
    """Name what is done at each slot of a schedule. ``work`` returns entries and appends nothing."""

    name: str
    schedule: Schedule
    help: str
    work: Callable[[Place, int], list[Entry]]


def _psi(place: Place, slot_ns: int) -> list[Entry]:
    pieces = place.hours.cut(slot_ns - live_drift.SPAN_NS, slot_ns)
    models = [d for d in live_drift.models_at_work(place.ledger) if live_drift.has_bins(place.sources, d)]
    return [live_drift.live_snapshot(place.sources, digest, pieces, slot_ns) for digest in models]


def _report(kind: str) -> Callable[[Place, int], list[Entry]]:
    def work(place: Place, slot_ns: int) -> list[Entry]:
        span_ns = DAILY.period_ns if kind == periodic.DAILY else WEEKLY.period_ns
        return [periodic.REPORTS[kind](place.sources, place.hours.cut(slot_ns - span_ns, slot_ns), slot_ns)]

    return work


def _drill(place: Place, slot_ns: int) -> list[Entry]:
    age_max_s = shipped_policy("default").promotion.drill_age_max_s
    return [periodic.drill_reminder(place.sources, slot_ns, age_max_s)]


def _nothing(place: Place, slot_ns: int) -> list[Entry]:  # noqa: ARG001
    return []


def _ask(place: Place, records: Sequence[Record], slot_ns: int) -> None:
    """Open the retrain proposals that a slot asks for: of models that drifted, or, by the clock, of the champion."""
    champion = aliases(place.ledger.records(kind="alias")).get(CHAMPION)
    for record in records:
        if record.kind == DRIFT:
            propose_on_drift(place.ledger, place.sources, record, slot_ns)
        elif champion and record.subject == RETRAIN and record.body["inputs"]["outcome"] == DONE:
            open_proposal(
                place.ledger, place.sources, model=champion, trigger="schedule", evidence=record, now_ns=slot_ns
            )


# In the order in which those of one instant are run: a report shows the snapshot of its last hour.
JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        Job("psi_snapshot", HOURLY, "drift of seven days of logged decisions, for each model at work", _psi),
        Job("match_report", DAILY, "how often the model matched the baseline in seven days", _report(periodic.MATCH)),
        Job("daily_report", DAILY, "risks of the day that ended", _report(periodic.DAILY)),
        Job("drill_reminder", DAILY, "whether another drill is due", _drill),
        Job("weekly_summary", WEEKLY, "the week that ends", _report(periodic.WEEKLY)),
        Job(RETRAIN, WEEKLY, "a proposal to retrain the champion, where none stands", _nothing),
    )
}


def get_job(name: str) -> Job:
    """Return a job by name; UnknownNameError lists the known."""
    if name not in JOBS:
        raise UnknownNameError("job", name, JOBS)
    return JOBS[name]


class Kept(msgspec.Struct):
    """Hold of one job: all slots up to ``since_ns`` are settled, and those in ``settled`` beyond it."""

    since_ns: int
    seq: int
    ran: Record
    settled: set[int] = msgspec.field(default_factory=set)


class Book:
    """Follow ``job_run`` records and say what is due."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._seq = ledger, 0
        self.jobs: dict[str, Kept] = {}

    def refresh(self) -> None:
        """Follow what was appended since."""
        for record in self._ledger.records(kind=KIND, after=self._seq):
            self._seq = record.seq
            slot_ns = parse_utc(record.body["inputs"]["slot"])
            kept = self.jobs.setdefault(record.subject, Kept(slot_ns, 0, record))
            kept.settled.add(slot_ns)
            kept.seq, kept.ran = record.seq, record
        for name, kept in self.jobs.items():
            period_ns = JOBS[name].schedule.period_ns if name in JOBS else 0
            while period_ns and kept.since_ns + period_ns in kept.settled:
                kept.since_ns += period_ns
            kept.settled = {slot for slot in kept.settled if slot > kept.since_ns}

    def due(self, now_ns: int) -> list[tuple[int, Job]]:
        """Return (slot, job) of all that is due and not settled, by slot, then in the order of JOBS."""
        found = [(slot_ns, job) for job in JOBS.values() for slot_ns in self.open_slots(job, now_ns)]
        return sorted(found, key=lambda item: item[0])

    def open_slots(self, job: Job, now_ns: int) -> Iterator[int]:
        """Yield the job's slots that are due; none before it was registered."""
        if (kept := self.jobs.get(job.name)) is not None:
            yield from job.schedule.due(kept.since_ns, kept.settled, now_ns - GRACE_NS)

    def register(self, now_ns: int, *, epoch: int | None = None) -> None:
        """Let every job that no record names begin after ``now_ns``: what was before is nobody's to catch up with."""
        for job in JOBS.values():
            if job.name not in self.jobs:
                entry = slot_entry(job, job.schedule.newest(now_ns), REGISTERED)
                self._ledger.append_all([entry], epoch=epoch, seen=self._seq)
        self.refresh()

    def run(
        self, place: Place, job: Job, slot_ns: int, *, epoch: int | None = None, outcome: str = DONE, problem: str = ""
    ) -> tuple[Record, ...]:
        """Do a slot (or, with ``outcome`` failed, give it up) and append claim and evidence in one transaction.

        Then retrain proposals are opened where the evidence asks for them: what a crash leaves out the next slot makes up for.

        Raises OvertakenError, and appends nothing, where anybody recorded a slot of this job since the last refresh.
        """
        entries = job.work(place, slot_ns) if outcome == DONE else []
        claim = slot_entry(job, slot_ns, outcome, problem)
        records = self._ledger.append_all([claim, *entries], epoch=epoch, seen=self._seq)
        self.refresh()
        _ask(place, records, slot_ns)
        return records


def listing(book: Book, now_ns: int) -> list[dict[str, Any]]:
    """Return each job with its newest slot, how that ended, how many wait, and when the next is due, JSON-safe."""
    rows = []
    for job in JOBS.values():
        ran = book.jobs[job.name].ran.body["inputs"] if job.name in book.jobs else {}
        row = {"job": job.name, "schedule": job.schedule.name, "slot": ran.get("slot"), "outcome": ran.get("outcome")}
        upcoming = format_utc(job.schedule.newest(now_ns) + job.schedule.period_ns)
        rows.append({**row, "waiting": len(list(book.open_slots(job, now_ns))), "next": upcoming, "what": job.help})
    return rows


def slot_entry(job: Job, slot_ns: int, outcome: str, problem: str = "") -> Entry:
    """Return the claim of a slot: that it was run, given up, or is where the job begins."""
    inputs = {"job": job.name, "slot": format_utc(slot_ns), "outcome": outcome, "problem": problem[:500]}
    body = {"inputs": inputs, "figures": _slot_figures(inputs)}
    return Entry(KIND, job.name, Provenance.SYNTHETIC, body)


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:  # noqa: ARG001
    """Hold a claim to its job's schedule: a slot between two slots was never due."""
    return _slot_figures(inputs)


def _slot_figures(inputs: dict[str, Any]) -> dict[str, Any]:
    job, slot_ns = get_job(inputs["job"]), parse_utc(inputs["slot"])
    if job.schedule.newest(slot_ns) != slot_ns:
        raise ParameterError("slot", f"{job.schedule.name}: one of {job.schedule.calendar}", inputs["slot"])
    if inputs["outcome"] not in OUTCOMES:
        raise UnknownNameError("outcome", inputs["outcome"], OUTCOMES)
    return {"schedule": job.schedule.name}


def alarms(records: Sequence[Record]) -> Iterator[str]:
    """Yield what humans are told of a slot's records: a status of HIGH or CRITICAL, a drill that is due, a slot given up."""
    for record in records:
        found, inputs = record.body["figures"], record.body["inputs"]
        if found.get("overall_status") in ("HIGH", "CRITICAL"):
            risks = "; ".join(f"{risk['metric']} {risk['value']}: {risk['action']}" for risk in found["risks"])
            yield f"{record.kind} {inputs['end'][:10]}: {found['overall_status']}: {risks}"
        elif record.kind == periodic.DRILL and found["is_due"]:
            yield "another drill is due: probatum drill"
        elif record.kind == KIND and inputs["outcome"] == FAILED:
            yield f"job {inputs['job']} gave up slot {inputs['slot']}: {inputs['problem']}"
