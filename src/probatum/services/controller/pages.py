"""Write pages from their views: charts as data, everything else as marked-up text; nothing from outside is markup."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import count, pairwise
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, TemplateError

from probatum.pipeline.page import Bars, Chart, Line, chart_json, number
from probatum.pipeline.report import calibration_chart, psi_chart, with_bounds
from probatum.pipeline.rollout_report import rollout_tables

TITLES = {
    "overview": "Overview", "rollout": "Rollout", "shadow": "Shadow", "drift": "Drift",
    "models": "Models", "evidence": "Evidence", "jobs": "Jobs", "blockers": "Blockers",
}  # fmt: skip
LINES_MAX = 4
UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, TemplateError)
"""What a record of a shape that this version does not know may raise on its way to a page."""


def render(page: str, view: Mapping[str, Any] | None, status: Mapping[str, Any]) -> bytes:
    """Return a page; without a view only its frame, which says that a token is needed."""
    numbers = count()
    template = _environment().get_template(f"{page}.html.j2" if view is not None else "closed.html.j2")
    return template.render(
        page=page, titles=TITLES, view=view, status=status, next_id=lambda: next(numbers), charts=charts_of(page, view)
    ).encode()


def charts_of(page: str, view: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the charts of a page by name; where the data are of another shape there is none."""
    draw = _CHARTS.get(page)
    try:
        return draw(view) if draw and view else {}
    except UNREADABLE:
        return {}


def _rollout(view: Mapping[str, Any]) -> dict[str, Any]:
    found, run = view["rollout"], view.get("run")
    if not found or found["problem"]:
        return {}
    charts: dict[str, Any] = {"run": list(rollout_tables("canary_run", run)) if run else []}
    if found["started"] and len(found["trail"]["t_s"]) > 1:
        charts |= {"share": share_chart(found), "rates": rate_chart(found)}
    return charts


def share_chart(rollout: Mapping[str, Any]) -> Chart:
    """Draw the share over time in steps, beside the plan's own forecast."""
    times, shares = rollout["trail"]["t_s"], rollout["trail"]["share_percent"]
    scale, unit = _scale(max(times[-1], sum(phase["planned_s"] for phase in rollout["phases"])))
    actual = _steps(times, shares)
    starts = [0, *_running(phase["planned_s"] for phase in rollout["phases"])]
    plan = [phase["share_percent"] for phase in rollout["phases"]]
    planned = _steps(starts, [*plan, plan[-1]])
    x, columns = _merge(actual, planned)
    at = f"{shares[-1]} % after {times[-1] / scale:.1f} {unit}"
    return Chart("Share over time", f"Now {at}; dashed as planned.", f"{unit} since the start", "share, %",
                 tuple(t / scale for t in x), (Line("share", columns[0]), Line("planned", columns[1], dashed=True)))  # fmt: skip


def rate_chart(rollout: Mapping[str, Any]) -> Chart:
    """Draw the rate of bad events of the enforced measures, each from its counts so far."""
    measures = list(dict.fromkeys(c["measure"] for c in rollout["checks"] if c["enforced"]))[:LINES_MAX]
    times, counts = rollout["trail"]["t_s"], rollout["trail"]["counts"]
    scale, unit = _scale(times[-1])
    lines = tuple(
        Line(name.replace("_", " "), tuple(100.0 * bad / n if n else None for n, bad in counts[name]))
        for name in measures
    )
    summary = "Estimates, from counts since the start; verdicts follow the bounds above, not these lines."
    return Chart(
        "Bad events so far", summary, f"{unit} since the start", "bad, %", tuple(t / scale for t in times), lines
    )


def _shadow(view: Mapping[str, Any]) -> dict[str, Any]:
    source = view["counted"] or _from_record(view["evidence"])
    calibrations = {o["hash"]: calibration_chart(o["calibration"]) for o in view["outcomes"] if o["calibration"]}
    if not source:
        return {"calibrations": calibrations}
    edges = [number(edge) for edge in view["delta_edges"]]
    names = (f"< {edges[0]}", *(f"{a} – {b}" for a, b in pairwise(edges)), f"≥ {edges[-1]}")
    total = sum(source["deltas"]) or 1
    within = sum(source["deltas"][:3]) / total
    deltas = Chart("How far apart", f"{within:.1%} of answers lie closer than 0.05 to the baseline's: a match.",
                   "|baseline − challenger|", "answers", names, (Bars("answers", tuple(source["deltas"])),))  # fmt: skip
    quantiles = tuple(source["latency_ms"]["shadow"])
    kinds = [(name, values) for name, values in source["latency_ms"].items() if values]
    latency = Chart("Latency", "Time of a call, by quantile; the bounds that matter are 80 and 120 ms.", "quantile", "ms",
                    quantiles, tuple(Bars(name, tuple(values.get(q) for q in quantiles)) for name, values in kinds))  # fmt: skip
    return {"deltas": deltas, "latency": latency, "source": source, "calibrations": calibrations}


