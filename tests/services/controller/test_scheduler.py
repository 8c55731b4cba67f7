"""Jobs under a virtual clock: every slot once, whatever restarts, races and failures come between."""

from __future__ import annotations

import copy
import random
from collections import Counter

import pytest
from watch import MONDAY, desk, logged

from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_S, VirtualClock, parse_utc
from probatum.core.errors import DataError, OvertakenError, StorageError
from probatum.core.verdict import Provenance
from probatum.pipeline import jobs
from probatum.pipeline.jobs import DONE, FAILED, GRACE_NS, JOBS, KIND, Book, Place
from probatum.pipeline.ports import Record
from probatum.pipeline.verify import verify
from probatum.services.controller.scheduler import ATTEMPTS, Scheduler
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry
from probatum.testing.fakes import MemoryDecisions, MemoryLeadership, MemoryLedger


class Desk:
    """Sources, a log of decisions, a clock, and controllers that come and go on one ledger."""

    def __init__(self, days: int = 1, per_hour: int = 12) -> None:
        self.clock = VirtualClock(MONDAY)
        self.sources = desk(self.clock)
        self.log = MemoryDecisions(logged(MONDAY, days * 24, per_hour=per_hour))
        self.told: list[Record] = []

    def scheduler(self, name: str = "one", registry: Registry | None = None) -> tuple[Scheduler, MemoryLeadership]:
        leadership = MemoryLeadership(self.sources.ledger, name)
        place = Place(self.sources, self.log)
        return Scheduler(
            place, leadership.lead, self.clock, registry or Registry(), lambda found: self.told.extend(found)
        ), leadership

    def runs(self, outcome: str = DONE) -> list[tuple[str, str]]:
        told = (record.body["inputs"] for record in self.sources.ledger.records(kind=KIND))
        return [(item["job"], item["slot"]) for item in told if item["outcome"] == outcome]


def test_eight_days_give_every_report_once() -> None:
    """Eight days with restarts, downtime and two controllers: 8 daily reports, 192 snapshots, one weekly summary, in order."""
    desk, rng = Desk(days=8), random.Random(7)
    pair = [desk.scheduler("a"), desk.scheduler("b")]
    while desk.clock.now_ns() < MONDAY + 8 * NS_PER_DAY + GRACE_NS:
        for scheduler, _ in rng.sample(pair, 2):
            scheduler.step()
        if rng.random() < 0.2:  # one dies and another takes over; now and then all are away for a while
            place = rng.randrange(2)
            pair[place][1].resign()
            pair[place] = desk.scheduler(f"c{rng.random()}")
        away = rng.random() < 0.05
        step = rng.randrange(2, 30) * NS_PER_HOUR if away else rng.randrange(600, 2_400) * NS_PER_S
        desk.clock.advance(min(step, MONDAY + 8 * NS_PER_DAY + GRACE_NS - desk.clock.now_ns()))
    for scheduler, _ in pair:
        scheduler.step()
    counts = Counter(record.kind for record in desk.sources.ledger.records())
    assert {k: counts[k] for k in ("daily_report", "psi_snapshot", "weekly_summary", "match_report")} == {
        "daily_report": 8,
        "psi_snapshot": 192,
        "weekly_summary": 1,
        "match_report": 8,
    }
    runs = desk.runs()
    assert len(runs) == len(set(runs)) == 192 + 3 * 8 + 2
    for name in JOBS:
        slots = [parse_utc(slot) for job, slot in runs if job == name]
        assert slots == list(JOBS[name].schedule.slots(MONDAY, MONDAY + 8 * NS_PER_DAY))
    days = [r.body["figures"] for r in desk.sources.ledger.records(kind="daily_report")]
    assert [day["date"] for day in days] == [f"2026-03-{n:02d}" for n in range(2, 10)]
    assert [day["total_predictions"] for day in days] == [12 * 24] * 8
    week = next(desk.sources.ledger.records(kind="weekly_summary")).body["figures"]
    assert [day["date"] for day in week["days"]] == [f"2026-03-{n:02d}" for n in range(2, 8)]


