"""Reports of a day and a week: their figures are those of the log, their risks proven, and no name is markup or formula."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import duckdb
import msgspec
import polars as pl
import pytest
from watch import MONDAY, desk, logged, model, put

from probatum.adapters.decisions import ParquetDecisions
from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, VirtualClock
from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance
from probatum.monitoring.shadow import DecisionRow
from probatum.pipeline import periodic
from probatum.pipeline.export import export
from probatum.pipeline.hours import COUNTS, Hours, read_hours, totals
from probatum.pipeline.jobs import JOBS, Book, Place, alarms
from probatum.pipeline.kinds import KINDS
from probatum.pipeline.periodic_page import periodic_html, periodic_markdown
from probatum.pipeline.ports import Record
from probatum.pipeline.registry import CHALLENGER, move_alias
from probatum.services.executor.run import measures_of
from probatum.testing.fakes import MemoryBlobs, MemoryDecisions, MemorySources

DAY_END = MONDAY + NS_PER_DAY


def report(frame: pl.DataFrame, *jobs: str) -> tuple[MemorySources, Record]:
    """Run jobs for the end of Monday over made-up decisions; return the sources and the last job's evidence."""
    clock = VirtualClock(DAY_END)
    sources = desk(clock)
    place, book = Place(sources, MemoryDecisions(frame)), Book(sources.ledger)
    for name in jobs or ("daily_report",):
        records = book.run(place, JOBS[name], DAY_END)
    return sources, records[-1]


def test_a_day_equals_an_independent_query(tmp_path: Path) -> None:
    """Counts, rates and hours of the daily report are those that DuckDB finds in the decision log's own Parquet."""
    put(tmp_path, logged(MONDAY - 5 * NS_PER_HOUR, 40, per_hour=120))
    sources = desk(VirtualClock(DAY_END))
    place = Place(sources, ParquetDecisions(tmp_path))
    Book(sources.ledger).run(place, JOBS["daily_report"], DAY_END)
    found = next(sources.ledger.records(kind="daily_report")).body["figures"]
    query = """
        SELECT count(*), count(*) FILTER (outcome IN ('ok', 'error', 'timeout', 'nan')),
          count(*) FILTER (outcome IN ('error', 'timeout', 'nan')), count(*) FILTER (outcome IN ('ok', 'timeout')),
          count(*) FILTER (outcome = 'timeout' OR shadow_ns > 80000000), count(*) FILTER (outcome <> 'skipped'),
          count(*) FILTER (outcome = 'ok' AND abs(baseline - challenger) < 0.05),
          count(*) FILTER (outcome = 'ok' AND abs(baseline - challenger) >= 0.05),
          count(*) FILTER (outcome NOT IN ('ok', 'skipped')), quantile_disc(shadow_ns, 0.95) FILTER (outcome = 'ok') / 1e6
        FROM read_parquet(?) WHERE ts >= ? AND ts < ?"""
    files = [str(path) for path in tmp_path.glob("*.parquet")]
    *counts, p95_ms = duckdb.execute(query, [files, MONDAY, DAY_END]).fetchone() or ()
    assert [found[name] for name in COUNTS] == counts
    assert min(counts) > 0
    assert found["error_rate"] == pytest.approx(counts[2] / counts[1], rel=1e-9)
    assert found["match_rate"] == pytest.approx(counts[6] / (counts[6] + counts[7]), rel=1e-9)
    assert found["latency_p95_ms"] == pytest.approx(p95_ms, rel=0.01)
    hourly = "SELECT count(*) FROM read_parquet(?) WHERE ts >= ? AND ts < ? GROUP BY ts // 3600000000000 ORDER BY ts // 3600000000000"
    assert [(h["total_predictions"],) for h in found["hours"]] == duckdb.execute(
        hourly, [files, MONDAY, DAY_END]
    ).fetchall()


