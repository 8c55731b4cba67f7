"""Read Lean's equity tick zips (``20131007_quote.zip``, ``20131007_trade.zip``): New York time, prices in 1/10,000."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from probatum.adapters.importers.files import Text, number, read_table, refuse_rows
from probatum.adapters.importers.source import Options, canonical, open_all
from probatum.core.clock import NS_PER_MS, NS_PER_S
from probatum.core.errors import DataError, ParameterError
from probatum.core.verdict import Provenance
from probatum.market.calendar import CALENDARS
from probatum.market.dataset import check_symbol
from probatum.market.quality import Recording, SourceFile

QUOTE_COLUMNS = ("ms", "bid", "bid_size", "ask", "ask_size", "exchange", "condition", "suspicious")
TRADE_COLUMNS = ("ms", "price", "size", "exchange", "condition", "suspicious")
PRICE_SCALE = 10_000.0
TICK_SIZE = 0.01
DAY_MS = 86_400_000
_NEW_YORK = ZoneInfo("America/New_York")
_FILE = re.compile(r"(\d{8})_(quote|trade)\.zip")
_MEMBER = re.compile(r"\d{8}_([A-Za-z0-9.]+)_(?:quote|trade)_tick", re.IGNORECASE)

DECISIONS = (
    "time: ms since midnight in New York, the date from the file name (the zone changes its offset on Sundays only)",
    "prices: 1/10,000; 0 means no side",
    "a row with one side updates that side and the other stands; a bid row and the ask row that follows it in the same "
    "millisecond are one quote",
    "trade sides: the source has none",
)


def read_lean(paths: Sequence[Path], options: Options) -> Recording:
    """Read quote and trade zips of one instrument, or a folder of them. Rows marked suspicious go to quarantine."""
    texts = open_all(paths, (".zip",))
    frames: dict[str, list[pl.DataFrame]] = {}
    sources: list[SourceFile] = []
    merged = 0
    for index, text in enumerate(texts):
        date, kind = _date_and_kind(text)
        table = _table(text, date, QUOTE_COLUMNS if kind == "quotes" else TRADE_COLUMNS)
        rows = _quotes(table) if kind == "quotes" else table
        merged += table.height - rows.height
        sources.append(SourceFile(text.base, text.sha256, table.height))
        frames.setdefault(kind, []).append(canonical(kind, rows, index))
    return Recording(
        format="lean",
        symbol=_symbol(texts, options),
        provenance=Provenance.REPLAY,
        calendar=options.calendar or CALENDARS["us-equity"],
        tick_size=options.tick_size or TICK_SIZE,
        frames={kind: pl.concat(parts) for kind, parts in sorted(frames.items())},
        sources=tuple(sources),
        merged=merged,
        decisions=DECISIONS,
    )


def _date_and_kind(text: Text) -> tuple[str, str]:
    match = _FILE.fullmatch(text.base)
    if match is None:
        raise DataError("the name of a Lean tick file is YYYYMMDD_quote.zip or YYYYMMDD_trade.zip", file=text.name)
    return match[1], match[2] + "s"


def _symbol(texts: Sequence[Text], options: Options) -> str:
    if options.symbol is not None:
        return options.symbol
    names = {match[1].upper() if (match := _MEMBER.match(text.inner)) else "" for text in texts}
    if len(names) != 1 or "" in names:
        raise ParameterError("symbol", "given with --symbol: the files carry none or several", sorted(names))
    return check_symbol(names.pop())


def _table(text: Text, date: str, columns: Sequence[str]) -> pl.DataFrame:
    frame = read_table(text, columns)
    try:
        midnight = datetime.strptime(date, "%Y%m%d").replace(tzinfo=_NEW_YORK)
    except ValueError:
        raise DataError("the file name carries a date that does not exist", file=text.name, value=date) from None
    ms = number(text, frame, "ms")
    refuse_rows(text, frame, "ms", ~ms.is_between(0, DAY_MS) | (ms != ms.floor()), "not ms since midnight")
    ts = int(midnight.timestamp()) * NS_PER_S + ms.fill_nan(None).cast(pl.Int64) * NS_PER_MS
    # A whole column as divisor: polars turns a scalar one into a product with its inexact reciprocal.
    scale = pl.repeat(PRICE_SCALE, frame.height, eager=True)
    prices = [number(text, frame, name) / scale for name in columns if name in ("bid", "ask", "price")]
    sizes = [number(text, frame, name) for name in columns if name.endswith("size")]
    suspicious = number(text, frame, "suspicious") != 0
    broken = pl.any_horizontal([pl.col(price.name).is_null() | ~pl.col(price.name).is_finite() for price in prices])
    return (
        frame.select("row")
        .with_columns(
            ts.alias("ts_event"),
            ts.alias("ts_recv"),
            *prices,
            *sizes,
            side=pl.lit(0, pl.Int8),
            flag=pl.when(suspicious).then(pl.lit("suspicious, says the source")),
        )
        .with_columns(flag=pl.coalesce("flag", pl.when(broken).then(pl.lit("a price is not a number"))))
    )


def _quotes(table: pl.DataFrame) -> pl.DataFrame:
    """Carry each side forward, and keep the last row of each bid and ask pair."""
    good = pl.col("flag").is_null()
    has = {side: good & (pl.col(side) != 0.0) for side in ("bid", "ask")}
    first_of_pair = (
        (has["bid"] & ~has["ask"])
        & (has["ask"] & ~has["bid"]).shift(-1, fill_value=False)
        & (pl.col("ts_event") == pl.col("ts_event").shift(-1)).fill_null(False)
    )
    # A suspicious row shows its own values; it moves no side of the rows after it.
    carried = [
        pl.when(good).then(pl.when(has[side]).then(pl.col(name)).forward_fill()).otherwise(pl.col(name)).alias(name)
        for side in ("bid", "ask")
        for name in (side, f"{side}_size")
    ]
    return table.with_columns(*carried, first_of_pair=first_of_pair).filter(~pl.col("first_of_pair"))
