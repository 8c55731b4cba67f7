"""Hold one instrument's market data with its provenance, and the calendar its gaps are judged by."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance
from probatum.market.calendar import Calendar

QUOTE_SCHEMA: dict[str, pl.DataType] = {
    "ts_event": pl.Int64(),
    "ts_recv": pl.Int64(),
    "bid": pl.Float64(),
    "ask": pl.Float64(),
    "bid_size": pl.Float64(),
    "ask_size": pl.Float64(),
}
TRADE_SCHEMA: dict[str, pl.DataType] = {
    "ts_event": pl.Int64(),
    "ts_recv": pl.Int64(),
    "price": pl.Float64(),
    "size": pl.Float64(),
    "side": pl.Int8(),
}
BAR_SCHEMA: dict[str, pl.DataType] = {
    "ts_event": pl.Int64(),
    "ts_recv": pl.Int64(),
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "spread": pl.Float64(),
}
SCHEMAS: dict[str, dict[str, pl.DataType]] = {"bars": BAR_SCHEMA, "quotes": QUOTE_SCHEMA, "trades": TRADE_SCHEMA}
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


def check_symbol(symbol: str) -> str:
    """Return a symbol that may also name a folder, or raise ParameterError."""
    if not _SYMBOL.fullmatch(symbol):
        raise ParameterError(
            "symbol", "1 to 40 letters, digits, '.', '_' or '-', starting with a letter or digit", symbol
        )
    return symbol


@dataclass(frozen=True)
class Dataset:
    """Hold frames in the canonical schemas, sorted by ``ts_event`` (ns UTC); ``sha256`` names exactly these bytes.

    ``bars`` are one-minute bars stamped at close; ``volume`` and ``spread`` are null where the source has none.
    ``sha256`` is empty until the dataset is stored.
    """

    symbol: str
    provenance: Provenance
    sha256: str
    calendar: Calendar
    tick_size: float | None
    bars: pl.DataFrame | None = None
    quotes: pl.DataFrame | None = None
    trades: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        check_symbol(self.symbol)
        for kind, frame in self.frames.items():
            if dict(frame.schema) != SCHEMAS[kind]:
                raise ParameterError(kind, f"a frame with the columns {list(SCHEMAS[kind])}", dict(frame.schema))
            if not frame["ts_event"].is_sorted():
                raise ParameterError(kind, "in time order", "a later row with an earlier ts_event")

    @property
    def frames(self) -> dict[str, pl.DataFrame]:
        """Return the frames that are there, by kind."""
        return {kind: frame for kind in SCHEMAS if (frame := getattr(self, kind)) is not None}

    @property
    def spine(self) -> str:
        """Return the kind whose rows must not be missing: bars, else quotes, else trades (which may be quiet)."""
        if not self.frames:
            raise ParameterError("dataset", "at least one of bars, quotes and trades", "none")
        return next(iter(self.frames))

    def between(self, start: int, end: int) -> Dataset:
        """Return the part of (start, end] by time (ns)."""
        frames: dict[str, Any] = {kind: _cut(frame, start, end) for kind, frame in self.frames.items()}
        return replace(self, **frames)


def _cut(frame: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    ts = frame["ts_event"]
    low, high = (int(ts.search_sorted(bound, side="right")) for bound in (start, end))
    return frame.slice(low, high - low)
