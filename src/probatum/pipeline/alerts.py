"""Judge what a Prometheus says of alerts in a window: silence counts only where it would have been broken.

Silence is proven when the rules were loaded and evaluated, and executors and engines were seen, all the time. Whatever
falls short of that is an ERROR: a Prometheus that looked away has seen nothing. Kind: ``alert_history``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from math import ceil
from typing import Annotated, Any, Protocol

import msgspec

from probatum.core.clock import NS_PER_S, format_utc, parse_utc
from probatum.core.errors import IntegrityError
from probatum.core.verdict import Verdict
from probatum.pipeline.evidence import prove
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.pipeline.registry import load_artifact
from probatum.rollout.criteria import Check
from probatum.rollout.plan import Plan

KIND, BLOB = "alert_history", "alerts"
PREFIX = "ML"
"""Alerts of this product begin with it; those of others on the same Prometheus say nothing of a model."""

COVERAGE_MIN = 0.99
GAP_MAX_S = 120
"""The shortest ``for`` of an alert: what goes unseen for no longer could not have fired."""

_MINOR = {"warning": "warning", "info": "", "none": ""}
_STEP_MIN_S, _STEP_MAX_S = 2, 60


class AlertHistory(Protocol):
    """Where alerts are looked up."""

    def read(self, window_s: int, now_ns: int) -> bytes:
        """Return an :class:`Answer` as JSON about the window that ends now; where there is none, one with the problem."""
        ...


class Rule(msgspec.Struct, frozen=True):
    """Hold one alerting rule as ``/api/v1/rules`` tells it, as far as it is read here."""

    name: str
    health: str
    lastError: str = ""


class Series(msgspec.Struct, frozen=True):
    """Hold one series of a range query: (seconds, value) pairs."""

    metric: dict[str, str]
    values: Annotated[list[tuple[float, str]], msgspec.Meta(min_length=1)]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what was asked of a Prometheus and what it said, whole.

    Every ``step_s`` from ``start`` to ``end`` a point speaks for the ``step_s`` before it. ``jobs`` must have been ``up``;
    ``loaded`` is when the rules were last read.
    """

    source: str
    start: str
    end: str
    step_s: int
    jobs: tuple[str, ...]
    queries: dict[str, str] = {}
    problem: str = ""
    loaded: str = ""
    rules: tuple[Rule, ...] = ()
    up: tuple[Series, ...] = ()
    firing: tuple[Series, ...] = ()