def test_the_evidence_of_jobs_is_recomputed() -> None:
    """Every figure of a day's jobs follows from the stored pieces; a count that was typed in, and a class or subject that
    the rows do not bear out, are found with their path."""
    desk = Desk()
    scheduler, _ = desk.scheduler()
    scheduler.step()
    desk.clock.advance(NS_PER_DAY + GRACE_NS)
    scheduler.step()
    ledger = desk.sources.ledger
    assert verify(ledger, desk.sources).findings == ()
    forged = MemoryLedger(desk.clock)
    for record in ledger.records():
        body, subject, classed = copy.deepcopy(record.body), record.subject, record.provenance
        if record.kind == "daily_report":
            body["figures"]["hours"][3]["model_errors"] += 1
        if record.kind in ("match_report", "psi_snapshot"):
            classed = Provenance.LIVE
        if record.kind == "match_report":
            subject = "another"
        forged.append(record.kind, subject, classed, body)
    places = [finding.place for finding in verify(forged, desk.sources).findings]
    assert [place for place in places if place.endswith("figures.hours[3].model_errors")]
    assert len([place for place in places if "(psi_snapshot), provenance" in place]) == 24
    assert len([place for place in places if "(match_report), " in place]) == 2


def test_two_who_race_for_a_slot() -> None:
    """Of two that looked at the same ledger the second is refused, and nothing of its evidence stays."""
    desk = Desk()
    places = [Place(desk.sources, desk.log) for _ in range(2)]
    books = [Book(desk.sources.ledger) for _ in range(2)]
    for book in books:
        book.refresh()
    books[0].register(desk.clock.now_ns())
    books[1].refresh()
    job, slot = JOBS["psi_snapshot"], MONDAY + NS_PER_HOUR
    books[0].run(places[0], job, slot)
    with pytest.raises(OvertakenError):
        books[1].run(places[1], job, slot)
    assert len(list(desk.sources.ledger.records(kind="psi_snapshot"))) == 1


@pytest.mark.parametrize("successor_is_quick", [True, False])
def test_a_deposed_controller_records_nothing(successor_is_quick: bool) -> None:
    """What was begun while leading and finished afterwards is refused, whether or not the successor has done the slot yet."""
    desk = Desk()
    first, lead = desk.scheduler("a")
    first.step()
    desk.clock.advance(NS_PER_HOUR + GRACE_NS)
    second, lead_of_second = desk.scheduler("b")
    cut = first._place.hours.cut

    def slow(start_ns: int, end_ns: int) -> list[dict[str, str]]:
        lead.resign()
        if successor_is_quick:
            second.step()
        else:
            lead_of_second.lead()
        return cut(start_ns, end_ns)

    first._place.hours.cut = slow  # type: ignore[method-assign]
    first._epoch = lambda: 1
    first.step()
    assert desk.runs() == [("psi_snapshot", "2026-03-02T01:00:00Z")] * successor_is_quick
    second.step()
    assert desk.runs() == [("psi_snapshot", "2026-03-02T01:00:00Z")]
    assert len(list(desk.sources.ledger.records(kind="psi_snapshot"))) == 1


class Broken:
    """A log that cannot be read while ``problem`` says so."""

    def __init__(self, log: MemoryDecisions) -> None:
        self.log, self.problem = log, Exception()

    def read(self, start_ns: int, end_ns: int) -> object:
        if isinstance(self.problem, DataError | ZeroDivisionError | StorageError):
            raise self.problem
        return self.log.read(start_ns, end_ns)


