"""Store what a model said about the rows that it is judged on, so that anyone can recompute every figure from it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from probatum.core.errors import IntegrityError
from probatum.features.labels import parse_target
from probatum.features.samples import Samples, build_samples
from probatum.market.dataset import Dataset
from probatum.models.artifact import Artifact
from probatum.models.baseline import bind, get_baseline
from probatum.models.scoring import score_rows
from probatum.pipeline.ports import Progress
from probatum.pipeline.training import inputs_of, samples_of

SCHEMA: dict[str, pl.DataType] = {
    "ts": pl.Int64(),
    "symbol": pl.String(),
    "label": pl.Int8(),
    "score": pl.Float64(),
    "baseline": pl.Float64(),
    "champion": pl.Float64(),
    "fwd_return": pl.Float64(),
}
_OPTIONAL = ("baseline", "champion")
_PREFIX = "f_"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Hold n judged rows in time order; ``baseline`` and ``champion`` are None where they could not score every row."""

    ts: NDArray[np.int64]
    symbol: NDArray[np.str_]
    label: NDArray[np.int8]
    score: Floats
    baseline: Floats | None
    champion: Floats | None
    fwd_return: Floats
    names: tuple[str, ...]
    values: Floats

    def __len__(self) -> int:
        return int(self.ts.shape[0])


def predict_test(
    artifact: Artifact, datasets: Sequence[Dataset], champion: Artifact | None, progress: Progress | None = None
) -> bytes:
    """Return Parquet of the artifact's test rows: labels, its scores, the baseline's and the champion's, its features."""
    samples, parts = samples_of(inputs_of(artifact), datasets, progress)
    if samples.feature_set.fingerprint != artifact.features.fingerprint:
        raise IntegrityError(
            f"artifact {artifact.name}", "its feature set is not the one that these data and this version give"
        )
    rows = samples.take(parts.test)
    baseline = bind(get_baseline(artifact.target), rows.feature_set.names)
    frame = pl.DataFrame(
        {
            "ts": rows.ts,
            "symbol": rows.symbol.tolist(),
            "label": rows.label,
            "score": score_rows(artifact, rows.values),
            "baseline": None if baseline is None else [baseline(row) for row in rows.values.tolist()],
            "champion": None if champion is None else _champion_scores(champion, rows, datasets),
            "fwd_return": rows.fwd_return,
            **{_PREFIX + name: rows.values[:, i] for i, name in enumerate(rows.feature_set.names)},
        },
        schema_overrides=SCHEMA,
    )
    return encode(frame)


def encode(frame: pl.DataFrame) -> bytes:
    """Return a frame as Parquet, the same bytes for the same frame."""
    out = io.BytesIO()
    frame.write_parquet(out, compression="zstd")
    return out.getvalue()


def read_predictions(data: bytes, place: str) -> Predictions:
    """Read stored predictions; IntegrityError names ``place`` where columns, types or values are not what they must be."""
    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except Exception as error:  # polars raises many kinds, none documented, for bytes that are no Parquet
        raise IntegrityError(place, f"not Parquet: {error}") from None
    features = [name for name in frame.columns if name.startswith(_PREFIX)]
    expected = {**SCHEMA, **dict.fromkeys(features, pl.Float64())}
    if dict(frame.schema) != expected or frame.is_empty():
        raise IntegrityError(place, f"columns are not {', '.join(SCHEMA)} and f_…, or there are no rows")
    needed = frame.drop(_OPTIONAL)
    if any(needed.null_count().row(0)) or not frame["label"].is_in([0, 1]).all():
        raise IntegrityError(place, "a value is missing, or a label is neither 0 nor 1")
    if not frame["score"].is_between(0.0, 1.0).all() or not frame["ts"].is_sorted():
        raise IntegrityError(place, "a score lies outside [0, 1], or rows are not in time order")
    return Predictions(
        ts=frame["ts"].to_numpy(),
        symbol=frame["symbol"].to_numpy().astype(np.str_),
        label=frame["label"].to_numpy(),
        score=frame["score"].to_numpy(),
        fwd_return=frame["fwd_return"].to_numpy(),
        names=tuple(name.removeprefix(_PREFIX) for name in features),
        values=np.ascontiguousarray(frame.select(features).to_numpy()),
        **{name: None if frame[name].null_count() else frame[name].to_numpy() for name in _OPTIONAL},
    )


def _champion_scores(champion: Artifact, rows: Samples, datasets: Sequence[Dataset]) -> pl.Series:
    """Score the same moments with the champion's own features; a moment it has no row for is null."""
    samples = build_samples(datasets, champion.features.set, parse_target(rows.target.name), grid_ns=champion.grid_ns)
    if samples.feature_set.fingerprint != champion.features.fingerprint:
        raise IntegrityError(f"artifact {champion.name}", "the champion's features cannot be built from these data")
    known = pl.DataFrame(
        {"ts": samples.ts, "symbol": samples.symbol.tolist(), "score": score_rows(champion, samples.values)}
    )
    wanted = pl.DataFrame({"ts": rows.ts, "symbol": rows.symbol.tolist()})
    return wanted.join(known, on=["ts", "symbol"], how="left", maintain_order="left")["score"]
