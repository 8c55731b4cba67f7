"""Record a feed: ticks go by way of a journal to Parquet segments, and segments become a dataset of each symbol.

Segments keep what was received, as it was received: duplicates, late and bad rows too. The screen of every import puts
the good ones in order and the others in quarantine, so a recording and an imported capture end in the same rows.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import polars as pl

from probatum.adapters.importers.ws import KINDS, RAW_SCHEMA, tick_frames
from probatum.adapters.journal import LogSettings, ParquetLog
from probatum.adapters.store import PROVENANCE_KEY
from probatum.core.canonical import sha256_hex
from probatum.core.clock import Clock
from probatum.core.errors import DataError, IntegrityError
from probatum.core.verdict import Provenance
from probatum.market.calendar import CALENDARS
from probatum.market.events import BAR
from probatum.market.quality import Recording, SourceFile
from probatum.market.ticks import Tick
from probatum.monitoring.feed import Finding

RECORDER = LogSettings(queue_rows=200_000, rotate_rows=200_000)
_SEGMENT_SCHEMA: dict[str, pl.DataType] = {
    "kind": pl.Int8(), "symbol": pl.String(), "ts_recv": pl.Int64(), "ts_event": pl.Int64(), "number": pl.Int64(),
    "a": pl.Float64(), "b": pl.Float64(), "c": pl.Float64(), "d": pl.Float64(),
}  # fmt: skip
_decode = msgspec.msgpack.Decoder(list[Tick]).decode


class TickHead(msgspec.Struct, frozen=True):
    """Begin a journal of ticks: where they came from."""

    feed: str
    provenance: Provenance


class TickLog(ParquetLog[Tick]):
    """Write ticks to segments below ``folder``, apart by class and feed: what is synthetic never mixes with what is live."""

    def __init__(
        self, folder: Path, feed: str, provenance: Provenance, clock: Clock, settings: LogSettings = RECORDER
    ) -> None:
        head = msgspec.msgpack.encode(TickHead(feed, provenance))
        super().__init__(segments(folder, feed, provenance), "ticks", head, ticks_parquet, clock, settings)


def segments(folder: Path, feed: str, provenance: Provenance) -> Path:
    """Return the folder of a feed's segments."""
    return folder / provenance.value / feed


def ticks_parquet(head: bytes, slices: Sequence[bytes], pause_s: float = 0.0) -> tuple[int, bytes]:
    """Return (rows, Parquet bytes) of a journal of ticks; ValueError where it holds what no tick can be."""
    found = msgspec.msgpack.decode(head, type=TickHead)
    frames = [pl.DataFrame(schema=_SEGMENT_SCHEMA)]
    try:
        for payload in slices:
            columns = zip(*map(msgspec.structs.astuple, _decode(payload)), strict=True)
            frames.append(pl.DataFrame(dict(zip(_SEGMENT_SCHEMA, columns, strict=True)), schema=_SEGMENT_SCHEMA))
            if pause_s:
                time.sleep(pause_s)  # gives the interpreter back to the feed, and to whoever owes a reply
    except (OverflowError, pl.exceptions.PolarsError) as error:
        raise ValueError(str(error)) from None
    table, buffer = pl.concat(frames), io.BytesIO()
    table.write_parquet(buffer, metadata={"feed": found.feed, PROVENANCE_KEY: found.provenance.value})
    return table.height, buffer.getvalue()


def recorded_symbols(folder: Path) -> list[str]:
    """Return the symbols that the segments of a folder hold, sorted."""
    found = [pl.read_parquet(path, columns=["symbol"])["symbol"].unique() for path in _paths(folder)]
    return sorted(pl.concat(found).unique().to_list()) if found else []


def read_recorded(folder: Path, symbol: str) -> Recording:
    """Read all segments of a folder as one recording of a symbol; its class is what the feed gave the segments.

    A numbered tick that came several times, or to several recorders, is one: the copies are counted as merged. Bars are
    what the features were warmed up with: counted, and left out. Raises DataError where there is nothing.
    """
    parts: list[pl.DataFrame] = []
    sources: list[SourceFile] = []
    classes: set[Provenance] = set()
    for path in _paths(folder):
        data = path.read_bytes()
        frame, label = _segment(path, data, symbol)
        if frame.height:
            parts.append(frame.with_columns(source=len(sources)))
            sources.append(SourceFile(path.name, sha256_hex(data), frame.height))
            classes.add(label)
    if not parts:
        raise DataError("nothing was recorded of this symbol", file=folder, field="symbol", value=symbol)
    ticks, merged = _without_copies(pl.concat(parts))
    raw = {kind: ticks.filter(pl.col("kind") == code).select(*RAW_SCHEMA, "source") for kind, code in KINDS.items()}
    frames, decisions = tick_frames({kind: frame for kind, frame in raw.items() if frame.height})
    bars = ticks.filter(pl.col("kind") == BAR).height
    return Recording(
        format="recorded",
        symbol=symbol,
        provenance=Provenance.weakest(classes),
        calendar=CALENDARS["24x7"],
        tick_size=None,
        frames=frames,
        sources=tuple(sources),
        merged=merged,
        ignored={"bar of the warm-up": bars} if bars else {},
        decisions=decisions,
    )


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _without_copies(ticks: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Keep of equal ticks with a number the one received first; return how many copies there were."""
    numbered = ticks.filter(pl.col("id").is_not_null()).sort("ts_recv", maintain_order=True)
    once = numbered.unique(["kind", "id", "ts_event", *"abcd"], keep="first", maintain_order=True)
    return pl.concat([once, ticks.filter(pl.col("id").is_null())]), numbered.height - once.height


def _segment(path: Path, data: bytes, symbol: str) -> tuple[pl.DataFrame, Provenance]:
    try:
        label = Provenance(pl.read_parquet_metadata(io.BytesIO(data))[PROVENANCE_KEY])
        frame = pl.read_parquet(io.BytesIO(data)).select(list(_SEGMENT_SCHEMA)).cast(pl.Schema(_SEGMENT_SCHEMA))
    except (pl.exceptions.PolarsError, KeyError, ValueError) as error:
        raise IntegrityError(str(path), f"not a recorded segment: {error}") from None
    rows = frame.with_row_index("row", offset=1).filter(pl.col("symbol") == symbol).rename({"number": "id"})
    return rows.with_columns(pl.col("row").cast(pl.Int64), flag=pl.lit(None, pl.String)), label


class FindingsFile:
    """Append findings to ``findings.jsonl`` beside the segments, a line each; a full disk costs lines, counted."""

    def __init__(self, folder: Path) -> None:
        self.path, self.failed = folder / "findings.jsonl", 0

    def append(self, finding: Finding) -> None:
        """Write one line at once: findings are rare, and a crash is when they matter."""
        try:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(finding) + b"\n")
        except OSError:
            self.failed += 1