def _from_record(evidence: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the counts of the newest record in the shape of the live ones."""
    for item in evidence:
        found = item["figures"]
        latency = {"reply": found["reply_latency_ms"], "shadow": found["shadow_latency_ms"]}
        keys = ("attempts", "matches", "mismatches", "match_rate", "agreements", "slower_than_ms")
        outcomes = {key: found[key] for key in ("ok", "error", "timeout", "nan", "breaker_open", "shed", "skipped")}
        return {**{key: found[key] for key in keys}, "outcomes": outcomes, "deltas": found["delta_histogram"]["counts"],
                "latency_ms": latency}  # fmt: skip
    return {}


def _drift(view: Mapping[str, Any]) -> dict[str, Any]:
    return {item["subject"]: _drift_charts(item) for item in view["models"]}


def _drift_charts(item: Mapping[str, Any]) -> list[Chart]:
    shown = [column for column in item["columns"] if not column["constant"] and column["name"] != "score"]
    charts = [psi_chart([{"check": column} for column in shown])] if shown else []
    history = item["history"]
    if len(history) < 2:
        return charts
    worst = sorted(shown, key=lambda column: -(column.get("psi") or 0.0))[: LINES_MAX - 2]
    bound = next((check.get("bound") for check in item["checks"] if check.get("name") == "psi_overall"), None)
    names = tuple(point["ts"][5:16].replace("T", " ") for point in history)
    lines = [Line("overall", tuple(point["overall"] for point in history)),
             Line("bound of overall", tuple(bound for _ in history), dashed=True)]  # fmt: skip
    lines += [Line(c["name"], tuple(point["columns"].get(c["name"]) for point in history)) for c in worst]
    summary = f"{len(history)} snapshots, each of its own window; the lines are the whole and its worst columns."
    return [*charts, Chart("PSI over time", summary, "end of the window, UTC", "PSI", names, tuple(lines))]


_CHARTS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"rollout": _rollout, "shadow": _shadow, "drift": _drift,
           "overview": lambda view: _rollout({"rollout": view["rollout"]})}  # fmt: skip


def _scale(seconds: float) -> tuple[float, str]:
    return (3600.0, "hours") if seconds >= 7200 else (60.0, "minutes")


def _running(values: Iterable[float]) -> list[float]:
    total, sums = 0.0, []
    for value in values:
        total += value
        sums.append(total)
    return sums


def _steps(times: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the corners of a line that stands still until it jumps."""
    points: list[tuple[float, float]] = []
    for t, value in zip(times, values, strict=False):
        if points and points[-1][1] != value:
            points.append((t, points[-1][1]))
        points.append((t, value))
    return points


def _merge(*lines: Sequence[tuple[float, float]]) -> tuple[list[float], list[tuple[float | None, ...]]]:
    """Return one rising axis for all, and each line on it; where a line has no point there is None."""
    rows = sorted((t, number_, place) for number_, line in enumerate(lines) for place, (t, _) in enumerate(line))
    columns = [
        tuple(line[place][1] if which == own else None for _, which, place in rows) for own, line in enumerate(lines)
    ]
    return [t for t, _, _ in rows], columns


# --- how values are written -------------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Write a length of time.

    >>> duration(45), duration(750), duration(9000), duration(200_000), duration(None)
    ('45 s', '12 min 30 s', '2 h 30 min', '2 d 7 h', '–')
    """
    if seconds is None:
        return "–"
    whole = int(seconds)
    for unit, size, below, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def when(ts: str | None) -> str:
    """Write an instant to the second.

    >>> when("2026-11-25T22:05:02.342625171Z")
    '2026-11-25 22:05:02'
    """
    return ts[:19].replace("T", " ") if ts else "–"


def percent(value: float | None) -> str:
    """Write a share.

    >>> percent(0.01), percent(0.2048), percent(None)
    ('1 %', '20.48 %', '–')
    """
    return "–" if value is None else f"{round(100.0 * value, 3):g} %"


def ends(lower: float | None, upper: float | None) -> str:
    """Write an interval of shares.

    >>> ends(0.00004, 0.00321), ends(None, None)
    ('0.004 – 0.321 %', '–')
    """
    return "–" if lower is None or upper is None else f"{percent(lower)[:-2]} – {percent(upper)}"


def gauge(check: Mapping[str, Any]) -> dict[str, float] | None:
    """Return where a criterion's estimate, its confidence sequence and its bound stand on a bar of 0 to 100; worse is right.

    Rates are near 0 or near 1, so the bar spans the bad side: twice the bound's rate of bad events.
    """
    value, bound = check.get("value"), check.get("bound")
    if value is None or not bound:
        return None
    mirrored = check.get("direction") == "at_least"
    bad = [1.0 - x if mirrored and x is not None else x for x in (value, check.get("lower"), check.get("upper"), bound)]
    low, high = sorted((bad[1] or 0.0, bad[2] if bad[2] is not None else bad[0] or 0.0))
    width = max(2.0 * (bad[3] or 0.0), min(1.0, 1.15 * (bad[0] or 0.0))) or 1.0
    places = [round(100.0 * min(max(x or 0.0, 0.0) / width, 1.0), 2) for x in (bad[0], low, high, bad[3])]
    return dict(zip(("value", "low", "high", "bound"), places, strict=True))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("probatum.services.controller"), PackageLoader("probatum.pipeline", "assets")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "number": number,
        "chart_json": chart_json,
        "with_bounds": with_bounds,
        "gauge": gauge,
        "ends": ends,
    }
    environment.filters |= {"number": number, "duration": duration, "when": when, "percent": percent}
    return environment
