"""Report on a day or a week of decisions: counts from the log's own rows, rates with bounds, risks, one overall status.

Kinds ``daily_report``, ``weekly_summary``, ``match_report`` and ``drill_reminder``. Inputs name the pieces of the log, the
drift snapshots and the criteria; figures follow from them. A rate of nothing is null (N/A in CSV and pages), never 0. A risk
is a criterion that is *proven* missed; what the data do not settle stands in ``slo_compliance`` as INCONCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from probatum.core.clock import NS_PER_DAY, NS_PER_S, format_utc, parse_utc, utc_day
from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline import drift
from probatum.pipeline.evidence import Derive, proven
from probatum.pipeline.hours import Hour, Pieces, by_hour, by_symbol, provenance_of, ratio, read_hours, totals
from probatum.pipeline.ports import Entry, Record, Sources
from probatum.rollout.bounds import clopper_pearson
from probatum.rollout.criteria import DRIFT_CRITERIA, SHADOW_CRITERIA, Check, Criterion, Measurement, check

SUBJECT = "decisions"
DAILY, WEEKLY, MATCH, DRILL = "daily_report", "weekly_summary", "match_report", "drill_reminder"
STATUSES = ("HEALTHY", "MEDIUM", "HIGH", "CRITICAL")
# What each rate is a share of: name -> (events, of).
RATES = {
    "shadow_error_rate": ("model_errors", ("model_calls",)),
    "slow_rate": ("slow_calls", ("timed_calls",)),
    "match_rate": ("shadow_matches", ("shadow_matches", "shadow_mismatches")),
}
RISKS = {
    "decisions": ("MEDIUM", "find out why nothing was decided: executor down, or no market"),
    "shadow_error_rate": ("HIGH", "look at the engine's errors; abort a running canary"),
    "slow_rate": ("MEDIUM", "look at the engine's load and latency"),
    "match_rate": ("MEDIUM", "compare the model with the baseline on the days that differ"),
    "psi_overall": ("HIGH", "find what moved; prepare retraining"),
    "psi_feature": ("CRITICAL", "retrain, or take the feature's source back to what it was"),
}
CSV_COLUMNS = ("date", "total_predictions", "error_rate", "match_rate", "psi_score", "status", "promote_eligible")


def daily_report(sources: Sources, pieces: Pieces, end_ns: int) -> Entry:
    """Return the report of the 24 hours before ``end_ns``, with the newest drift snapshot of each model in them."""
    start_ns = end_ns - NS_PER_DAY
    return _entry(
        sources, DAILY, pieces, start_ns, end_ns, daily_figures, snapshots=_snapshots(sources, start_ns, end_ns)
    )


def weekly_summary(sources: Sources, pieces: Pieces, end_ns: int) -> Entry:
    """Return the summary of the seven days before ``end_ns``, beside the daily reports that fell into them."""
    start_ns = end_ns - 7 * NS_PER_DAY
    told = [r for r in sources.ledger.records(kind=DAILY) if start_ns < parse_utc(r.body["inputs"]["end"]) <= end_ns]
    shots = _snapshots(sources, start_ns, end_ns)
    return _entry(sources, WEEKLY, pieces, start_ns, end_ns, weekly_figures, snapshots=shots, days=_links(told))


def match_report(sources: Sources, pieces: Pieces, end_ns: int) -> Entry:
    """Return how often the model matched the baseline in the seven days before ``end_ns``, day by day."""
    return _entry(sources, MATCH, pieces, end_ns - 7 * NS_PER_DAY, end_ns, match_figures)


def drill_reminder(sources: Sources, now_ns: int, age_max_s: int) -> Entry:
    """Return how old the newest drill that passed is, and whether another is due."""
    passed = [r for r in sources.ledger.records(kind="drill") if r.body["figures"]["verdict"] == Verdict.PASS]
    inputs = {"now": format_utc(now_ns), "age_max_s": age_max_s, "drills": _links(passed[-1:])}
    return proven(
        sources, kind=DRILL, subject="drill", provenance=Provenance.SYNTHETIC, inputs=inputs, derive=drill_figures
    )


def _entry(
    sources: Sources, kind: str, pieces: Pieces, start_ns: int, end_ns: int, derive: Derive, **more: Any
) -> Entry:
    classed = provenance_of(read_hours(sources.blobs, pieces, start_ns, end_ns))
    inputs = {
        "decisions": pieces,
        "start": format_utc(start_ns),
        "end": format_utc(end_ns),
        "criteria": msgspec.to_builtins([*(c for c in SHADOW_CRITERIA if c.name in RATES), *DRIFT_CRITERIA]),
        **more,
    }
    return proven(sources, kind=kind, subject=SUBJECT, provenance=classed, inputs=inputs, derive=derive)


# --- figures ----------------------------------------------------------------------------------------------------------


def daily_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Compute a daily report from the hours of the log and the snapshots that its inputs name."""
    start_ns, end_ns, hours = _span(inputs, sources)
    psi = [_drift_of(record) for record in _linked(sources, inputs["snapshots"], drift.KIND)]
    found = totals(hours)
    checks = [*_rate_checks(inputs, found), *(item for model in psi for item in model["checks"])]
    risks = list(_risks(found, checks))
    status = max((risk["level"] for risk in risks), key=STATUSES.index, default=STATUSES[0])
    enforced = [item["verdict"] for item in checks if item["enforced"]]
    scores = [model["overall_psi"] for model in psi if model["overall_psi"] is not None]
    report: dict[str, Any] = drift.rounded(
        {
            "date": utc_day(start_ns),
            "start": inputs["start"],
            "end": inputs["end"],
            "provenance": provenance_of(hours).value,
            **found,
            "psi_score": max(scores, default=None),
            "psi": psi,
            "slo_compliance": checks,
            "risks": risks,
            "overall_status": status,
            "promote_eligible": bool(psi) and status == STATUSES[0] and set(enforced) == {Verdict.PASS.value},
            "hours": by_hour(hours, start_ns, end_ns),
            "symbols": _as_rows(by_symbol(hours)),
        }
    )
    return report


