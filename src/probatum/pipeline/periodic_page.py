"""Show a daily report or a weekly summary as one page, in HTML with charts and in Markdown with the same tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from probatum.pipeline.green import markdown
from probatum.pipeline.page import Bars, Chart, Item, Line, Section, Table, Text, page
from probatum.pipeline.periodic import DAILY, csv_row
from probatum.pipeline.ports import Record
from probatum.pipeline.report import checks_table, psi_chart
from probatum.pipeline.summary import provenance_banner

NAMES = {"daily_report": "Daily report", "weekly_summary": "Weekly summary"}
_COUNTED = (
    ("decisions", "total_predictions"), ("calls of the model", "model_calls"), ("failed calls", "model_errors"),
    ("share of failed calls", "error_rate"), ("comparisons due", "shadow_attempts"), ("matches", "shadow_matches"),
    ("mismatches", "shadow_mismatches"), ("no comparable answer", "shadow_errors"), ("share of matches", "match_rate"),
    ("later than 80 ms, or timed out", "slow_calls"), ("latency p50, ms", "latency_p50_ms"),
    ("latency p95, ms", "latency_p95_ms"), ("latency p99, ms", "latency_p99_ms"), ("PSI", "psi_score"),
)  # fmt: skip


def periodic_html(record: Record, snapshots: Sequence[Record]) -> str:
    """Return the self-contained page of a report; ``snapshots`` are the drift records that it names."""
    title, subtitle = _heading(record)
    return page(title, list(_sections(record, snapshots)), subtitle=subtitle, banner=provenance_banner([record]))


def periodic_markdown(record: Record, snapshots: Sequence[Record]) -> str:
    """Return the same report as Markdown: its tables, and those of the charts."""
    title, subtitle = _heading(record)
    lines = [f"# {title}", "", f"**{provenance_banner([record])}**", "", subtitle]
    for section in _sections(record, snapshots):
        lines += ["", f"## {section.title}"]
        for item in section.items:
            lines += ["", *markdown(item)]
    return "\n".join(lines) + "\n"


def _heading(record: Record) -> tuple[str, str]:
    found = record.body["figures"]
    return (
        f"{NAMES[record.kind]}: {found['overall_status']}",
        f"{found['start']} to {found['end']}, record {record.seq}",
    )


def _sections(record: Record, snapshots: Sequence[Record]) -> Iterator[Section]:
    found = record.body["figures"]
    yield Section("Risks", (_risks(found),))
    yield Section("Criteria", (checks_table("", {"checks": found["slo_compliance"]}),))
    yield Section("Over the hours", tuple(_charts(found["hours"])) if found["total_predictions"] else (_NOTHING,))
    yield Section("Drift", tuple(map(_psi, snapshots)) or (Text("Not measured: no snapshot of a model in this time."),))
    counted = tuple((name, "N/A" if found[key] is None else found[key]) for name, key in _COUNTED)
    yield Section("Counts", (Table("", ("figure", "value"), counted), *_tables(record.kind, found)))


_NOTHING = Text("Nothing was decided in this time.")


def _risks(found: Mapping[str, Any]) -> Item:
    columns = ("level", "metric", "value", "threshold", "action")
    rows = tuple(tuple(risk[name] for name in columns) for risk in found["risks"])
    return Table("", columns, rows) if rows else Text("None is proven.")


def _charts(hours: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    since = f"hours since {hours[0]['hour'][:16].replace('T', ' ')} UTC"

    def values(key: str) -> tuple[float | None, ...]:
        return tuple(row[key] for row in hours)

    def chart(title: str, y_name: str, summary: str, *series: Line | Bars) -> Chart:
        return Chart(title, summary, since, y_name, tuple(map(float, range(len(hours)))), series)

    seen = [rate for rate in values("match_rate") if rate is not None]
    lowest = f"The lowest hour has {min(seen):.1%}." if seen else "No comparison was made."
    yield chart("Matches with the baseline", "share", lowest, Line("match", values("match_rate")))
    late = [ms for ms in values("latency_p95_ms") if ms is not None]
    slowest = f"The slowest hour has a p95 of {max(late):.1f} ms." if late else "No call was answered."
    quantiles = (Line(f"p{q}", values(f"latency_p{q}_ms")) for q in (50, 95, 99))
    yield chart("Latency of the model", "ms", slowest, *quantiles)
    failed = sum(row["model_errors"] for row in hours)
    bars = (Bars("failed calls", values("model_errors")), Bars("no comparable answer", values("shadow_errors")))
    yield chart("Errors", "decisions", f"{failed:,} calls failed.", *bars)
    yield chart(
        "Decisions", "decisions", "A gap is an hour without any.", Bars("decisions", values("total_predictions"))
    )


def _psi(snapshot: Record) -> Item:
    figures = snapshot.body["figures"]
    if figures["overall_psi"] is None:
        return Text(f"{snapshot.subject}: {figures['verdict']}: no decision was made with its features.")
    drawn = psi_chart(figures["features"])
    about = f"{snapshot.subject}: {figures['verdict']} over {figures['rows']:,} rows. {drawn.summary}"
    return Chart(drawn.title, about, drawn.x_name, drawn.y_name, drawn.x, drawn.series, log=True)


def _tables(kind: str, found: Mapping[str, Any]) -> Iterator[Item]:
    if kind != DAILY:
        days = tuple(csv_row({**day, "overall_status": day["status"]}) for day in found["days"])
        columns = ("date", "decisions", "failed calls", "matches", "PSI", "status", "would not block promotion")
        yield Table("Days", columns, days) if days else Text("No daily report fell into this week.")
    symbols = tuple((row["symbol"], row["total_predictions"]) for row in found["symbols"])
    yield Table("Symbols", ("symbol", "decisions"), symbols)
