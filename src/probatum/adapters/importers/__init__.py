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

FORMATS: dict[str, Callable[[Sequence[Path], Options], Recording]] = {
    "binance-klines": read_klines,
    "binance-ws": read_ws,
    "lean": read_lean,
    "bid-ask-bars": read_bid_ask_bars,
    "csv": read_csv,
    "parquet": read_parquet,
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
    recording = FORMATS[format_name](paths, options)
    return replace(recording, calendar=structs.replace(recording.calendar, explained=options.explained))


__all__ = ["FORMATS", "Options", "read_files"]
