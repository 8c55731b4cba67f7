"""Judge how a challenger did in the shadow, from the executor's own counts before and after the decisions."""

from __future__ import annotations

import io
from typing import Any

import msgspec

from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance
from probatum.monitoring.shadow import DELTA_EDGES, SLOW_BOUNDS_MS, Outcome, ShadowCounts
from probatum.pipeline.evidence import prove
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.pipeline.smoke import rate
from probatum.rollout.criteria import SHADOW_CRITERIA, SMOKE_SLOW_MS, Measurement, assess


class ShadowRun(msgspec.Struct, frozen=True):
    """Hold what one run through the executor recorded.

    ``replies`` is Parquet with one row a decision: intended_ns, latency_ns, status (< 0: none), prediction (null without
    one). ``before`` and ``after`` are the executor's ``counts`` (:meth:`ShadowCounts.to_dict`) as JSON.
    """

    model: str
    artifact: str
    symbol: str
    delivery: str
    started: str
    rate_per_s: float
    replies: bytes
    before: bytes
    after: bytes


def record_shadow(kind: str, run: ShadowRun, provenance: Provenance, ledger: Ledger, sources: Sources) -> Record:
    """Store replies and counts and append ``kind`` (``shadow_smoke_1k`` or ``shadow_replay``)."""
    inputs = {
        **{name: getattr(run, name) for name in ("artifact", "symbol", "delivery", "started", "rate_per_s")},
        "version": run.model,
        "requests": sources.blobs.put("requests", run.replies),
        "before": {"counts": sources.blobs.put("counts", run.before)},
        "after": {"counts": sources.blobs.put("counts", run.after)},
    }
    return prove(ledger, sources, kind=kind, subject=run.model, provenance=provenance, inputs=inputs, derive=figures)


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute the integer counts by outcome, the rates and bounds from them, and the reply latencies."""
    import numpy as np
    import polars as pl

    frame = pl.read_parquet(io.BytesIO(sources.blobs.get("requests", inputs["requests"])))
    answered = int(((frame["status"] == 200) & frame["prediction"].is_not_null()).sum())
    counts = _difference(sources, inputs)
    ok, failures = counts.outcomes[Outcome.OK], counts.failures
    attempts, skipped = counts.attempts, counts.outcomes[Outcome.SKIPPED]
    slow = counts.slow[SLOW_BOUNDS_MS.index(int(SMOKE_SLOW_MS))]
    called = attempts - skipped
    assessment = assess(
        SHADOW_CRITERIA,
        {
            "unanswered_decisions": Measurement.counted(float(frame.height - answered), frame.height),
            "uncounted_requests": Measurement.counted(float(abs(answered - attempts)), frame.height),
            **({"shadow_error_rate": rate(failures, called), "slow_rate": rate(slow, called)} if called else {}),
            **({"match_rate": rate(counts.matches, ok)} if ok else {}),
        },
    )
    latency_ms = frame["latency_ns"].to_numpy() / 1e6
    return {
        "version": inputs["version"],
        "total_requests": frame.height,
        "baseline_answered": answered,
        "attempts": attempts,
        **{outcome.value: count for outcome, count in counts.outcomes.items()},
        "failures": failures,
        "coverage": ok / attempts if attempts else None,
        "matches": counts.matches,
        "mismatches": counts.mismatches,
        "match_rate": counts.match_rate,
        "agreements": counts.agreements,
        "delta_histogram": {"edges": list(DELTA_EDGES), "counts": counts.deltas},
        "slower_than_ms": dict(zip(map(str, SLOW_BOUNDS_MS), counts.slow, strict=True)),
        "shadow_latency_ms": _quantiles(counts),
        "reply_latency_ms": {f"p{q}": float(np.quantile(latency_ms, q / 100, method="higher")) for q in (50, 95, 99)},
        **msgspec.to_builtins(assessment),
    }


def _difference(sources: Sources, inputs: dict[str, Any]) -> ShadowCounts:
    """Return what the executor counted between the two readings; a counter that fell means another process."""
    before, after = (
        msgspec.json.decode(sources.blobs.get("counts", inputs[when]["counts"])) for when in ("before", "after")
    )
    counts = ShadowCounts()
    counts.merge(_subtract(after, before))
    return counts


def _subtract(after: Any, before: Any) -> Any:
    if isinstance(after, dict):
        return {key: _subtract(value, before.get(key, _zero(value))) for key, value in after.items()}
    if isinstance(after, list):
        return [_subtract(a, b) for a, b in zip(after, before, strict=True)]
    if after < before:
        raise IntegrityError("shadow counts", f"fell from {before} to {after}: the executor was started anew")
    return after - before


def _zero(value: Any) -> Any:
    return {} if isinstance(value, dict) else 0


def _quantiles(counts: ShadowCounts) -> dict[str, float] | None:
    sketch = counts.shadow_latency
    return {f"p{q}": sketch.quantile_ms(q / 100) for q in (50, 95, 99)} if sketch.count else None
