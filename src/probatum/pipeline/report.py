"""Render the chain as one HTML page: verdicts first, then what each rests on. What is absent is "not measured"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from probatum.pipeline.page import Band, Bars, Chart, Item, Line, Marks, Section, Table, Text, number, page
from probatum.pipeline.ports import Record
from probatum.pipeline.rollout_report import RUNS, rollout_charts, rollout_tables
from probatum.pipeline.summary import (
    JUDGED,
    NOT_MEASURED,
    ModelSummary,
    checks_of,
    columns_of,
    mapping,
    newest,
    provenance_banner,
    summarise,
)

VERDICT_COLUMNS = ("model", "target", "gate", "AUC [bounds]", "P@20 [bounds]", "PSI", "drift", "promote", "data")
REASON_COLUMNS = ("model", "check", "verdict", "why", "what would settle it")
CHECK_COLUMNS = ("check", "value", "bound", "lower", "upper", "n", "verdict", "enforced", "reason", "settle")


def html_report(records: Sequence[Record]) -> str:
    """Return the self-contained report of a chain; the same chain gives the same bytes."""
    models = summarise(records)
    head = f"{len(records)} records, head {records[-1].hash[:16]}…, {records[-1].ts}" if records else "0 records"
    sections = [Section("Verdicts", (verdict_table(models), *reasons(models)))]
    for model in models:
        sections += _model_sections(model)
    sections += [_imports(records), _appendix(records)]
    return page("Probatum evidence", sections, subtitle=head, banner=provenance_banner(records))


def verdict_table(models: Sequence[ModelSummary]) -> Table:
    """Return the first screen: each model with its verdicts and their bounds."""
    rows = [
        (
            model.subject,
            model.target,
            model.verdict("offline_report"),
            with_bounds(model.check("offline_report", "auc")),
            with_bounds(model.check("offline_report", "precision_at_20")),
            mapping(model.figures("psi_snapshot").get("overall")).get("psi"),
            model.verdict("psi_snapshot"),
            {"PASS": "open", "FAIL": "BLOCKED"}.get(model.verdict("promote_check"), model.verdict("promote_check")),
            model.provenance.upper(),
        )
        for model in models
    ]
    return Table("", VERDICT_COLUMNS, tuple(rows))


def reasons(models: Sequence[ModelSummary]) -> Iterator[Item]:
    """Yield the table of all that is no PASS: why, and what would settle it. Where there is nothing, nothing."""
    rows = [
        (model.subject, reason.check, reason.verdict, reason.reason or "no reason recorded", reason.settle)
        for model in models
        for reason in model.reasons
    ]
    blocked = [
        (model.subject, "promote", "BLOCKED", str(summary), "")
        for model in models
        if (summary := model.figures("promote_check").get("summary")) and model.verdict("promote_check") != "PASS"
    ]
    if rows or blocked:
        yield Table("What is no PASS", REASON_COLUMNS, (*rows, *blocked))


def with_bounds(check: Mapping[str, Any]) -> str:
    """Write an estimate with its one-sided bounds.

    >>> with_bounds({"value": 0.6743, "lower": 0.658, "upper": 0.69})
    '0.6743 [0.658, 0.69]'
    >>> with_bounds({})
    'not measured'
    """
    if not _finite(check.get("value")):
        return NOT_MEASURED
    return f"{number(check['value'])} [{number(check.get('lower'))}, {number(check.get('upper'))}]"


def checks_table(title: str, figures: Mapping[str, Any]) -> Item:
    """Return the checks of a judging record, or the sentence that there are none."""
    rows = []
    for check in checks_of(dict(figures)):
        cells = [check.get("name"), *(check.get(name) for name in CHECK_COLUMNS[1:])]
        cells[CHECK_COLUMNS.index("enforced")] = "enforced" if check.get("enforced") else "shown only"
        rows.append(tuple(cells))
    return Table(title, CHECK_COLUMNS, tuple(rows)) if rows else Text(f"{title}: {NOT_MEASURED}.")


def roc_chart(roc: Mapping[str, Any]) -> Chart:
    """Draw the ROC curve with its bootstrap band, and chance."""
    x, y = tuple(roc["false_positive_rate"]), tuple(roc["true_positive_rate"])
    curves: list[Line | Band] = [Line("model", y), Line("chance", x, dashed=True)]
    if roc.get("lower"):
        curves.append(Band("band", tuple(roc["lower"]), tuple(roc["upper"])))
    summary = "A curve that hugs the dashed line knows nothing; the band is the block bootstrap's."
    return Chart("ROC", summary, "false positive rate", "true positive rate", x, tuple(curves))


def calibration_chart(bins: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw how often the event happened against how often the model said it would."""
    x = tuple(row["mean_score"] for row in bins)
    share = tuple(row["positive_share"] for row in bins)
    gap = max((abs(a - b) for a, b in zip(x, share, strict=True)), default=0)
    summary = f"On the dashed line scores are frequencies. The widest gap is {number(gap)}."
    lines = (Line("observed", share), Line("perfect", x, dashed=True))
    return Chart("Calibration", summary, "mean score", "share of positives", x, lines, x_range=(0.0, 1.0))