def test_counts_are_those_that_executors_expose() -> None:
    """Decision by decision, gated ones too, the report counts the samples that a rollout is judged by."""
    outcomes = ("ok", "error", "timeout", "nan", "breaker_open", "shed", "skipped")
    rows = [
        DecisionRow(
            0, MONDAY + place, 0, "d", "", "X", "", [], 0.5, 900, champion_outcome=champion, champion=score,
            challenger=score, outcome=outcome, shadow_ns=late,
        )
        for place, (outcome, champion, score, late) in enumerate(
            (outcome, champion, score, late)
            for outcome in outcomes
            for champion in ("", "not_in_share", *outcomes[:5])
            for score in (0.52, 0.55, 0.7, None)
            for late in (None, 80_000_000, 80_000_001)
            if (score is not None or (outcome != "ok" and champion != "ok"))
        )
    ]  # fmt: skip
    frame = pl.DataFrame(
        [{n: getattr(row, n) for n in DecisionRow.__struct_fields__ if n != "features"} for row in rows],
        infer_schema_length=None,
    ).with_columns(fingerprint=pl.lit(""), provenance=pl.lit("synthetic"))
    blobs = MemoryBlobs()
    pieces = Hours(MemoryDecisions(frame), blobs).cut(MONDAY, MONDAY + NS_PER_HOUR)
    found = totals(read_hours(blobs, pieces, MONDAY, MONDAY + NS_PER_HOUR))
    told = [measures_of(row) for row in rows]
    assert found["model_calls"] == sum("errors" in item for item in told)
    assert found["model_errors"] == sum(item.get("errors", False) for item in told)
    assert found["timed_calls"] == sum("slower_than_80ms" in item for item in told)
    assert found["slow_calls"] == sum(item.get("slower_than_80ms", False) for item in told)
    assert found["shadow_attempts"] == sum(bool(item) for item in told)
    assert found["shadow_errors"] == sum(item.get("uncovered", False) for item in told)
    assert found["shadow_mismatches"] == sum(item.get("mismatches", False) for item in told)


def test_an_hour_is_read_once() -> None:
    """A week is read a day at a time, an hour later only that hour; another process cuts the same pieces."""
    log = MemoryDecisions(logged(MONDAY, 8 * 24))
    hours, week = Hours(log, MemoryBlobs()), (MONDAY, MONDAY + 7 * NS_PER_DAY)
    pieces = hours.cut(*week)
    assert (len(pieces), log.reads) == (168, 7)
    later = hours.cut(*(end + NS_PER_HOUR for end in week))
    assert (later[:-1], log.reads) == (pieces[1:], 8)
    assert Hours(log, MemoryBlobs()).cut(*week) == pieces


def test_no_traffic_is_not_zero() -> None:
    """Without decisions rates are null in JSON and N/A in CSV, the status is not healthy, and nothing is eligible."""
    sources, found = report(logged(MONDAY, 1).clear())
    figures = found.body["figures"]
    assert figures["match_rate"] is figures["error_rate"] is figures["psi_score"] is figures["latency_p95_ms"] is None
    assert {check["verdict"] for check in figures["slo_compliance"]} == {"INCONCLUSIVE"}
    assert (figures["overall_status"], figures["promote_eligible"]) == ("MEDIUM", False)
    text = export(list(sources.ledger.records()), sources.blobs)["daily/ml_daily_reports.csv"].decode()
    assert text.splitlines()[1] == "2026-03-02,0,N/A,N/A,N/A,MEDIUM,false"


@pytest.mark.parametrize(
    ("change", "status", "metric"),
    [
        ({"outcome": pl.lit("error")}, "HIGH", "shadow_error_rate"),
        ({"shadow_ns": pl.lit(90_000_000)}, "MEDIUM", "slow_rate"),
        ({"challenger": pl.lit(0.9)}, "MEDIUM", "match_rate"),
        ({"f_momentum": pl.lit(7.0)}, "CRITICAL", "psi_feature"),
    ],
)
def test_a_proven_miss_is_a_risk(change: dict[str, pl.Expr], status: str, metric: str) -> None:
    """Each criterion, proven missed, raises its level, names value, threshold and action; HIGH and CRITICAL are told to people."""
    frame = logged(MONDAY, 24, per_hour=60).with_columns(outcome=pl.lit("ok"), shadow_ns=1_000_000, challenger=0.52)
    told = report(frame, "psi_snapshot", "daily_report")[1]
    healthy = told.body["figures"]
    assert list(alarms([told])) == []
    assert (healthy["overall_status"], healthy["risks"], healthy["promote_eligible"]) == ("HEALTHY", [], True)
    told = report(frame.with_columns(**change), "psi_snapshot", "daily_report")[1]
    found = told.body["figures"]
    texts = list(alarms([told]))
    assert len(texts) == (status in ("HIGH", "CRITICAL"))
    assert all(status in text and metric in text for text in texts)
    assert (found["overall_status"], found["promote_eligible"]) == (status, False)
    risk = next(risk for risk in found["risks"] if risk["metric"] == metric)
    assert risk["level"] == status
    assert risk["action"]
    assert risk["value"] != risk["threshold"]


def test_a_few_rows_prove_nothing() -> None:
    """Two mismatches of three are no risk yet: the criterion is INCONCLUSIVE, and the day is not eligible."""
    frame = logged(MONDAY, 3, per_hour=1).with_columns(outcome=pl.lit("ok"), challenger=pl.Series([0.52, 0.7, 0.52]))
    found = report(frame)[1].body["figures"]
    assert found["match_rate"] == pytest.approx(2 / 3)
    assert (found["risks"], found["overall_status"], found["promote_eligible"]) == ([], "HEALTHY", False)


