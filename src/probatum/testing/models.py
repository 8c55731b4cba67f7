"""Check that a model keeps the promises which training, verification and serving rest on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from probatum.core.canonical import canonical_json, digest
from probatum.core.clock import NS_PER_MINUTE, NS_PER_S
from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance
from probatum.market.calendar import Calendar
from probatum.market.dataset import BAR_SCHEMA, Dataset
from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, ModelData, PluginModel
from probatum.models.scoring import Scorer, compile_scorer
from probatum.models.trainer import PluginTrainer, Trainer

NAMES = ("momentum", "volatility", "hour")
EXTREMES = (0.0, -0.0, 1e-300, -1e6, 1e6, 1e12, -1e12)


def toy_rows(
    names: Sequence[str] = NAMES, rows: int = 600, seed: int = 7
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Return seeded rows float64[n, k] and labels int8[n] with something to learn in the first column."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(4, size=(rows, len(names)))
    label = (values[:, 0] + rng.normal(size=rows) > 0.0).astype(np.int8)
    return values, label


def toy_dataset(symbol: str = "TOY", *, days: int = 8, seed: int = 7) -> Dataset:
    """Return one-minute bars, class synthetic, whose volatility clusters: large moves are learnable, directions are not."""
    rng = np.random.default_rng(seed)
    n = days * 1440
    wave = rng.normal(size=n // 20 + 2)
    for i in range(1, len(wave)):  # log volatility, mean-reverting over some hours
        wave[i] = 0.9 * wave[i - 1] + 0.3 * wave[i]
    sigma = 5e-4 * np.exp(np.interp(np.arange(n) / 20.0, np.arange(len(wave)), wave))
    close = 100.0 * np.exp(np.cumsum(sigma * rng.normal(size=n)))
    opens = np.append(100.0, close[:-1])
    ts = 1_704_067_200 * NS_PER_S + NS_PER_MINUTE * np.arange(1, n + 1)
    volume = 1e3 * sigma * rng.lognormal(10.0, 0.5, size=n)
    columns = (ts, ts, opens, np.maximum(opens, close), np.minimum(opens, close), close, volume)
    names = [name for name in BAR_SCHEMA if name != "spread"]
    frame = pl.DataFrame(dict(zip(names, columns, strict=True))).with_columns(spread=pl.lit(None, pl.Float64))
    sha256 = digest([symbol, days, seed])
    return Dataset(symbol, Provenance.SYNTHETIC, sha256, Calendar(), None, bars=frame.select(list(BAR_SCHEMA)))


def toy_artifact(model: ModelData, names: Sequence[str] = NAMES, target: str = "direction@60s") -> Artifact:
    """Return the smallest valid artifact around a model; it says that its data are synthetic."""
    start = "2024-01-01T00:00:00Z"
    return Artifact(
        name="toy",
        model=model,
        features=FeatureSpec("toy", tuple(names), "0" * 64),
        target=target,
        grid_ns=None,
        reference={},
        data=DataSpec(("TOY",), ("0" * 64,), Provenance.SYNTHETIC, 1, start, start),
        split={},
        seed=7,
        versions={},
        metrics={},
    )


def check_model(trainer: Trainer, *, names: Sequence[str] = NAMES, seed: int = 7) -> None:
    """Raise AssertionError, naming the broken promise, unless a trainer may be used with ``probatum train``.

    It must leave its rows alone, give the same bytes twice, keep nothing but plain data, and score any finite row within
    [0, 1], the same row alike. A user's own trainer is checked through its ``scorer``, without being installed.
    """
    if not isinstance(trainer, Trainer):
        raise ParameterError("trainer", "an object with fit(values, label, *, names, seed)", trainer)
    values, label = toy_rows(names, seed=seed)
    values.flags.writeable = label.flags.writeable = False
    model = trainer.fit(values, label, names=names, seed=seed)
    data = _plain(model)
    _require(_plain(trainer.fit(values, label, names=names, seed=seed)) == data, "training twice gives other bytes")
    again = msgspec.json.decode(data, type=ModelData)  # what serving will read
    scorer = _scorer(trainer, again, names)
    for row in [*values[:200].tolist(), *([value] * len(names) for value in EXTREMES)]:
        _check_score(scorer, row)


def _plain(model: ModelData) -> bytes:
    _require(isinstance(model, ModelData), f"fit returns {type(model).__name__}, not one of the kinds of ModelData")
    return canonical_json(msgspec.to_builtins(model))


def _scorer(trainer: Trainer, model: ModelData, names: Sequence[str]) -> Scorer:
    if not isinstance(model, PluginModel):
        return compile_scorer(toy_artifact(model, names))
    _require(isinstance(trainer, PluginTrainer), "a trainer that returns a PluginModel needs scorer(payload)")
    scorer: Scorer = trainer.scorer(model.payload)  # type: ignore[attr-defined]
    return scorer


def _check_score(scorer: Scorer, row: list[float]) -> None:
    score = scorer(row)
    valid = isinstance(score, float) and math.isfinite(score) and 0.0 <= score <= 1.0
    _require(valid, f"score {score!r} of row {row} is not a float within [0, 1]")
    _require(scorer(row) == score, f"row {row} scores differently the second time")


def _require(condition: bool, promise: str) -> None:
    if not condition:
        raise AssertionError(promise)
