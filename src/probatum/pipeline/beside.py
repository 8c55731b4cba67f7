"""Gather what stood beside a live run: the decision log of its window, and the alerts.

The log is read, not the executors' own counts: those count since a process began, of every attempt alike, and end with it.
The log holds each decision of all replicas that write to its folder, however often they were restarted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from probatum.core.clock import NS_PER_HOUR, NS_PER_MS, NS_PER_S, format_utc, parse_utc
from probatum.monitoring.latency import LatencySketch
from probatum.monitoring.shadow import Outcome, ShadowCounts
from probatum.pipeline.alerts import BLOB, AlertHistory
from probatum.pipeline.ports import Decisions
from probatum.pipeline.registry import load_artifact
from probatum.pipeline.rollout import KIND, Rollout
from probatum.rollout.choose import Mode

AROUND = 10
_NOT_DUE = (Outcome.SKIPPED.value, "not_in_share", "")


def look_beside(rollout: Rollout, decisions: Decisions, history: AlertHistory | None) -> dict[str, Any]:
    """Return what a live run's record takes as further inputs: ``counts``, ``around`` and, of a Prometheus, ``alerts``.

    Nothing where the run had not begun; no counts where nothing was logged.
    """
    start_ns, end_ns = window_of(rollout)
    if not start_ns:
        return {}
    found: dict[str, Any] = {}
    counts, found["around"] = compare(rollout, decisions, start_ns, end_ns)
    if counts.attempts:
        found["counts"] = rollout.sources.blobs.put("counts", msgspec.json.encode(counts.to_dict()))
    if history is not None:
        window_s = max(1, (end_ns - start_ns) // NS_PER_S)
        found[BLOB] = rollout.sources.blobs.put(BLOB, history.read(window_s, end_ns))
    return found


def window_of(rollout: Rollout) -> tuple[int, int]:
    """Return when the run, or the validation behind it, began and what its newest event says the time is (0: not begun)."""
    assert rollout.head is not None
    end_ns = parse_utc(rollout.head.body["inputs"]["event"]["ts"])
    if rollout.state.phase < len(rollout.plan.ladder.shares_percent):
        return rollout.state.started_ts, end_ns
    events = (record.body["inputs"]["event"] for record in rollout.ledger.records(kind=KIND, subject=rollout.name))
    return max(parse_utc(event["ts"]) for event in events if event["event"] == "validation"), end_ns


def compare(
    rollout: Rollout, decisions: Decisions, start_ns: int, end_ns: int
) -> tuple[ShadowCounts, list[dict[str, Any]]]:
    """Count the logged decisions in [start, end], and pick the newest, those that brought no answer first of all."""
    gated = rollout.plan.mode is Mode.GATED
    fingerprint = load_artifact(rollout.sources, rollout.plan.model).features.fingerprint
    counts = ShadowCounts()
    newest, failed = deque[dict[str, Any]](maxlen=AROUND), deque[dict[str, Any]](maxlen=AROUND)
    for since in range(start_ns, end_ns + 1, NS_PER_HOUR):  # an hour at a time: days do not fit into memory
        table = decisions.read(since, min(since + NS_PER_HOUR, end_ns + 1))
        for row in _due(table.filter(pl.col("fingerprint") == fingerprint), gated):
            _count(counts, row)
            (newest if row["outcome"] == Outcome.OK.value else failed).append(row)
    if gated:  # the log holds the mirrored call's time, not the champion's
        counts.shadow_latency, counts.latency_delta = LatencySketch(), LatencySketch()
    return counts, [_shown(row) for row in failed or newest]


def _due(table: pl.DataFrame, gated: bool) -> Iterator[dict[str, Any]]:
    score, outcome = ("champion", "champion_outcome") if gated else ("challenger", "outcome")
    columns = [
        "ts",
        "baseline",
        "baseline_ns",
        "shadow_ns",
        pl.col(score).alias("score"),
        pl.col(outcome).alias("said"),
    ]
    for row in table.select(columns).rename({"said": "outcome"}).iter_rows(named=True):
        if (row["outcome"] or "") not in _NOT_DUE:
            yield row


def _count(counts: ShadowCounts, row: dict[str, Any]) -> None:
    if row["outcome"] == Outcome.OK.value and row["score"] is not None:
        counts.heard(row["baseline"], row["score"], row["baseline_ns"], row["shadow_ns"] or 0)
    else:  # drift, stale data and no engine: due, and not heard
        counts.missed(Outcome(row["outcome"]) if row["outcome"] in set(Outcome) else Outcome.SHED)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    latency_ms = None if row["shadow_ns"] is None else row["shadow_ns"] / NS_PER_MS
    shown = {name: row[name] for name in ("score", "baseline", "outcome")}
    return {"ts": format_utc(row["ts"]), **shown, "latency_ms": latency_ms}
