"""Write the alerts as the files that Prometheus reads; ``scale`` shortens every duration and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from probatum.rollout.alert_tests import prometheus_tests
from probatum.rollout.alerts import ALERTS, EVERY_S, Alert
from probatum.rollout.signals import SIGNALS, duration

RECORDING = "ml-recording"
TESTS = "tests/alerts.yml"
_HEAD = "# Written by `probatum rules build` from the criteria; a test fails when they differ.\n"


def rule_files(scale: float = 1.0) -> dict[str, str]:
    """Return name to text: the recorded signals, the alerts with their twins, and promtool's unit tests of true durations.

    With a scale there are no tests: what they prove are the durations.
    """
    groups = {RECORDING: [{"record": s.name, "expr": s.promql(scale)} for s in SIGNALS]}
    for alert in ALERTS:
        groups.setdefault(alert.file, []).extend(_rules(alert, scale))
    every = duration(EVERY_S, scale)
    files: dict[str, Any] = {
        f"{name}.yml": {"groups": [{"name": name, "interval": every, "rules": rules}]} for name, rules in groups.items()
    }
    if scale == 1.0:
        files[TESTS] = {
            "rule_files": [f"../{name}.yml" for name in groups],
            "evaluation_interval": every,
            "group_eval_order": list(groups),
            "tests": prometheus_tests(),
        }
    return {name: _HEAD + "\n".join(_yaml(content)) + "\n" for name, content in files.items()}


def _rules(alert: Alert, scale: float) -> Iterator[dict[str, Any]]:
    def rule(name: str, expr: str, labels: dict[str, str], summary: str) -> dict[str, Any]:
        held = {"for": duration(alert.for_s, scale), "labels": labels, "annotations": {"summary": summary}}
        return {"alert": name, "expr": expr, **held}

    yield rule(alert.name, alert.promql, alert.labels, alert.summary)
    yield rule(alert.twin, alert.twin_promql, alert.twin_labels, alert.twin_summary)


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Yield the lines of a value as YAML: blocks for what holds something, JSON for the rest."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _entry(f"{indent}{key}:", item, indent + "  ")
    elif isinstance(value, list) and value:
        for item in value:
            lines = list(_yaml(item, indent + "  "))
            yield f"{indent}- {lines[0].lstrip()}"
            yield from lines[1:]
    else:
        yield indent + json.dumps(value, ensure_ascii=False)


def _entry(key: str, item: Any, indent: str) -> Iterator[str]:
    if isinstance(item, dict | list) and item:
        yield key
        yield from _yaml(item, indent)
    else:
        yield f"{key} {json.dumps(item, ensure_ascii=False)}"


def alert_table() -> str:
    """Return the alerts as a table in Markdown, for the reference."""
    rows = ["| alert | severity | for | fires when | says |", "|---|---|---|---|---|"]
    for alert in ALERTS:
        condition = alert.promql.replace("|", "\\|")
        rows.append(f"| {alert.name} | {alert.severity} | {duration(alert.for_s)} | `{condition}` | {alert.summary} |")
    return "\n".join(rows) + "\n"