def weekly_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Compute a weekly summary: the figures of a daily report over the week, and each day's line."""
    days = [record.body["figures"] for record in _linked(sources, inputs["days"], DAILY)]
    statuses = [day["overall_status"] for day in days]
    found = daily_figures(inputs, sources)
    return {
        **{name: value for name, value in found.items() if name != "date"},
        "days": [{name: day[_source_of(name)] for name in CSV_COLUMNS} for day in days],
        "days_by_status": {status: statuses.count(status) for status in STATUSES},
        "days_eligible": sum(day["promote_eligible"] for day in days),
    }


def match_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Compute matches day by day and over all, with one-sided bounds, against the match criterion."""
    start_ns, end_ns, hours = _span(inputs, sources)
    days = []
    for begin in range(start_ns, end_ns, NS_PER_DAY):
        found = totals(hour for hour in hours if begin <= hour.first_ns < begin + NS_PER_DAY)
        measured = _measured(found, "match_rate")
        ends = {"lower": measured.lower, "upper": measured.upper}
        days.append({"date": utc_day(begin), "n": measured.n, "match_rate": found["match_rate"], **ends})
    found = totals(hours)
    checks = [item for item in _rate_checks(inputs, found) if item["name"] == "match_rate"]
    about = {"start": inputs["start"], "end": inputs["end"], "provenance": provenance_of(hours).value}
    report: dict[str, Any] = drift.rounded({**about, **found, "checks": checks, "days": days})
    return report


def drill_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Compute the age of the newest drill from its record; none at all is due."""
    newest = _linked(sources, inputs["drills"], "drill")
    age_s = None if not newest else (parse_utc(inputs["now"]) - parse_utc(newest[-1].ts)) // NS_PER_S
    return {"drill_age_s": age_s, "is_due": age_s is None or age_s > inputs["age_max_s"]}


def _span(inputs: Mapping[str, Any], sources: Sources) -> tuple[int, int, list[Hour]]:
    start_ns, end_ns = parse_utc(inputs["start"]), parse_utc(inputs["end"])
    return start_ns, end_ns, read_hours(sources.blobs, inputs["decisions"], start_ns, end_ns)


