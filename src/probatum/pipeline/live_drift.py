"""Take the hourly drift snapshot over what executors logged: seven days of vectors as the model saw them, hour by hour.

Evidence of kind ``psi_snapshot`` like that of :mod:`probatum.pipeline.drift`, whose rows come from the decision log: the
inputs name its pieces (``decisions``) instead of datasets, and each is counted into the frozen bins once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import polars as pl

from probatum.core.clock import NS_PER_DAY, format_utc, parse_utc
from probatum.core.verdict import Provenance
from probatum.models.artifact import Artifact, parse_artifact
from probatum.models.scoring import score_rows
from probatum.monitoring.psi import SCORE
from probatum.monitoring.windows import WindowCounts, count_window
from probatum.pipeline import control, drift
from probatum.pipeline.evidence import proven
from probatum.pipeline.hours import FEATURE, Pieces, by_symbol, provenance_of, read_hours, read_piece
from probatum.pipeline.ports import Blobs, Entry, Ledger, Sources
from probatum.pipeline.registry import CHALLENGER, CHAMPION, aliases

SPAN_NS = 7 * NS_PER_DAY


def models_at_work(ledger: Ledger) -> list[str]:
    """Return the digests of champion and challenger, and of what rollouts have a share for, each once."""
    named = aliases(ledger.records(kind="alias"))
    newest = {record.subject: control.read_document(record) for record in ledger.records(kind=control.KIND)}
    shared = [digest for item in newest.values() if item.share > 0.0 for digest in (item.champion, item.challenger)]
    return list(dict.fromkeys(d for d in (named.get(CHAMPION), named.get(CHALLENGER), *shared) if d))


def has_bins(sources: Sources, digest: str) -> bool:
    """Return whether a model froze reference bins: one that came from elsewhere may have none, and then nothing to drift from."""
    return bool(_artifact(sources.blobs, digest).reference)


def live_snapshot(sources: Sources, digest: str, pieces: Pieces, end_ns: int) -> Entry:
    """Return ``psi_snapshot`` of the seven days before ``end_ns``; too few rows, or none, are INCONCLUSIVE."""
    artifact = _artifact(sources.blobs, digest)
    start_ns = end_ns - SPAN_NS
    classed = provenance_of(read_hours(sources.blobs, pieces, start_ns, end_ns))
    inputs = {
        "artifact": digest,
        "decisions": pieces,
        "span": drift.ROLLING,
        "start": format_utc(start_ns),
        "end": format_utc(end_ns),
        "settings": msgspec.to_builtins(drift.default_settings()),
    }
    return proven(
        sources,
        kind=drift.KIND,
        subject=artifact.name,
        provenance=Provenance.weakest([artifact.data.provenance, classed]),
        inputs=inputs,
        derive=figures,
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Compute a snapshot again: from the pieces of the log, or, where it was taken of datasets, from those."""
    if "decisions" not in inputs:
        return drift.figures(inputs, sources)
    artifact = _artifact(sources.blobs, inputs["artifact"])
    start_ns, end_ns = parse_utc(inputs["start"]), parse_utc(inputs["end"])
    hours = read_hours(sources.blobs, inputs["decisions"], start_ns, end_ns)
    window = WindowCounts(0, {name: (0,) * (len(bins.edges) + 2) for name, bins in drift.frozen(artifact).items()})
    for piece in inputs["decisions"]:
        window = window.merge(_binned(sources.blobs, inputs["artifact"], piece["decisions"]))
    found = drift.judge_window(inputs, artifact, window, list(by_symbol(hours)), (start_ns, end_ns))
    return {**found, "provenance": provenance_of(hours).value}


@lru_cache(maxsize=8)
def _artifact(blobs: Blobs, digest: str) -> Artifact:
    return parse_artifact(blobs.get("artifact", digest), expected_digest=digest, place=f"artifact {digest[:12]}…")


@lru_cache(maxsize=4096)
def _binned(blobs: Blobs, digest: str, piece: str) -> WindowCounts:
    """Count the rows of a piece that were made for the artifact's features; both are named by what they hold."""
    artifact, rows = _artifact(blobs, digest), read_piece(blobs, piece)
    made, names = rows.filter(fingerprint=artifact.features.fingerprint), artifact.features.names
    columns = [
        pl.col(FEATURE + name) if FEATURE + name in made.columns else pl.lit(None, pl.Float64).alias(FEATURE + name)
        for name in names
    ]
    values = np.ascontiguousarray(made.select(columns).to_numpy(), dtype=np.float64).reshape(-1, len(names))
    scored = {SCORE: score_rows(artifact, values)}
    return count_window(
        drift.frozen(artifact), {**{name: values[:, place] for place, name in enumerate(names)}, **scored}
    )
