"""Hold one instrument's market data with its provenance, and the calendar its gaps are judged by."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

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


@dataclass(frozen=True)
class Dataset:
    """Hold frames in the canonical schemas, sorted by ``ts_event`` (ns UTC); ``sha256`` names exactly these bytes.

    ``bars`` are one-minute bars stamped at close; ``volume`` and ``spread`` are null where the source has none.
    """

    symbol: str
    provenance: Provenance
    sha256: str
    calendar: Calendar
    tick_size: float | None
    bars: pl.DataFrame | None = None
    quotes: pl.DataFrame | None = None
    trades: pl.DataFrame | None = None
