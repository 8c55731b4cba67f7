"""Answers of a Prometheus about alerts, made up: what the adapter would have brought."""

from __future__ import annotations

from typing import Any

import msgspec

from probatum.core.clock import NS_PER_S, format_utc
from probatum.pipeline.alerts import Answer, Rule, Series, grid

JOBS = ("probatum-executor", "probatum-engine")


class Told:
    """A Prometheus that watched all the time, but for what is said. ``firing`` maps (alert, severity, criterion) to points."""

    def __init__(self, firing: dict[tuple[str, str, str], list[int]] | None = None, **changes: Any) -> None:
        self.firing, self.changes = firing or {}, changes

    def read(self, window_s: int, now_ns: int) -> bytes:
        start, end, step_s = grid(window_s, now_ns)
        whole = [(float(at), "1") for at in range(start, end + 1, step_s)]
        answer = Answer(
            source="http://prometheus", start=format_utc(start * NS_PER_S), end=format_utc(end * NS_PER_S),
            step_s=step_s, jobs=JOBS, loaded="2020-01-01T00:00:00Z", rules=(Rule("MLEngineDown", "ok"),),
            up=tuple(Series({"job": job}, whole) for job in JOBS),
            firing=tuple(
                Series(dict(zip(("alertname", "severity", "criterion"), key, strict=True)), [whole[i] for i in points])
                for key, points in self.firing.items()
            ),
        )  # fmt: skip
        return msgspec.json.encode(msgspec.structs.replace(answer, **self.changes))
