"""Write the Grafana dashboard from the same signals, bounds and series as the alerts."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from probatum.rollout import series, signals
from probatum.rollout.alerts import ALERTS
from probatum.rollout.criteria import SMOKE_SLOW_MS

TITLE = "Probatum"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24
_WINDOW = "5m"


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Show some queries, each with its legend. ``steps`` are (from value, colour) above the ``base`` colour, and drawn."""

    title: str
    kind: str = "timeseries"
    unit: str = "short"
    queries: tuple[tuple[str, str], ...]
    base: str = "green"
    steps: tuple[tuple[float, str], ...] = ()
    format: str = "time_series"
    options: dict[str, Any] = {}

    def to_json(self, number: int, place: dict[str, int]) -> dict[str, Any]:
        """Return the panel as Grafana's model has it."""
        steps = [
            {"value": None, "color": self.base},
            *({"value": value, "color": color} for value, color in self.steps),
        ]
        drawn = {"thresholdsStyle": {"mode": "line" if self.steps else "off"}} if self.kind == "timeseries" else {}
        defaults = {"unit": self.unit, "thresholds": {"mode": "absolute", "steps": steps}, "custom": drawn}
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "gridPos": place,
            "datasource": _SOURCE,
            "targets": [
                {
                    "refId": chr(65 + i),
                    "expr": expr,
                    "legendFormat": legend,
                    "format": self.format,
                    "datasource": _SOURCE,
                }
                for i, (expr, legend) in enumerate(self.queries)
            ],
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": self.options,
        }


def dashboard() -> str:
    """Return ``grafana-ml-dashboard.json``: the nine panels, a row of the rollout; the last hour, every ten seconds."""
    row = {"id": 100, "type": "row", "title": "Rollout", "collapsed": False, "panels": []}
    lines = -(-len(_PANELS) // 3)
    panels = [
        *(panel.to_json(i + 1, _place(i, 0)) for i, panel in enumerate(_PANELS)),
        {**row, "gridPos": {"x": 0, "y": 8 * lines, "w": _WIDTH, "h": 1}},
        *(panel.to_json(i + 101, _place(i, 8 * lines + 1)) for i, panel in enumerate(_ROLLOUT)),
    ]
    found = {
        "uid": "probatum-ml",
        "title": TITLE,
        "tags": ["probatum"],
        "timezone": "utc",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }
    return json.dumps(found, indent=2) + "\n"


def queries() -> tuple[tuple[str, str], ...]:
    """Return (panel title, query) of everything that is asked."""
    return tuple((panel.title, expr) for panel in (*_PANELS, *_ROLLOUT) for expr, _ in panel.queries)


def _place(index: int, top: int) -> dict[str, int]:
    return {"x": 8 * (index % 3), "y": top + 8 * (index // 3), "w": 8, "h": 8}


def _quantile(q: float, metric: str) -> str:
    return f"histogram_quantile({q:g}, sum by (le) (rate({metric}_bucket[{_WINDOW}])))"


def _bound(name: str) -> float:
    return next(item.bound for item in ALERTS if item.name == name)


_MATCH = _bound("MLShadowMatchLow")
_COLOURED = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}

_PANELS = (
    Panel(
        title="Prediction latency",
        unit="ms",
        queries=tuple((_quantile(q, series.PREDICT_LATENCY), f"P{q * 100:g}") for q in (0.5, 0.95, 0.99)),
        steps=((SMOKE_SLOW_MS, "red"),),
    ),
    Panel(
        title="Shadow match rate",
        unit="percentunit",
        queries=((signals.SHADOW_MATCH.name, "match rate"), (f"vector({_MATCH:g})", "SLO")),
        base="red",
        steps=((_MATCH, "green"),),
    ),
    Panel(
        title="Shadow delta distribution",
        kind="bargauge",
        queries=((f"sum by (le) (increase({series.SHADOW_ABS_DELTA}_bucket[{_WINDOW}]))", "{{le}}"),),
        format="heatmap",
    ),
    Panel(
        title="PSI",
        queries=((f"max by (feature) ({series.PSI})", "{{feature}}"),),
        steps=((_bound("MLPSIWarning"), "orange"), (_bound("MLPSICritical"), "red")),
    ),
    Panel(
        title="Shadow and baseline latency, P95",
        unit="ms",
        queries=((_quantile(0.95, series.SHADOW_LATENCY), "shadow"), (_quantile(0.95, series.BASELINE_LATENCY), "baseline")),
    ),
    Panel(
        title="Predict requests",
        unit="reqps",
        queries=((f"sum by (status) (rate({series.PREDICT_REQUESTS}[{_WINDOW}]))", "{{status}}"),),
    ),
    Panel(
        title="Matches and mismatches",
        kind="stat",
        queries=((f"sum({series.SHADOW_MATCH})", "matches"), (f"sum({series.SHADOW_MISMATCH})", "mismatches")),
    ),
    Panel(
        title="Match rate now",
        kind="gauge",
        unit="percentunit",
        queries=((signals.SHADOW_MATCH.name, "match rate"),),
        base="red",
        steps=((_MATCH, "green"),),
    ),
    Panel(
        title="Model version",
        kind="stat",
        queries=((f"max by (version) ({series.MODEL_VERSION})", "{{version}}"),),
        options={**_COLOURED, "textMode": "name"},
    ),
)  # fmt: skip

_ROLLOUT = (
    Panel(title="Share", unit="percent", queries=((f"max by (run) ({series.CANARY_SHARE})", "{{run}}"),)),
    Panel(
        title="Canary: errors, slow replies, mismatches",
        unit="percentunit",
        queries=tuple(
            (signal.name, f"{{{{run}}}} {signal.name.split(':')[1]}")
            for signal in (signals.CANARY_ERRORS, signals.CANARY_SLOW, signals.CANARY_MISMATCHES)
        ),
        steps=((_bound("MLCanaryShadowErrorRateHigh"), "red"),),
    ),
    Panel(
        title="Samples by measure",
        queries=((f"sum by (run, measure) ({series.SAMPLES})", "{{run}} {{measure}}"),),
    ),
    Panel(
        title="Decisions by outcome",
        unit="reqps",
        queries=((f"sum by (outcome) (rate({series.SHADOW_OUTCOMES}[{_WINDOW}]))", "{{outcome}}"),),
    ),
    Panel(
        title="Alerts that fire",
        kind="stat",
        queries=(('count(ALERTS{alertstate="firing"}) or vector(0)', "alerts"),),
        steps=((1.0, "red"),),
    ),
    Panel(
        title="Age of the drift snapshot",
        kind="stat",
        unit="s",
        queries=((f"time() - max by (model) ({series.PSI_TIME})", "{{model}}"),),
        steps=((float(signals.PSI_OVERALL.lasts_s), "red"),),
    ),
)  # fmt: skip