def test_the_class_is_the_weakest_of_its_rows() -> None:
    """One synthetic decision among live ones makes the report synthetic."""
    live = logged(MONDAY, 24).with_columns(provenance=pl.lit("live"))
    assert report(live)[1].provenance is Provenance.LIVE
    mixed = live.with_columns(
        provenance=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("synthetic")).otherwise("provenance")
    )
    assert report(mixed)[1].provenance is Provenance.SYNTHETIC


def test_rows_of_another_day_are_refused() -> None:
    """A record that names the pieces of another time, or one twice, cannot be recomputed."""
    sources, found = report(logged(MONDAY, 24))
    inputs = found.body["inputs"]
    derive = KINDS["daily_report"].derive()
    for pieces in (inputs["decisions"][::-1], inputs["decisions"][:1] * 2):
        with pytest.raises(IntegrityError, match="another time"):
            derive({**inputs, "decisions": pieces}, sources)
    with pytest.raises(IntegrityError, match="another time"):
        derive({**inputs, "end": "2026-03-02T12:00:00Z"}, sources)


HOSTILE = ("<script>alert(1)</script>", "=cmd|' /C calc'!A0", "a\nb,c", "../../etc/passwd", "x" * 10_000, "\u202egnp")


def test_hostile_names_stay_text() -> None:
    """A symbol or model that is a script, a formula, a path or two lines is neither markup nor formula nor file name."""
    frame = pl.concat([logged(MONDAY - NS_PER_DAY, 48, symbol=name, per_hour=2) for name in HOSTILE])
    sources = desk(VirtualClock(DAY_END))
    hostile = msgspec.structs.replace(model(), name=HOSTILE[0])
    move_alias(sources.ledger, sources, CHALLENGER, sources.blobs.put("artifact", hostile.to_bytes()))
    place, book = Place(sources, MemoryDecisions(frame)), Book(sources.ledger)
    for name in JOBS:
        book.run(place, JOBS[name], JOBS[name].schedule.newest(DAY_END))
    for kind in ("daily_report", "weekly_summary"):
        found = next(sources.ledger.records(kind=kind))
        shots = periodic.snapshots_of(sources, found)
        html, text = periodic_html(found, shots), periodic_markdown(found, shots)
        assert "<script>alert" not in html + text
        assert "&lt;script&gt;alert(1)" in html
    files = export(list(sources.ledger.records()), sources.blobs)
    assert all(".." not in name for name in files)
    for name, data in files.items():
        if name.endswith(".csv"):
            cells = [cell for row in csv.reader(io.StringIO(data.decode())) for cell in row]
            assert not [cell for cell in cells if cell[:1] in ("=", "+", "@", "\t", "\r")]


def test_symbols_are_bounded() -> None:
    """A thousand symbols fill no report: the twenty most frequent are named."""
    frame = logged(MONDAY, 24, per_hour=60).with_columns(symbol=pl.format("S{}", pl.int_range(pl.len()) % 1_000))
    found = report(frame)[1].body["figures"]
    assert len(found["symbols"]) == 20
    assert found["total_predictions"] == 24 * 60


def test_files_of_a_second_run_are_the_same() -> None:
    """A day that is reported again replaces its line in the series instead of adding one."""
    clock = VirtualClock(DAY_END)
    sources = desk(clock)
    place, book = Place(sources, MemoryDecisions(logged(MONDAY, 24))), Book(sources.ledger)
    book.run(place, JOBS["daily_report"], DAY_END)
    once = export(list(sources.ledger.records()), sources.blobs)
    book.run(place, JOBS["daily_report"], DAY_END)
    twice = export(list(sources.ledger.records()), sources.blobs)
    names = {
        "daily/report_2026-03-02.json",
        "daily/report_2026-03-02.csv",
        "daily/ml_daily_reports.csv",
        "daily/action_log.csv",
    }
    assert {name for name in once if "daily/" in name} == names
    assert twice["daily/ml_daily_reports.csv"] == once["daily/ml_daily_reports.csv"]
    assert len(once["daily/ml_daily_reports.csv"].splitlines()) == 2


def test_a_drill_is_asked_for_when_it_is_old() -> None:
    """Without a drill that passed, or with one older than the policy allows, another is due."""
    clock = VirtualClock(DAY_END)
    sources = desk(clock)
    entry = periodic.drill_reminder(sources, DAY_END, 86_400)
    assert entry.body["figures"] == {"drill_age_s": None, "is_due": True}
    (said,) = sources.ledger.append_all([entry])
    assert list(alarms([said])) == ["another drill is due: probatum drill"]
    sources.ledger.append("drill", "drill", Provenance.SYNTHETIC, {"inputs": {}, "figures": {"verdict": "PASS"}})
    for late_s, due in ((86_400, False), (86_401, True)):
        found = periodic.drill_reminder(sources, DAY_END + late_s * 10**9, 86_400).body["figures"]
        assert found == {"drill_age_s": late_s, "is_due": due}
