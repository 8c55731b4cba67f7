"""Judge recorded data row by row and as a whole: what is bad goes to quarantine with a reason, what is missing is a gap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
import polars as pl

from probatum.core.clock import NS_PER_DAY, NS_PER_MINUTE, format_utc, utc_day
from probatum.core.errors import DataError
from probatum.core.verdict import Provenance
from probatum.market.calendar import Calendar
from probatum.market.dataset import SCHEMAS, Dataset

MAX_GAP_NS = 5 * NS_PER_MINUTE
MAX_BAD_SHARE = 0.05

QUARANTINE_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "file": pl.String(),
    "row": pl.Int64(),
    "reason": pl.String(),
    **SCHEMAS["bars"],
    **SCHEMAS["quotes"],
    **SCHEMAS["trades"],
}


class SourceFile(msgspec.Struct, frozen=True):
    """Name one file that was read: its rows (lines or records, headers not counted) and the digest of its bytes."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Recording:
    """Hold what an importer read, bad rows included, in the order of the source.

    Each frame has its kind's canonical columns and ``source`` (index into ``sources``) and ``row`` (1-based, as an
    editor shows it); optionally ``id`` (unique where the source numbers its events) and ``flag`` (why the importer
    itself rejects a row, else null). ``merged`` counts rows that became one with another (a bid and an ask),
    ``ignored`` the rows that carry something else, by what it is.
    """

    format: str
    symbol: str
    provenance: Provenance
    calendar: Calendar
    tick_size: float | None
    frames: dict[str, pl.DataFrame]
    sources: tuple[SourceFile, ...]
    merged: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    decisions: tuple[str, ...] = ()

    @property
    def rows_in(self) -> int:
        """Return the rows of all files."""
        return sum(source.rows for source in self.sources)


@dataclass(frozen=True)
class Screened:
    """Hold the good rows in time order, the bad ones with their reasons, and how many rows came late."""

    dataset: Dataset
    quarantine: pl.DataFrame
    out_of_order: int


class Gap(msgspec.Struct, frozen=True):
    """Hold a span inside sessions without data, longer than five minutes; ``reason`` is None when unexplained."""

    start_ns: int
    end_ns: int
    reason: str | None

    @property
    def minutes(self) -> float:
        """Return the length in minutes."""
        return (self.end_ns - self.start_ns) / NS_PER_MINUTE


def screen(recording: Recording) -> Screened:
    """Part the good rows from the bad ones and put the good ones in time order.

    Every row ends in exactly one of both. Raises DataError, naming the first bad row, when none is good or more than
    one in twenty (and more than a single one) is bad: then the file is not what its format says.
    """
    good: dict[str, pl.DataFrame] = {}
    bad = [pl.DataFrame(schema=QUARANTINE_SCHEMA)]
    late = 0
    for kind, raw in recording.frames.items():
        frame = raw.with_columns(reason=_reason(kind, raw))
        kept = frame.filter(pl.col("reason").is_null())
        late += int((kept["ts_event"] < kept["ts_event"].cum_max()).sum())
        keys = ["ts_event", *(name for name in ("id",) if name in kept.columns)]
        kept, again = _without_duplicates(kind, kept.sort(keys, maintain_order=True))
        good[kind] = kept.select(list(SCHEMAS[kind]))
        bad.append(_quarantined(kind, frame.filter(pl.col("reason").is_not_null()), recording.sources))
        bad.append(_quarantined(kind, again, recording.sources))
    quarantine = pl.concat(bad).sort("kind", "file", "row")
    _refuse_bad(recording, quarantine, sum(frame.height for frame in good.values()))
    dataset = Dataset(
        symbol=recording.symbol,
        provenance=recording.provenance,
        sha256="",
        calendar=recording.calendar,
        tick_size=recording.tick_size,
        **{kind: frame for kind, frame in good.items() if frame.height},
    )
    return Screened(dataset, quarantine, late)


def gaps(dataset: Dataset) -> list[Gap]:
    """Return the spans of more than five minutes inside sessions without data, in time order.

    Judged on bars, else quotes, else trades, between the first row and the last. A bar covers the minute it closes.
    """
    frame = dataset.frames[dataset.spine]
    width = NS_PER_MINUTE if dataset.spine == "bars" else 0
    ts = frame["ts_event"].to_numpy()
    after = np.flatnonzero(np.diff(ts) - width > MAX_GAP_NS)
    sessions = sessions_between(dataset.calendar, int(ts[0]) - width, int(ts[-1]))
    found: list[Gap] = []
    for index in after:
        for start, end in _overlaps(sessions, int(ts[index]), int(ts[index + 1]) - width):
            if end - start > MAX_GAP_NS:
                found.append(Gap(start, end, _explanation(dataset.calendar, start, end)))
    return found


def refuse_gaps(dataset: Dataset) -> None:
    """Raise DataError naming the first unexplained gap: a model must not learn from returns that span a hole."""
    open_gaps = [gap for gap in gaps(dataset) if gap.reason is None]
    if not open_gaps:
        return
    first = open_gaps[0]
    span = f"{format_utc(first.start_ns)}..{format_utc(first.end_ns)}"
    more = f" and {len(open_gaps) - 1} more" if len(open_gaps) > 1 else ""
    raise DataError(
        f"no data for {first.minutes:.0f} minutes inside a session, {span}{more}; "
        f"import the missing rows, or import again with --explain-gap {span}=REASON",
        file=dataset.symbol,
    )


