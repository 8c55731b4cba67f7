"""Read generic tables: bid and ask bars in two files, CSV and Parquet with a column map."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from probatum.adapters.importers.files import Text, number, printable, read_table, require, time_ns
from probatum.adapters.importers.source import Options, canonical, open_all, require_one_minute, symbol_of
from probatum.adapters.store import PROVENANCE_KEY
from probatum.core.clock import NS_PER_MINUTE
from probatum.core.errors import DataError, ParameterError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.calendar import CALENDARS
from probatum.market.dataset import SCHEMAS
from probatum.market.quality import Recording, SourceFile

MAX_ROWS = 2**28
PRICES = ("open", "high", "low", "close")
# The column that makes a table one of bars, quotes or trades, and the columns it cannot do without.
KIND_OF = {"close": "bars", "bid": "quotes", "price": "trades"}
NEEDED = {"bars": ("close",), "quotes": ("bid", "ask"), "trades": ("price", "size")}
TIMES = ("ts_event", "ts", "ts_open")
TARGETS = tuple(dict.fromkeys([*TIMES, "ts_recv", *(name for schema in SCHEMAS.values() for name in schema)]))


def read_bid_ask_bars(paths: Sequence[Path], options: Options) -> Recording:
    """Read one-minute bars of the bid and of the ask (``timestamp,open,high,low,close``, stamped at open).

    The file names say which is which. A bar is the mean of both sides; ``spread`` is the difference at close.
    """
    texts = open_all(paths, (".csv", ".zip"))
    sides = {side: [text for text in texts if side in text.base.lower()] for side in ("bid", "ask")}
    if len(texts) != 2 or any(len(found) != 1 for found in sides.values()):
        raise ParameterError(
            "paths", "two files, one with 'bid' and one with 'ask' in its name", [t.base for t in texts]
        )
    texts = [sides["bid"][0], sides["ask"][0]]
    (bid, decision), (ask, _) = (_side(text, options) for text in texts)
    # The nth bid bar of a minute meets the nth ask bar, so that a duplicate stays one row.
    both = bid.join(ask, on=("ts_event", "nth"), how="full", suffix="_ask", coalesce=True).with_columns(
        *[((pl.col(name) + pl.col(f"{name}_ask")) / 2.0).alias(name) for name in PRICES],
        spread=pl.col("close_ask") - pl.col("close"),
        flag=pl.coalesce("flag", "flag_ask", _unmatched("row", "bid"), _unmatched("row_ask", "ask")),
        ts_recv=pl.col("ts_event"),
    )
    paired = both.filter(pl.col("row").is_not_null()).sort("row")
    ask_only = both.filter(pl.col("row").is_null()).with_columns(row=pl.col("row_ask")).sort("row")
    return Recording(
        format="bid-ask-bars",
        symbol=symbol_of(texts, options),
        provenance=Provenance.REPLAY,
        calendar=options.calendar or CALENDARS["fx"],
        tick_size=options.tick_size,
        frames={"bars": pl.concat([canonical("bars", paired, 0), canonical("bars", ask_only, 1)])},
        sources=tuple(SourceFile(t.base, t.sha256, f.height) for t, f in zip(texts, (bid, ask), strict=True)),
        merged=bid.height + ask.height - both.height,
        decisions=(
            f"{decision}; bars are stamped at their close, open time + 60 s",
            "price: the mean of bid and ask; spread: ask minus bid at close; volume: the source has none",
        ),
    )


def _unmatched(row: str, side: str) -> pl.Expr:
    return pl.when(pl.col(row).is_null()).then(pl.lit(f"no {side} bar for this minute"))


def _side(text: Text, options: Options) -> tuple[pl.DataFrame, str]:
    frame = read_table(text, None)
    require(text, frame, ("timestamp", *PRICES))
    opens, decision = time_ns(text, frame, "timestamp", unit=options.time_unit, zone=options.time_zone)
    require_one_minute(text, opens)
    return frame.select("row", "flag").with_columns(
        (opens + NS_PER_MINUTE).alias("ts_event"),
        *[number(text, frame, name).alias(name) for name in PRICES],
    ).with_columns(nth=pl.int_range(pl.len()).over("ts_event")), decision


def read_csv(paths: Sequence[Path], options: Options) -> Recording:
    """Read CSV files with a header; ``options.columns`` says which column is which (``ts``: a bar's close,
    ``ts_open``: its open)."""
    texts = open_all(paths, (".csv", ".zip", ".gz"))
    tables = [(text, read_table(text, None), Provenance.REPLAY) for text in texts]
    lowered = {target: column.lower() for target, column in options.columns.items()}
    return _generic("csv", tables, lowered, options)


def read_parquet(paths: Sequence[Path], options: Options) -> Recording:
    """Read Parquet files like CSV. A file that Probatum wrote keeps its class: synthetic stays synthetic."""
    texts = open_all(paths, (".parquet",))
    return _generic("parquet", [_parquet(text) for text in texts], options.columns, options)


def _parquet(text: Text) -> tuple[Text, pl.DataFrame, Provenance]:
    try:
        label = pl.read_parquet_metadata(io.BytesIO(text.data)).get(PROVENANCE_KEY, Provenance.REPLAY.value)
        rows = pl.scan_parquet(io.BytesIO(text.data)).select(pl.len()).collect().item()
        if rows > MAX_ROWS:
            raise DataError(f"{rows} rows in one file, at most {MAX_ROWS} are read", file=text.name)
        frame = pl.read_parquet(io.BytesIO(text.data))
        own = Provenance(label)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise DataError(f"not a whole Parquet file: {printable(str(error))}", file=text.name) from None
    frame = frame.select(pl.all().exclude("row", "flag")).with_row_index("row", 1)
    frame = frame.with_columns(pl.col("row").cast(pl.Int64), flag=pl.lit(None, pl.String))
    return text, frame, Provenance.weakest([own, Provenance.REPLAY])


def _generic(
    name: str, tables: Sequence[tuple[Text, pl.DataFrame, Provenance]], columns: Mapping[str, str], options: Options
) -> Recording:
    for target in columns:
        if target not in TARGETS:
            raise UnknownNameError("column", target, TARGETS)
    read = [_canonical(text, frame, columns, index, options) for index, (text, frame, _) in enumerate(tables)]
    kinds = dict.fromkeys(kind for kind, _, _ in read)
    return Recording(
        format=name,
        symbol=symbol_of([text for text, _, _ in tables], options),
        provenance=Provenance.weakest(provenance for _, _, provenance in tables),
        calendar=options.calendar or CALENDARS["24x7"],
        tick_size=options.tick_size,
        frames={kind: pl.concat([frame for other, frame, _ in read if other == kind]) for kind in kinds},
        sources=tuple(SourceFile(text.base, text.sha256, frame.height) for text, frame, _ in tables),
        decisions=tuple(dict.fromkeys(decision for _, _, decisions in read for decision in decisions)),
    )


def _canonical(
    text: Text, frame: pl.DataFrame, columns: Mapping[str, str], index: int, options: Options
) -> tuple[str, pl.DataFrame, list[str]]:
    """Return the kind of a table, its canonical frame, and the decisions taken."""
    require(text, frame, list(columns.values()))
    # A column that has a canonical name already needs no map, unless the map gives it another.
    used = {target: target for target in TARGETS if target in frame.columns} | dict(columns)
    kind = _one_of(text, used, tuple(KIND_OF), "price column")
    time = _one_of(text, used, TIMES, "time column")
    kind = KIND_OF[kind]
    missing = [name for name in NEEDED[kind] if name not in used]
    if missing:
        raise DataError(f"{kind} need a column for {', '.join(missing)} (--map {missing[0]}=COLUMN)", file=text.name)
    if time == "ts_open" and kind != "bars":
        raise DataError("ts_open is the time of a bar's open; this is a table of " + kind, file=text.name)
    ts, decision = time_ns(text, frame, used[time], unit=options.time_unit, zone=options.time_zone)
    decisions = [decision]
    if kind == "bars":
        ts = ts + NS_PER_MINUTE if time == "ts_open" else ts
        require_one_minute(text, ts)
        decisions.append(f"bars: {used[time]} is the time of a bar's {'open' if time == 'ts_open' else 'close'}")
    values = {name: number(text, frame, used[name]) for name in SCHEMAS[kind] if name in used and name[:3] != "ts_"}
    for name in PRICES if kind == "bars" else ():
        if name not in values:
            values[name] = values["close"]
            decisions.append(f"{name}: the source has none, the close stands in its place")
    recv = ts
    if "ts_recv" in used:
        recv, _ = time_ns(text, frame, used["ts_recv"], unit=options.time_unit, zone=options.time_zone)
    if kind == "trades":
        values["side"] = values.get("side", pl.zeros(frame.height, pl.Float64, eager=True)).cast(pl.Int8, strict=False)
    spare = [name for name in frame.columns if name not in (*used.values(), "row", "flag")]
    if spare:
        decisions.append(f"columns not used: {printable(', '.join(spare))}")
    table = frame.select("row", "flag").with_columns(
        ts.alias("ts_event"), recv.alias("ts_recv"), *[column.alias(name) for name, column in values.items()]
    )
    return kind, canonical(kind, table, index), decisions


def _one_of(text: Text, used: Mapping[str, str], names: Sequence[str], what: str) -> str:
    found = [name for name in names if name in used]
    if len(found) != 1:
        hint = f"found {', '.join(found)}" if found else "found none"
        raise DataError(
            f"exactly one {what} is needed of {', '.join(names)} ({hint}); use --map NAME=COLUMN", file=text.name
        )
    return found[0]