def histogram_chart(title: str, edges: Sequence[float], counts: Sequence[float], x_name: str) -> Chart:
    """Draw counts between edges."""
    middles = tuple((a + b) / 2 for a, b in pairwise(edges))
    top = max(range(len(counts)), key=lambda i: counts[i])
    share = counts[top] / sum(counts) if sum(counts) else 0
    summary = (
        f"{number(sum(counts))} values; {share:.0%} lie between {number(edges[top])} and {number(edges[top + 1])}."
    )
    return Chart(title, summary, x_name, "rows", middles, (Bars("rows", tuple(counts)),))


def psi_chart(features: Sequence[Mapping[str, Any]]) -> Chart:
    """Draw each feature's PSI beside what an unchanged market would give."""
    checks = [feature["check"] for feature in features]
    names = tuple(str(check["name"]) for check in checks)
    psi, expected, critical = (
        tuple(_positive(check.get(key)) for check in checks) for key in ("psi", "expected", "critical")
    )
    over = [name for name, p, c in zip(names, psi, critical, strict=True) if p and c and p > c]
    listed = ", ".join(over[:6]) + (" …" if len(over) > 6 else "")
    summary = f"Logarithmic. Above its critical value: {listed or 'none'}."
    series = (Bars("PSI", psi), Marks("expected without drift", expected), Marks("critical value", critical))
    return Chart("PSI by feature, with its null", summary, "feature", "PSI", names, series, log=True)


def distribution_chart(feature: Mapping[str, Any]) -> Chart:
    """Draw a feature's shares by bin, in the training window and now."""
    check = feature["check"]
    bins = [row for row in feature["bins"] if not row["nan"] or row["reference"] or row["window"]]
    then, now = (_shares([row[key] for row in bins]) for key in ("reference", "window"))
    summary = (
        f"PSI {number(check.get('psi'))}. Without drift its p-value is {number(check.get('p_value') or 'unknown')}."
    )
    series = (Bars("then (training)", then), Bars("now (window)", now))
    return Chart(str(check["name"]), summary, "bin", "share", tuple(map(_bin_label, bins)), series)


def _bin_label(row: Mapping[str, Any]) -> str:
    if row["nan"]:
        return "missing"
    if row["upper"] is not None:
        return f"≤ {number(row['upper'])}"
    return "all" if row["lower"] is None else f"> {number(row['lower'])}"


def _shares(counts: Sequence[int]) -> tuple[float, ...]:
    return tuple(count / max(1, sum(counts)) for count in counts)


