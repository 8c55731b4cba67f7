"""Say what a user may tell an importer, and help importers to build a Recording."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from probatum.adapters.importers.files import Text, open_text
from probatum.core.clock import NS_PER_MINUTE
from probatum.core.errors import DataError, ParameterError
from probatum.market.calendar import Calendar, Explained
from probatum.market.dataset import SCHEMAS, check_symbol

_SYMBOL = re.compile(r"([A-Za-z0-9.]{2,20})(?=[-_])")


@dataclass(frozen=True)
class Options:
    """Hold what the user told; None leaves it to the importer, which derives it or refuses. ``columns`` maps a
    canonical name to the file's own (generic formats only); ``explained`` gaps do not keep a model from training."""

    symbol: str | None = None
    calendar: Calendar | None = None
    tick_size: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: str | None = None
    time_zone: str | None = None
    explained: tuple[Explained, ...] = ()

    def __post_init__(self) -> None:
        if self.symbol is not None:
            check_symbol(self.symbol)
        if self.tick_size is not None and not 0.0 < self.tick_size < 1e9:
            raise ParameterError("tick size", "a number > 0", self.tick_size)


def open_all(paths: Sequence[Path], suffixes: Sequence[str]) -> list[Text]:
    """Open files, and the files with one of ``suffixes`` in folders, sorted by name; the same bytes twice are refused."""
    files: list[Path] = []
    for path in paths:
        found = sorted(item for item in path.rglob("*") if item.suffix in suffixes) if path.is_dir() else [path]
        if not found:
            raise DataError(f"the folder holds no file that ends in {', '.join(suffixes)}", file=path)
        files += found
    texts: list[Text] = []
    seen: dict[str, str] = {}
    for path in files:
        text = open_text(path)
        if text.sha256 in seen:
            raise DataError(f"the same bytes as {seen[text.sha256]}", file=path)
        seen[text.sha256] = text.name
        texts.append(text)
    return texts


def symbol_of(texts: Sequence[Text], options: Options) -> str:
    """Return the symbol told, or the one that all file names begin with (before the first '-' or '_')."""
    if options.symbol is not None:
        return options.symbol
    names = {match[1].upper() if (match := _SYMBOL.match(Path(text.name).name)) else "" for text in texts}
    if len(names) != 1 or "" in names:
        raise ParameterError("symbol", "given with --symbol: the file names do not carry one", sorted(names))
    return check_symbol(names.pop())


def canonical(kind: str, frame: pl.DataFrame, index: int | None) -> pl.DataFrame:
    """Return a kind's canonical columns (null where the frame has none), ``source``, ``row``, and ``id``, ``flag``.

    ``index`` is the source of all rows; None where the frame says it row by row.
    """
    extra = [name for name in ("id", "flag") if name in frame.columns]
    return frame.select(
        *[
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in SCHEMAS[kind].items()
        ],
        (pl.col("source") if index is None else pl.lit(index)).cast(pl.UInt32).alias("source"),
        pl.col("row").cast(pl.Int64),
        *extra,
    )


def require_one_minute(text: Text, opens: pl.Series) -> None:
    """Raise DataError when bars are typically not a minute apart: no other interval may pass for one-minute bars."""
    step = opens.drop_nulls().sort().diff().drop_nulls().median()
    if isinstance(step, (int, float)) and step != NS_PER_MINUTE and step > 0:
        raise DataError(f"bars are {step / 1e9:.9g} s apart; one-minute bars are needed", file=text.name)
