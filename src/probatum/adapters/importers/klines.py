"""Read Binance kline dumps: one-minute bars, stamped by the source at their open and by us at their close."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from probatum.adapters.importers.files import Text, number, printable, read_table, refuse_rows, require, time_ns
from probatum.adapters.importers.source import Options, canonical, open_all, require_one_minute, symbol_of
from probatum.core.clock import NS_PER_MINUTE
from probatum.core.errors import DataError
from probatum.core.verdict import Provenance
from probatum.market.calendar import CALENDARS
from probatum.market.quality import Recording, SourceFile

COLUMNS = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)
TIME_NAMES = ("open_time", "datetime", "timestamp")


def read_klines(paths: Sequence[Path], options: Options) -> Recording:
    """Read dumps with 12 columns (with a header or without), or ``datetime,open,high,low,close,volume``.

    Times are ms, or µs since 2025-01-01, told apart by magnitude; or ISO text, UTC where it names no zone.
    """
    texts = open_all(paths, (".csv", ".zip"))
    symbol = symbol_of(texts, options)
    read = [_read(text, index, options) for index, text in enumerate(texts)]
    return Recording(
        format="binance-klines",
        symbol=symbol,
        provenance=Provenance.REPLAY,
        calendar=options.calendar or CALENDARS["24x7"],
        tick_size=options.tick_size,
        frames={"bars": pl.concat([frame for frame, _ in read])},
        sources=tuple(SourceFile(t.base, t.sha256, frame.height) for t, (frame, _) in zip(texts, read, strict=True)),
        decisions=tuple(dict.fromkeys(decision for _, decision in read)),
    )


def _read(text: Text, index: int, options: Options) -> tuple[pl.DataFrame, str]:
    header = text.data.lstrip(b"\xef\xbb\xbf")[:1].isalpha()
    frame = read_table(text, None if header else COLUMNS)
    time_name = next((name for name in TIME_NAMES if name in frame.columns), TIME_NAMES[0])
    require(text, frame, (time_name, "open", "high", "low", "close", "volume"))
    unknown = set(frame.columns) - {*COLUMNS, *TIME_NAMES, "row", "flag"}
    if unknown:
        raise DataError(f"unknown column {printable(', '.join(sorted(unknown)))}", file=text.name, row=1)
    opens, decision = time_ns(text, frame, time_name, zone=options.time_zone, units=("ms", "us"))
    if "close_time" in frame.columns:
        closes, _ = time_ns(text, frame, "close_time", zone=options.time_zone, units=("ms", "us"))
        _require_close_after_a_minute(text, frame, opens, closes)
    require_one_minute(text, opens)
    values = [number(text, frame, name).alias(name) for name in ("open", "high", "low", "close", "volume")]
    closes = (opens + NS_PER_MINUTE).alias("ts_event")
    bars = frame.select("row", "flag").with_columns(closes, closes.alias("ts_recv"), *values)
    return canonical("bars", bars, index), f"{decision}; bars are stamped at their close, open time + 60 s"


def _require_close_after_a_minute(text: Text, frame: pl.DataFrame, opens: pl.Series, closes: pl.Series) -> None:
    # The dumps close a bar one unit (ms or µs) before the next one opens.
    short = NS_PER_MINUTE - (closes - opens)
    refuse_rows(text, frame, "close_time", ~short.is_in([0, 1_000, 1_000_000]), "the bar does not cover one minute")