def grid(window_s: int, now_ns: int) -> tuple[int, int, int]:
    """Return (first point, last point, step) in seconds: at most a minute apart, and no less than the window."""
    step_s = min(_STEP_MAX_S, max(_STEP_MIN_S, window_s // 10))
    end_s = now_ns // NS_PER_S
    return end_s - (ceil(window_s / step_s) - 1) * step_s, end_s, step_s


def record_alerts(ledger: Ledger, sources: Sources, plan: Plan, history: AlertHistory, *, now_ns: int) -> Record:
    """Append ``alert_history`` of a plan's model: what fired in its policy's window, and whether silence would mean anything."""
    limits = plan.policy.promotion
    inputs = {
        "artifact": plan.model,
        BLOB: sources.blobs.put(BLOB, history.read(limits.alert_window_s, now_ns)),
        "not_enforced": not_enforced(plan),
        "warnings_max": limits.alert_warnings_max,
    }
    artifact = load_artifact(sources, plan.model)
    return prove(
        ledger, sources, kind=KIND, subject=artifact.name, provenance=artifact.data.provenance, inputs=inputs,
        derive=figures,
    )  # fmt: skip


def not_enforced(plan: Plan) -> list[str]:
    """Return the names of criteria that are only watched: an alert that names one of them counts for nothing."""
    return [item.name for item in plan.criteria if not item.enforced]


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute verdict, checks and counts from the stored answer."""
    told = summarise(sources, inputs[BLOB], inputs["not_enforced"])
    blind = Verdict.ERROR if told["problem"] else Verdict.PASS
    checks = [_check("alert_coverage", told["coverage"], COVERAGE_MIN, blind, told["problem"])]
    for name, most in (("critical", 0), ("warning", inputs["warnings_max"])):
        verdict = Verdict.FAIL if told[name] > most else blind
        fired = ", ".join(row["alertname"] for row in told["alerts"] if row["counts_as"] == name)
        value = None if verdict is Verdict.ERROR else float(told[name])
        checks.append(_check(f"alerts_{name}", value, float(most), verdict, fired or told["problem"]))
    return {"verdict": Verdict.worst(item.verdict for item in checks), "checks": msgspec.to_builtins(checks), **told}


def summarise(sources: Sources, digest: str, ignored: Collection[str]) -> dict[str, Any]:
    """Return what a stored answer comes to: each alert that fired, how many count, and how much of the window was seen.

    Raises IntegrityError where the blob is no answer.
    """
    try:
        answer = msgspec.json.decode(sources.blobs.get(BLOB, digest), type=Answer)
    except msgspec.MsgspecError as error:
        raise IntegrityError(f"{BLOB} {digest[:12]}…", str(error)) from None
    points = (parse_utc(answer.end) - parse_utc(answer.start)) // NS_PER_S // answer.step_s + 1
    seen = [_seen(answer, job, points) for job in answer.jobs]
    gap_s = max((gap for _, gap in seen), default=0) * answer.step_s
    coverage = min((count for count, _ in seen), default=0) / points
    alerts = sorted(_alerts(answer, ignored, points), key=lambda row: (row["first"], row["alertname"]))
    return {
        "source": answer.source,
        "window_s": points * answer.step_s,
        "end": answer.end,
        "coverage": coverage,
        "gap_max_s": gap_s,
        "problem": _problem(answer, coverage, gap_s),
        **{name: sum(row["firings"] for row in alerts if row["counts_as"] == name) for name in ("critical", "warning")},
        "alerts": alerts,
    }


def _problem(answer: Answer, coverage: float, gap_s: int) -> str:
    if answer.problem:
        return answer.problem
    if not answer.rules:
        return f"no alert rule {PREFIX}… is loaded"
    for rule in answer.rules:
        if rule.health != "ok":
            return f"rule {rule.name} is not evaluated: {rule.lastError or rule.health}"
    if parse_utc(answer.loaded) > parse_utc(answer.start) - answer.step_s * NS_PER_S:
        return f"its rules were loaded at {answer.loaded}, within the window"
    if coverage < COVERAGE_MIN or gap_s > GAP_MAX_S:
        return f"saw {' and '.join(answer.jobs)} up for {coverage:.1%} of the window only, and not for {gap_s} s on end"
    return ""


def _seen(answer: Answer, job: str, points: int) -> tuple[int, int]:
    """Return at how many points a job was up, and the longest run of points at which it was not."""
    up = {
        place
        for series in answer.up
        if series.metric.get("job") == job
        for place, value in _places(answer, series, points)
        if value == "1"
    }
    longest = run = 0
    for place in range(points):
        run = 0 if place in up else run + 1
        longest = max(longest, run)
    return len(up), longest


def _places(answer: Answer, series: Series, points: int) -> Iterator[tuple[int, str]]:
    """Yield (number of the point, value) within the window."""
    start_s = parse_utc(answer.start) // NS_PER_S
    for ts, value in series.values:
        place = round((ts - start_s) / answer.step_s)
        if 0 <= place < points:
            yield place, value


def _alerts(answer: Answer, ignored: Collection[str], points: int) -> Iterator[dict[str, Any]]:
    start_ns, step_ns = parse_utc(answer.start), answer.step_s * NS_PER_S
    for series in answer.firing:
        name, severity, criterion = (series.metric.get(key, "") for key in ("alertname", "severity", "criterion"))
        places = sorted({place for place, _ in _places(answer, series, points)})
        if not places:
            continue
        # An unknown severity is a grave one.
        counts_as = "" if criterion in ignored else _MINOR.get(severity.casefold(), "critical")
        yield {
            "alertname": name,
            "severity": severity,
            "criterion": criterion,
            "counts_as": counts_as,
            "firings": 1 + sum(after - before > 1 for before, after in pairwise(places)),
            "first": format_utc(start_ns + places[0] * step_ns),
            "last": format_utc(start_ns + places[-1] * step_ns),
        }


def _check(name: str, value: float | None, bound: float, verdict: Verdict, reason: str) -> Check:
    said = ("", "") if verdict is Verdict.PASS else (reason, "a window that was watched all the time, without alerts")
    return Check(name, value, bound, value, value, 1, verdict, True, *said)
