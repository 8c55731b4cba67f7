"""Judge a smoke test of the engine from the replies that were stored, never from what the sender believed."""

from __future__ import annotations

import io
from typing import Any

import msgspec

from probatum.core.verdict import Provenance
from probatum.pipeline.evidence import prove
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.rollout.bounds import clopper_pearson
from probatum.rollout.criteria import SMOKE_CRITERIA, SMOKE_SLOW_MS, Measurement, assess


class SmokeRun(msgspec.Struct, frozen=True):
    """Hold what one smoke run recorded.

    ``requests`` is Parquet with one row a request: intended_ns, latency_ns, status (< 0: no reply), score (null without
    one). ``metrics_before`` and ``metrics_after`` are the engine's exposition around the run.
    """

    model: str
    version: str
    started: str
    rate_per_s: float
    requests: bytes
    metrics_before: bytes
    metrics_after: bytes
    artifact: str


def record_smoke(run: SmokeRun, provenance: Provenance, ledger: Ledger, sources: Sources) -> Record:
    """Store the replies and append ``smoke_1k``; provenance is that of the rows that were sent."""
    inputs = {
        "version": run.version,
        "artifact": run.artifact,
        "started": run.started,
        "rate_per_s": run.rate_per_s,
        "requests": sources.blobs.put("requests", run.requests),
        "before": {"metrics": sources.blobs.put("metrics", run.metrics_before)},
        "after": {"metrics": sources.blobs.put("metrics", run.metrics_after)},
    }
    return prove(
        ledger, sources, kind="smoke_1k", subject=run.model, provenance=provenance, inputs=inputs, derive=figures
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute the figures of ``smoke_1k``: counts, quantiles, bounds and the engine's own count."""
    import numpy as np
    import polars as pl

    frame = pl.read_parquet(io.BytesIO(sources.blobs.get("requests", inputs["requests"])))
    latency_ms = frame["latency_ns"].to_numpy() / 1e6
    total, success = frame.height, int(((frame["status"] == 200) & frame["score"].is_not_null()).sum())
    # A request without a usable reply is slower than any bound: it never came.
    slow = int(((latency_ms >= SMOKE_SLOW_MS) | (frame["status"].to_numpy() != 200)).sum())
    quantile = {q: float(np.quantile(latency_ms, q / 100, method="higher")) for q in (50, 95, 99)}
    counted = _predictions(sources, inputs["after"]["metrics"]) - _predictions(sources, inputs["before"]["metrics"])
    assessment = assess(
        SMOKE_CRITERIA,
        {
            "success_rate": rate(success, total),
            "slow_rate": rate(slow, total),
            "uncounted_requests": Measurement.counted(float(abs(total - counted)), total),
        },
    )
    return {
        "version": inputs["version"],
        "total_requests": total,
        "success": success,
        "errors": total - success,
        "success_rate": success / total,
        "distinct_scores": frame["score"].n_unique(),
        "slow": slow,
        "latency_p50_ms": quantile[50],
        "latency_p95_ms": quantile[95],
        "latency_p99_ms": quantile[99],
        "latency_max_ms": float(latency_ms.max()),
        "duration_s": float((frame["intended_ns"] + frame["latency_ns"]).max()) / 1e9,  # type: ignore[arg-type]
        "engine_requests": counted,
        **msgspec.to_builtins(assessment),
    }


def rate(count: int, total: int) -> Measurement:
    """Return a share of independent trials with its Clopper-Pearson bounds: one look at an n fixed beforehand."""
    lower, upper = clopper_pearson(total, count)
    return Measurement(count / total, lower, upper, total)


def _predictions(sources: Sources, digest: str) -> int:
    """Return the engine's count of answered predict requests, whatever their outcome."""
    from prometheus_client.parser import text_string_to_metric_families

    text = sources.blobs.get("metrics", digest).decode()
    return sum(
        int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "ml_predict_requests_total"
    )
