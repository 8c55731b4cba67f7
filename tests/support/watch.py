"""A model at work and the decisions that executors would have logged of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from probatum.adapters.decision_log import LogSettings, ParquetDecisionLog, table_of
from probatum.core.clock import NS_PER_HOUR, NS_PER_MS, VirtualClock, parse_utc
from probatum.core.verdict import Provenance
from probatum.models.artifact import Artifact, FeatureSpec, LogisticModel
from probatum.models.scoring import score_rows
from probatum.monitoring.psi import freeze
from probatum.monitoring.shadow import DecisionRow
from probatum.pipeline.registry import CHALLENGER, move_alias
from probatum.testing.fakes import MemoryLedger, MemorySources
from probatum.testing.models import toy_artifact

MONDAY = parse_utc("2026-03-02T00:00:00Z")
COLUMNS = table_of(FeatureSpec("", (), ""), []).columns


NAMES = ("momentum", "volatility")


@cache
def model() -> Artifact:
    """Return a logistic model of two columns whose reference bins were frozen over a normal market."""
    values = np.random.default_rng(3).normal(size=(6_000, 2))
    fitted = LogisticModel(0.0, (1.0, 0.5), (-9.0, -9.0), (9.0, 9.0), (0.0, 0.0), (1.0, 1.0))
    bare = toy_artifact(fitted, NAMES)
    columns = {**dict(zip(NAMES, values.T, strict=True)), "score": score_rows(bare, values)}
    frozen = {name: freeze(column, raw=name != "score", block_rows=60) for name, column in columns.items()}
    data = msgspec.structs.replace(bare.data, provenance=Provenance.LIVE)  # so that the rows' class is what decides
    return msgspec.structs.replace(bare, name="watched", reference=frozen, data=data)


def desk(clock: VirtualClock) -> MemorySources:
    """Return sources of their own whose challenger is the model."""
    sources = MemorySources()
    sources.ledger = MemoryLedger(clock)
    move_alias(sources.ledger, sources, CHALLENGER, sources.blobs.put("artifact", model().to_bytes()))
    return sources


def logged(
    start_ns: int, hours: int, *, per_hour: int = 12, symbol: str = "BTC", shift: float = 0.0, seed: int = 7
) -> pl.DataFrame:
    """Return made-up decisions at a steady rate: of five hundred some fail, are late, differ, or were not mirrored."""
    rng = np.random.default_rng(seed)
    n = hours * per_hour
    draw = rng.random(n)
    outcome = np.select([draw < 0.01, draw < 0.02, draw < 0.05], ["error", "timeout", "skipped"], "ok")
    heard = outcome == "ok"
    challenger = np.where(rng.random(n) < 0.03, 0.7, 0.52)
    frame = pl.DataFrame(
        {
            "seq": np.arange(n),
            "ts": start_ns + np.arange(n) * (NS_PER_HOUR // per_hour),
            "as_of": np.zeros(n, np.int64),
            "decision_id": [f"d{i}" for i in range(n)],
            "strategy": [""] * n,
            "symbol": [symbol] * n,
            "session": [""] * n,
            "route": ["baseline"] * n,
            "champion_outcome": [""] * n,
            "outcome": outcome,
            "baseline": np.full(n, 0.5),
            "champion": pl.Series([None] * n, dtype=pl.Float64),
            "challenger": pl.Series([float(c) if ok else None for c, ok in zip(challenger, heard, strict=True)], dtype=pl.Float64),
            "baseline_ns": np.full(n, 900),
            "shadow_ns": pl.Series(
                [int(t) if ok else None for t, ok in zip(rng.lognormal(1.5, 1.2, n) * NS_PER_MS, heard, strict=True)], dtype=pl.Int64
            ),
            **{f"f_{name}": rng.normal(shift, size=n) for name in NAMES},
            "since": np.zeros(n, np.int64),
            "model": [""] * n,
            "fingerprint": [model().features.fingerprint] * n,
            "provenance": [Provenance.SYNTHETIC.value] * n,
        }
    )  # fmt: skip
    assert set(COLUMNS) <= set(frame.columns)
    return frame


def put(folder: Path, frame: pl.DataFrame) -> None:
    """Log rows as an executor does, to Parquet files of the real adapter."""
    names = [name for name in frame.columns if name.startswith("f_")]
    spec = FeatureSpec("toy", tuple(name[2:] for name in names), model().features.fingerprint)
    log = ParquetDecisionLog(folder, spec, VirtualClock(MONDAY), LogSettings(queue_rows=10**6, flush_s=0.01))
    for row in frame.iter_rows(named=True):
        features = [row[name] for name in names]
        kept = {name: row[name] for name in DecisionRow.__struct_fields__ if name in row}
        assert log.append(DecisionRow(**kept, features=features))
    log.close()