@pytest.mark.parametrize("problem", [DataError("torn", file="x.parquet"), ZeroDivisionError()])
def test_a_failing_job_blocks_no_other(problem: Exception) -> None:
    """It is counted, waits longer each time, and the others run; when its cause is gone the slot is done."""
    desk, registry = Desk(days=2), Registry()
    desk.log = broken = Broken(desk.log)  # type: ignore[assignment]
    broken.problem = problem
    scheduler, _ = desk.scheduler(registry=registry)
    scheduler.step()
    desk.clock.advance(NS_PER_DAY + GRACE_NS)
    for _ in range(3):
        scheduler.step()
    assert desk.runs() == [("drill_reminder", "2026-03-03T00:00:00Z")]
    assert registry.value(metrics.JOB_RUNS, "psi_snapshot", FAILED) == 1  # the later looks came too soon
    broken.problem = Exception()
    desk.clock.advance(10 * NS_PER_S)
    scheduler.step()
    assert Counter(job for job, _ in desk.runs()) == {
        "psi_snapshot": 24, "daily_report": 1, "match_report": 1, "drill_reminder": 1,
    }  # fmt: skip
    assert registry.value(metrics.JOB_LAST, "psi_snapshot") == desk.clock.now_ns() / NS_PER_S
    assert registry.value(metrics.JOB_LAST, "weekly_summary") != registry.value(metrics.JOB_LAST, "psi_snapshot")


def test_a_slot_that_never_succeeds_is_given_up() -> None:
    """After the last attempt the slot is recorded as failed, with its reason, people are told, and the next one runs."""
    desk = Desk()
    desk.log = broken = Broken(desk.log)  # type: ignore[assignment]
    broken.problem = DataError("torn", file="x.parquet")
    scheduler, _ = desk.scheduler()
    scheduler.step()
    desk.clock.advance(NS_PER_HOUR + GRACE_NS)
    for _ in range(ATTEMPTS):
        assert desk.runs(FAILED) == []
        scheduler.step()
        desk.clock.advance(700 * NS_PER_S)
    assert desk.runs(FAILED) == [("psi_snapshot", "2026-03-02T01:00:00Z")]
    assert [text for text in jobs.alarms(desk.told) if "gave up" in text] == [
        "job psi_snapshot gave up slot 2026-03-02T01:00:00Z: x.parquet: torn"
    ]
    broken.problem = Exception()
    scheduler.step()
    assert desk.runs()[0] == ("psi_snapshot", "2026-03-02T02:00:00Z")


def test_storage_that_is_away_costs_no_slot() -> None:
    """While the database refuses, or the log's disk, no slot is given up, and a job that needs neither goes on."""
    desk = Desk()
    desk.log = broken = Broken(desk.log)  # type: ignore[assignment]
    scheduler, _ = desk.scheduler()
    scheduler.step()
    desk.clock.advance(NS_PER_DAY + GRACE_NS)
    broken.problem = StorageError("disk gone")
    append = desk.sources.ledger.append_all
    scheduler.step()
    assert desk.runs() == [("drill_reminder", "2026-03-03T00:00:00Z")]

    def refuse(*_: object, **__: object) -> tuple[Record, ...]:
        raise StorageError("disk full")

    desk.sources.ledger.append_all = refuse  # type: ignore[method-assign]
    broken.problem = Exception()
    for _ in range(2 * ATTEMPTS):
        desk.clock.advance(NS_PER_HOUR)
        scheduler.step()
    desk.sources.ledger.append_all = append  # type: ignore[method-assign]
    desk.clock.advance(NS_PER_HOUR)
    scheduler.step()
    assert Counter(job for job, _ in desk.runs())["psi_snapshot"] == 24 + 2 * ATTEMPTS + 1
    assert desk.runs(FAILED) == []


def test_who_waits_does_nothing() -> None:
    """A controller that does not lead registers and runs nothing."""
    desk = Desk()
    leader, _ = desk.scheduler("a")
    waiting, _ = desk.scheduler("b")
    leader.step()
    desk.clock.advance(NS_PER_DAY)
    before = desk.sources.ledger.head()
    waiting.step()
    assert desk.sources.ledger.head() == before


def test_what_follows_a_job_cannot_undo_it(caplog: pytest.LogCaptureFixture) -> None:
    """An export or a notification that fails is logged; the slot stays done and the next one runs."""
    desk = Desk()

    def fails(_: object) -> None:
        raise StorageError("no room")

    leadership = MemoryLeadership(desk.sources.ledger, "a")
    scheduler = Scheduler(Place(desk.sources, desk.log), leadership.lead, desk.clock, Registry(), fails)
    scheduler.step()
    desk.clock.advance(2 * NS_PER_HOUR + GRACE_NS)
    scheduler.step()
    assert len(desk.runs()) == 2
    assert "no room" in caplog.text
