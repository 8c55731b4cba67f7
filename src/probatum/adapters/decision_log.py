"""Log every decision to Parquet by way of a journal. ``seq`` counts decisions without gaps, so what is missing can be named."""

from __future__ import annotations

import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec

from probatum.adapters.journal import LogSettings, ParquetLog
from probatum.core.clock import Clock
from probatum.models.artifact import FeatureSpec
from probatum.monitoring.shadow import DecisionRow


class ParquetDecisionLog(ParquetLog[DecisionRow]):
    """Write decisions of one feature set to ``folder``."""

    def __init__(self, folder: Path, features: FeatureSpec, clock: Clock, settings: LogSettings | None = None) -> None:
        head = msgspec.msgpack.encode(features)
        super().__init__(folder, "decisions", head, decisions_parquet, clock, settings or LogSettings())


def decisions_parquet(head: bytes, slices: Sequence[bytes], pause_s: float = 0.0) -> tuple[int, bytes]:
    """Return (rows, Parquet bytes) of a journal of decisions."""
    features = msgspec.msgpack.decode(head, type=FeatureSpec)
    table = table_of(features, slices, pause_s)
    buffer = BytesIO()
    table.write_parquet(buffer, metadata={"feature_set": features.set, "fingerprint": features.fingerprint})
    return table.height, buffer.getvalue()


def table_of(features: FeatureSpec, slices: Sequence[bytes], pause_s: float = 0.0) -> Any:
    """Return the rows of a journal's frames (without the first, which is the feature set's) as a table."""
    import polars as pl

    schema = _schema(features)
    frames = []
    for payload in slices:
        columns = dict(
            zip(DecisionRow.__struct_fields__, zip(*msgspec.msgpack.decode(payload), strict=True), strict=True)
        )
        values = zip(*columns.pop("features"), strict=True)
        columns.update(zip((f"f_{name}" for name in features.names), values, strict=True))
        frames.append(pl.DataFrame({name: columns[name] for name in schema}, schema=schema))
        if pause_s:
            time.sleep(pause_s)  # gives the interpreter back to whoever owes a reply
    return pl.concat([pl.DataFrame(schema=schema), *frames])


def _schema(features: FeatureSpec) -> dict[str, Any]:
    import polars as pl

    text, whole, real = pl.Utf8(), pl.Int64(), pl.Float64()
    types = {
        "seq": whole, "ts": whole, "as_of": whole, "decision_id": text, "strategy": text, "symbol": text,
        "session": text, "route": text, "champion_outcome": text, "outcome": text, "baseline": real, "champion": real,
        "challenger": real, "baseline_ns": whole, "shadow_ns": whole, "since": whole, "model": text,
    }  # fmt: skip
    return types | {f"f_{name}": real for name in features.names}