def _rate_checks(inputs: Mapping[str, Any], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    criteria = [msgspec.convert(item, Criterion) for item in inputs["criteria"] if item["name"] in RATES]
    return [msgspec.to_builtins(_check(criterion, _measured(found, criterion.name))) for criterion in criteria]


def _check(criterion: Criterion, measured: Measurement) -> Check:
    if measured.n:
        return check(criterion, measured)
    text = "N/A: no call was made"
    unseen = Check(criterion.name, None, criterion.bound, None, None, 0, Verdict.INCONCLUSIVE, criterion.enforced)
    return msgspec.structs.replace(unseen, reason=text, settle="traffic")


def _measured(found: Mapping[str, Any], name: str) -> Measurement:
    events, whole = RATES[name]
    n, k = sum(found[part] for part in whole), found[events]
    lower, upper = clopper_pearson(n, k) if n else (None, None)
    return Measurement(ratio(k, n), lower, upper, n)


def _drift_of(record: Record) -> dict[str, Any]:
    """Return what a report keeps of a snapshot: PSI by feature, and the checks that its verdict rests on."""
    found = record.body["figures"]
    features = [{"name": f["check"]["name"], "psi": f["check"]["psi"]} for f in found["features"]]
    kept = {name: found[name] for name in ("verdict", "overall_psi", "max_psi", "rows", "checks")}
    return {"model": record.subject, "features": features, **kept}


def _risks(found: Mapping[str, Any], checks: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    if not found["total_predictions"]:
        yield _risk("decisions", 0, 1)
    for item in checks:
        if item["verdict"] == Verdict.FAIL and item["name"] in RISKS:
            yield _risk(item["name"], item["value"], item["bound"])


def _risk(metric: str, value: Any, threshold: Any) -> dict[str, Any]:
    level, action = RISKS[metric]
    return {"level": level, "metric": metric, "value": value, "threshold": threshold, "action": action}


def _snapshots(sources: Sources, start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Link the newest snapshot of each model that was taken of the log in (start, end]."""
    newest = {
        record.body["inputs"]["artifact"]: record
        for record in sources.ledger.records(kind=drift.KIND)
        if "decisions" in record.body["inputs"] and start_ns < parse_utc(record.body["inputs"]["end"]) <= end_ns
    }
    return _links(newest.values())


def _links(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [{"seq": record.seq, "hash": record.hash} for record in records]


def _linked(sources: Sources, links: Sequence[Mapping[str, Any]], kind: str) -> list[Record]:
    """Return the records that were linked; IntegrityError where the chain holds another in one's place."""
    found = []
    for link in links:
        record = next(sources.ledger.records(kind=kind, after=link["seq"] - 1), None)
        if record is None or record.hash != link["hash"]:
            raise IntegrityError(
                f"record {link['seq']} ({kind})", f"is not the {link['hash'][:12]}… that a report names"
            )
        found.append(record)
    return found


def snapshots_of(sources: Sources, report: Record) -> list[Record]:
    """Return the drift snapshots that a daily or weekly report names."""
    return _linked(sources, report.body["inputs"]["snapshots"], drift.KIND)


def date_of(report: Record) -> str:
    """Return the UTC date that a report is filed under: its day, or the Sunday on which its week ended."""
    found: dict[str, str] = report.body["figures"]
    return found["date"] if report.kind == DAILY else found["end"][:10]


def csv_row(figures: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a day's line of the cumulative CSV; what was not measured is N/A."""
    cells = (figures[_source_of(name)] for name in CSV_COLUMNS)
    return tuple("N/A" if cell is None else str(cell).lower() if isinstance(cell, bool) else cell for cell in cells)


def _source_of(column: str) -> str:
    return "overall_status" if column == "status" else column


def _as_rows(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"symbol": name, "total_predictions": count} for name, count in counts.items()]


REPORTS: dict[str, Callable[[Sources, Pieces, int], Entry]] = {
    DAILY: daily_report,
    WEEKLY: weekly_summary,
    MATCH: match_report,
}
