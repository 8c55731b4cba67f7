"""Read foreign formats into one shape: a Recording in the canonical columns, bad rows included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from probatum.adapters.importers.klines import read_klines
from probatum.adapters.importers.lean import read_lean
from probatum.adapters.importers.source import Options
from probatum.adapters.importers.table import read_bid_ask_bars, read_csv, read_parquet
from probatum.adapters.importers.ws import read_ws
from probatum.core.errors import ParameterError, UnknownNameError
from probatum.market.quality import Recording

Reader = Callable[[Sequence[Path], Options], Recording]
# Format: its reader, and the options on columns and times that it uses.
FORMATS: dict[str, tuple[Reader, tuple[str, ...]]] = {
    "binance-klines": (read_klines, ("time_zone",)),
    "binance-ws": (read_ws, ()),
    "lean": (read_lean, ()),
    "bid-ask-bars": (read_bid_ask_bars, ("time_unit", "time_zone")),
    "csv": (read_csv, ("columns", "time_unit", "time_zone")),
    "parquet": (read_parquet, ("columns", "time_unit", "time_zone")),
}


def read_files(format_name: str, paths: Sequence[Path], options: Options | None = None) -> Recording:
    """Read files (or folders of them) of one format as one recording of one instrument.

    Raises DataError naming file, row and field where the files are not what the format says.
    """
    if format_name not in FORMATS:
        raise UnknownNameError("format", format_name, FORMATS)
    if not paths:
        raise ParameterError("paths", "at least one file", [])
    options = options or Options()
    read, uses = FORMATS[format_name]
    for name in ("columns", "time_unit", "time_zone"):
        if getattr(options, name) and name not in uses:
            raise ParameterError(name.replace("_", " "), f"left out: {format_name} fixes it", getattr(options, name))
    recording = read(paths, options)
    return replace(recording, calendar=structs.replace(recording.calendar, explained=options.explained))


__all__ = ["FORMATS", "Options", "read_files"]
