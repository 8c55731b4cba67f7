"""Keep of a decision log what evidence is computed from, and find the market data that it was made on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from probatum.core.errors import InconclusiveError, ParameterError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.dataset import Dataset
from probatum.pipeline.ports import Sources

COLUMNS = (
    "seq", "ts", "as_of", "since", "symbol", "fingerprint", "champion_outcome", "outcome", "baseline", "champion", "challenger", "provenance",
)  # fmt: skip


def encode(frame: pl.DataFrame) -> bytes:
    """Return decisions as Parquet: what was logged of features, scores and times."""
    out = io.BytesIO()
    frame.select(*COLUMNS, pl.col("^f_.*$")).write_parquet(out, compression="zstd")
    return out.getvalue()


def decode(sources: Sources, digest: str) -> pl.DataFrame:
    """Return stored decisions, each with its ``place`` in the order of the log."""
    return pl.read_parquet(io.BytesIO(sources.blobs.get("decisions", digest))).with_row_index("place")


def values_of(frame: pl.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the logged features, float64[n, k]; NaN where one is missing."""
    chosen = frame.select(pl.col(f"f_{name}").fill_null(float("nan")) for name in names)
    return np.ascontiguousarray(chosen.to_numpy(), dtype=np.float64).reshape(frame.height, len(names))


def datasets_of(sources: Sources, frame: pl.DataFrame, named: str | None) -> dict[str, Dataset]:
    """Return the newest dataset of each logged symbol, where there is one; all are ``named``'s, where that is given.

    Raises UnknownNameError where ``named`` is not there, and InconclusiveError where no logged symbol has data.
    """
    found: dict[str, Dataset] = {}
    symbols = sorted(frame["symbol"].unique())
    for symbol in symbols:
        # A caller may name no symbol, or one that no dataset can bear: its decisions are counted, not an error.
        with suppress(*(() if named else (UnknownNameError, ParameterError))):
            found[symbol] = sources.datasets.load(named or symbol)
    if not found:
        raise InconclusiveError(
            f"no market data are stored of what was logged: {', '.join(symbols[:9]) or 'no symbol'}"
        )
    return found


def inputs_of(datasets: dict[str, Dataset]) -> dict[str, Any]:
    """Name the datasets in a record, in the order of the symbols as they were logged."""
    return {
        "logged_as": list(datasets),
        "symbols": [dataset.symbol for dataset in datasets.values()],
        "datasets": [dataset.sha256 for dataset in datasets.values()],
    }


def load(sources: Sources, inputs: dict[str, Any]) -> dict[str, Dataset]:
    """Return the datasets that :func:`inputs_of` named."""
    columns = (inputs[name] for name in ("logged_as", "symbols", "datasets"))
    return {logged: sources.datasets.load(symbol, sha256) for logged, symbol, sha256 in zip(*columns, strict=True)}


def class_of(frame: pl.DataFrame, datasets: dict[str, Dataset]) -> Provenance:
    """Return the class of what is computed from decisions and data: the weakest that the log and the data vouch for."""
    said = map(Provenance, frame["provenance"].unique())
    return Provenance.weakest([*(dataset.provenance for dataset in datasets.values()), *said])
