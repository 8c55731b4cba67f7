"""Show a rollout: its phases, the canary beside the baseline, why it ended, and how the evidence grew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from probatum.pipeline.page import Band, Chart, Line, Table
from probatum.pipeline.summary import mapping, mappings

RUNS = ("canary_dryrun_observe", "canary_run", "validation")
"""Kinds whose figures tell a run."""

FORECAST = ("share", "samples needed", "planned, s", "holds after, s")
PHASES = ("share", "start", "end", "duration, s", "measure", "bad", "n", "rate", "Clopper-Pearson")
ALERTS = ("alertname", "severity", "criterion", "counts_as", "firings", "first", "last")
_Values = tuple[float | None, ...]


def rollout_tables(kind: str, figures: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of a preflight or a run; of a record of another kind none."""
    if kind == "canary_preflight":
        rows = [tuple(phase.get(name) for name in _FORECAST_KEYS) for phase in mappings(figures.get("phases"))]
        yield Table("What each phase needs", FORECAST, tuple(rows))
    if kind == "alert_history" and "alerts" in figures:
        yield alert_table(figures)
    if kind not in RUNS:
        return
    ended = (figures.get("stage"), figures.get("reason"), figures.get("started"), figures.get("ended"))
    yield Table("How it ended", ("stage", "reason", "started", "ended", "reads"), ((*ended, figures.get("reads")),))
    yield Table("Phases", PHASES, tuple(_phase_rows(figures)))
    beside = mapping(figures.get("against_baseline"))
    if beside:
        known = beside.get("outcomes_known")
        rights = (beside.get("canary_right"), beside.get("baseline_right"))
        rows = [(name, *rights) for name in ("right, of the outcomes known",) if known is not None]
        flat = [(name, beside.get(name), "") for name in _BESIDE]
        latency = mapping(beside.get("canary_latency_ms"))
        flat += [(f"latency {name}, ms", value, "in process") for name, value in latency.items()]
        yield Table("Canary against baseline", ("figure", "canary", "baseline"), (*rows, *flat))
    if alerts := mapping(figures.get("alerts")):
        yield alert_table(alerts)
    cause = mapping(figures.get("root_cause"))
    if cause:
        yield from _cause(cause)


def alert_table(told: Mapping[str, Any]) -> Table:
    """Return what fired in a window; its title says how much of the window was seen."""
    rows = [tuple(row.get(name) for name in ALERTS) for row in mappings(told.get("alerts"))]
    seen = told.get("problem") or f"{told['coverage']:.1%} of {told.get('window_s')} s seen"
    title = f"Alerts of the window: {told.get('critical')} critical, {told.get('warning')} warnings ({seen})"
    return Table(title, ALERTS, tuple(rows))


def rollout_charts(figures: Mapping[str, Any]) -> Iterator[Chart]:
    """Yield the pictures of a run: share over time, and each criterion's upper end against its bound with n and n needed."""
    series = mapping(figures.get("series"))
    hours = tuple(t / 3600.0 for t in series.get("t_s", ()))
    if not hours:
        return
    share = tuple(series["share_percent"])
    summary = f"Steps of the share, from {share[0]} % to {share[-1]} %."
    yield Chart("Share over time", summary, "hours since the start", "share, %", hours, (Line("share", share),))
    for name, found in mapping(series.get("criteria")).items():
        upper, bound, n, needed = (_values(found, key) for key in ("upper", "bound", "n", "needed"))
        proven = "below" if upper[-1] is not None and bound[-1] is not None and upper[-1] < bound[-1] else "not below"
        summary = f"At the end n is {n[-1]:,}, and the rate of bad events is proven {proven} the bound."
        lines = (Band("confidence sequence", tuple(0.0 if u is not None else None for u in upper), upper),
                 Line("bound", bound, dashed=True))  # fmt: skip
        yield Chart(f"{name}: bad events against the bound", summary, "hours since the start", "rate", hours, lines)
        counts = (Line("n", n), Line("n needed", needed, dashed=True))
        yield Chart(
            f"{name}: samples", "Solid above dashed: enough.", "hours since the start", "samples", hours, counts
        )


_FORECAST_KEYS = ("share_percent", "samples_needed", "planned_s", "max_s")
_BESIDE = (
    "attempts",
    "ok",
    "failures",
    "matches",
    "match_rate",
    "agreements",
    "agreement_rate",
    "outcomes_known",
    "counted_by_metrics",
)


def _phase_rows(figures: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for phase in mappings(figures.get("phases")):
        where = tuple(phase.get(name) for name in ("share_percent", "start", "end", "duration_s"))
        for measure, c in mapping(phase.get("counts")).items():
            ends = "" if c.get("lower") is None else f"[{c['lower']:.4g}, {c['upper']:.4g}]"
            yield (*where, measure, c.get("bad"), c.get("n"), c.get("rate"), ends)


def _cause(cause: Mapping[str, Any]) -> Iterator[Table]:
    columns = ("name", "bad", "n", "value", "bound", "lower", "upper")
    fired = tuple(tuple(check.get(name) for name in columns) for check in mappings(cause.get("fired")))
    title = f"Root cause, at {cause.get('share_percent')} %: {cause.get('reason')}"
    yield Table(title, ("criterion that fired", *columns[1:]), fired)
    around = mappings(cause.get("decisions"))
    keys = ("ts", "outcome", "latency_ms", "score", "baseline")
    if around:
        rows = tuple(tuple(row.get(name) for name in keys) for row in around)
        yield Table("Decisions around it", ("time", "outcome", "latency, ms", "score", "baseline"), rows)


def _values(found: Mapping[str, Any], key: str) -> _Values:
    return tuple(found[key])
