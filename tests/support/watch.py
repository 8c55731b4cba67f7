"""A model at work and the decisions that executors would have logged of it."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl

from probatum.adapters.decision_log import table_of
from probatum.core.clock import NS_PER_HOUR, NS_PER_MS, NS_PER_S, VirtualClock, parse_utc
from probatum.core.verdict import Provenance
from probatum.models.artifact import Artifact, FeatureSpec
from probatum.pipeline.ports import Record
from probatum.pipeline.registry import CHALLENGER, load_artifact, move_alias
from probatum.pipeline.training import TrainingPlan, train
from probatum.testing.fakes import MemoryDecisions, MemoryLedger, MemorySources
from probatum.testing.models import toy_dataset

MONDAY = parse_utc("2026-03-02T00:00:00Z")
COLUMNS = table_of(FeatureSpec("", (), ""), []).columns


@cache
def trained() -> tuple[MemorySources, str]:
    """Train once on eight days of bars."""
    sources = MemorySources([toy_dataset(days=8)])
    plan = TrainingPlan(symbols=("TOY",), set="v1.8.1", target="direction@60s", model="logistic", name="watched")
    return sources, train(MemoryLedger(), sources, plan).digest


def desk(clock: VirtualClock) -> tuple[MemorySources, Artifact]:
    """Return sources of their own whose challenger is the trained model."""
    judged, digest = trained()
    sources = MemorySources([toy_dataset(days=8)])
    sources.blobs._data.update(judged.blobs._data)
    sources.ledger = MemoryLedger(clock)
    move_alias(sources.ledger, sources, CHALLENGER, digest)
    return sources, load_artifact(sources, digest)


def logged(
    start_ns: int, hours: int, *, per_hour: int = 12, artifact: Artifact | None = None, seed: int = 7, symbol: str = "BTC"
) -> pl.DataFrame:
    """Return made-up decisions at a steady rate: of five hundred some fail, are late, differ, or were not mirrored."""
    rng = np.random.default_rng(seed)
    n = hours * per_hour
    draw = rng.random(n)
    outcome = np.select([draw < 0.01, draw < 0.02, draw < 0.05], ["error", "timeout", "skipped"], "ok")
    heard = outcome == "ok"
    challenger = np.where(rng.random(n) < 0.03, 0.7, 0.52)
    names = () if artifact is None else artifact.features.names
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
            **{f"f_{name}": rng.normal(size=n) for name in names},
            "fingerprint": ["" if artifact is None else artifact.features.fingerprint] * n,
            "provenance": [Provenance.SYNTHETIC.value] * n,
        }
    )  # fmt: skip
    assert set(COLUMNS) <= set(frame.columns)
    return frame


def decisions(frame: pl.DataFrame) -> MemoryDecisions:
    return MemoryDecisions(frame)


def of_kind(ledger: MemoryLedger, kind: str) -> list[Record]:
    return list(ledger.records(kind=kind))


def seconds(text: str) -> int:
    return parse_utc(text) // NS_PER_S