def sessions_between(calendar: Calendar, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """Return the [start, end) sessions that meet [start_ns, end_ns), cut to it."""
    spans = calendar.sessions(utc_day(start_ns - 2 * NS_PER_DAY), utc_day(end_ns + NS_PER_DAY))
    return list(_overlaps(spans, start_ns, end_ns))


def covered_minutes(dataset: Dataset) -> tuple[int, int]:
    """Return (minutes inside sessions that have data, minutes inside sessions), between the first row and the last.

    A minute is (start, start + 60 s]; one that a session only touches counts as its own.
    """
    minutes = ((dataset.frames[dataset.spine]["ts_event"] - 1) // NS_PER_MINUTE).unique().sort().to_numpy()
    first, last = int(minutes[0]) * NS_PER_MINUTE, (int(minutes[-1]) + 1) * NS_PER_MINUTE
    sessions = sessions_between(dataset.calendar, first, last)
    have = sum(int(np.searchsorted(minutes, (b - 1) // NS_PER_MINUTE, "right") - np.searchsorted(minutes, a // NS_PER_MINUTE)) for a, b in sessions)  # fmt: skip
    return have, sum((b - 1) // NS_PER_MINUTE - a // NS_PER_MINUTE + 1 for a, b in sessions)


def _overlaps(spans: list[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    index = max(0, bisect_right(spans, (start, start)) - 1)
    while index < len(spans) and spans[index][0] < end:
        a, b = max(spans[index][0], start), min(spans[index][1], end)
        if a < b:
            yield a, b
        index += 1


def _explanation(calendar: Calendar, start_ns: int, end_ns: int) -> str | None:
    return next((item.reason for item in calendar.explained if item.covers(start_ns, end_ns)), None)


def _reason(kind: str, frame: pl.DataFrame) -> pl.Expr:
    """Return the first rule that a row breaks, as text; null for a good row."""
    flag = pl.col("flag") if "flag" in frame.columns else pl.lit(None, pl.String)
    rules = [("no time", pl.col("ts_event").is_null() | pl.col("ts_recv").is_null()), *_rules(kind, frame)]
    return pl.coalesce(flag, *[pl.when(broken).then(pl.lit(text)) for text, broken in rules])


def _rules(kind: str, frame: pl.DataFrame) -> Iterator[tuple[str, pl.Expr]]:
    if kind == "quotes":
        for side in ("bid", "ask"):
            yield f"one-sided: no {side}", pl.col(side).is_null() | (pl.col(side) == 0.0)
    prices = {"bars": ("open", "high", "low", "close"), "quotes": ("bid", "ask"), "trades": ("price",)}[kind]
    for name in prices:
        yield f"{name} is not a number", _not_a_number(name)
        yield f"{name} is not positive", pl.col(name) <= 0.0
    amounts = {"bars": ("volume", "spread"), "quotes": ("bid_size", "ask_size"), "trades": ("size",)}[kind]
    for name in amounts:
        if frame[name].null_count() < frame.height:  # else the source has none
            yield f"{name} is not a number", _not_a_number(name)
            yield "crossed" if name == "spread" else f"{name} is negative", pl.col(name) < 0.0
    if kind == "bars":
        body = ("open", "close")
        encloses = (pl.col("low") <= pl.min_horizontal(body)) & (pl.max_horizontal(body) <= pl.col("high"))
        yield "high and low do not enclose open and close", ~encloses
        yield "not on a whole minute", pl.col("ts_event") % NS_PER_MINUTE != 0
    elif kind == "quotes":
        yield "crossed", pl.col("bid") > pl.col("ask")
    else:
        yield "side is not -1, 0 or 1", ~pl.col("side").is_in([-1, 0, 1]).fill_null(False)


def _not_a_number(name: str) -> pl.Expr:
    return pl.col(name).is_null() | ~pl.col(name).is_finite()


def _without_duplicates(kind: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    # Two equal trades in one millisecond may both be real: without a number from the source nothing tells them from
    # a duplicate, so they stay and are counted as repeated. A bar is numbered by its minute.
    key = "ts_event" if kind == "bars" else "id"
    if key not in frame.columns:
        return frame, frame.clear()
    first = frame[key].is_first_distinct() | frame[key].is_null()
    kept, again = frame.filter(first), frame.filter(~first)
    values = [name for name in SCHEMAS[kind] if name not in ("ts_event", "ts_recv")]
    same = pl.all_horizontal([pl.col(name).eq_missing(pl.col(f"{name}_first")) for name in values])
    again = again.join(kept.select(key, *values), on=key, how="left", suffix="_first").with_columns(
        reason=pl.when(same).then(pl.lit("duplicate")).otherwise(pl.lit(f"another row with the same {key}"))
    )
    return kept, again


def _quarantined(kind: str, frame: pl.DataFrame, sources: tuple[SourceFile, ...]) -> pl.DataFrame:
    names = pl.Series([source.name for source in sources], dtype=pl.String)
    have = set(SCHEMAS[kind])
    return frame.select(
        pl.lit(kind).alias("kind"),
        pl.lit(names).gather(pl.col("source")).alias("file"),
        pl.col("row").cast(pl.Int64),
        pl.col("reason"),
        *[
            (pl.col(name) if name in have else pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in list(QUARANTINE_SCHEMA.items())[4:]
        ],
    )


def _refuse_bad(recording: Recording, quarantine: pl.DataFrame, rows_good: int) -> None:
    bad = quarantine.height
    if rows_good and bad <= max(1, MAX_BAD_SHARE * recording.rows_in):
        return
    if not bad:
        raise DataError("there are no rows of market data", file=", ".join(s.name for s in recording.sources[:3]))
    counts = quarantine["reason"].value_counts(sort=True).head(3).rows()
    first = quarantine.row(0, named=True)
    raise DataError(
        f"{bad} of {recording.rows_in} rows are bad ({', '.join(f'{reason}: {n}' for reason, n in counts)}), "
        f"more than {MAX_BAD_SHARE:.0%} are refused; this is the first ({first['reason']})",
        file=first["file"],
        row=first["row"],
    )