def _model_sections(model: ModelSummary) -> Iterator[Section]:
    gate, drift = model.figures("offline_report"), model.figures("psi_snapshot")
    where = ", ".join(f"{kind} {record.seq} ({record.provenance.upper()})" for kind, record in model.records.items())
    items: list[Item] = [Text(f"Target {model.target}. Records: {where}.")]
    items += [_chart_or_note("ROC", roc_chart, gate.get("roc"))]
    items += [_chart_or_note("Calibration", calibration_chart, gate.get("calibration"))]
    items += [_chart_or_note("Score distribution", _score_chart, gate.get("score_histogram"))]
    items += [
        _chart_or_note("PSI by feature", psi_chart, [c for c in columns_of(drift) if c is not drift.get("score")])
    ]
    items += [checks_table(JUDGED[kind], model.figures(kind)) for kind in JUDGED if kind in model.records]
    items += _compared(gate)
    yield Section(model.subject, tuple(items))
    yield from _rollout_sections(model)
    columns = [column for column in columns_of(drift) if not column.get("constant")]
    if columns:
        charts = tuple(_chart_or_note("Then and now", distribution_chart, column) for column in columns)
        yield Section(f"{model.subject}: features then and now", charts, level=3, folded=True)
    shown = ("verdict", "checks", "roc", "calibration", "score_histogram")
    tables = [
        Table(kind, ("figure", "value"), tuple(flat({k: v for k, v in model.figures(kind).items() if k not in shown})))
        for kind in model.records
        if kind not in ("psi_snapshot", "promote_check", "canary_preflight", "alert_history", *RUNS)
    ]
    if tables:
        yield Section(f"{model.subject}: all other figures", tuple(tables), level=3, folded=True)


def _rollout_sections(model: ModelSummary) -> Iterator[Section]:
    for kind in ("canary_preflight", *RUNS, "alert_history"):
        figures, items = model.figures(kind), list[Item]()
        try:
            items += [*rollout_tables(kind, figures), *rollout_charts(figures)] if figures else []
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
            items.append(Text(f"{kind}: cannot be shown from this record ({type(error).__name__})."))
        if items:
            yield Section(
                f"{model.subject}: {JUDGED[kind].lower()}", tuple(items), level=3, folded=kind != "canary_run"
            )


def _compared(gate: Mapping[str, Any]) -> Iterator[Item]:
    rivals = [(name, gate[name]) for name in ("baseline", "champion") if isinstance(gate.get(name), dict)]
    rows = [
        (
            f"{role} {rival.get('name')}",
            rival.get("auc"),
            with_bounds(mapping(rival.get("difference"))),
            rival.get("reason"),
        )
        for role, rival in rivals
    ]
    if rows:
        yield Table("On the same rows", ("rule", "AUC", "the model is better by [bounds]", "note"), tuple(rows))


def _score_chart(histogram: Mapping[str, Any]) -> Chart:
    return histogram_chart("Score distribution", histogram["edges"], histogram["counts"], "score")


def _chart_or_note(title: str, draw: Any, figures: Any) -> Item:
    """Draw, or say that there is nothing to draw: a report of a damaged or older record is still a report."""
    if not figures:
        return Text(f"{title}: {NOT_MEASURED}.")
    try:
        chart: Chart = draw(figures)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        return Text(f"{title}: cannot be drawn from this record ({type(error).__name__}).")
    return chart


def _imports(records: Sequence[Record]) -> Section:
    items: list[Item] = []
    for record in newest(records, "data_import"):
        rows = tuple(flat(record.body["figures"]))
        items.append(
            Table(f"{record.subject} ({record.provenance.upper()}, record {record.seq})", ("figure", "value"), rows)
        )
    return Section(
        "Data quality", tuple(items) or (Text(f"{NOT_MEASURED}: no import in this chain."),), folded=bool(items)
    )


def _appendix(records: Sequence[Record]) -> Section:
    shown = [record for record in records if record.kind not in ("rollout_event", "job_run")]
    rows = tuple((r.seq, r.ts, r.kind, r.subject, r.provenance.upper(), r.hash) for r in shown)
    events = (
        f"{len(records) - len(shown):,} events of rollouts and slots of jobs are in the chain too. "
        if len(shown) < len(records)
        else ""
    )
    how = f"{events}Each hash covers its record and the hash before it. Recompute everything with: probatum evidence verify"
    table = Table("", ("seq", "time", "kind", "subject", "data", "hash"), rows)
    return Section("Chain", (Text(how), table), folded=True)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) of a JSON value; lists beyond twenty entries give their length.

    >>> list(flat({"a": {"b": 1}, "c": [True, None]}))
    [('a.b', 1), ('c[0]', True), ('c[1]', None)]
    """
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        if len(value) > 20:
            yield path, f"{len(value)} entries"
            return
        for index, item in enumerate(value):
            yield from flat(item, f"{path}[{index}]")
    else:
        yield path, value if not isinstance(value, dict | list) else "none"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(value: Any) -> float | None:
    return value if _finite(value) and value > 0 else None
