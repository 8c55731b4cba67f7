"""Read decisions back from the logs' folder: finished Parquet files, and journals that are still being written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from probatum.adapters.decision_log import table_of
from probatum.adapters.journal import frames_of
from probatum.core.errors import DataError
from probatum.core.verdict import Provenance
from probatum.models.artifact import FeatureSpec


class ParquetDecisions:
    """Read what any number of executors logged to one folder. Satisfies ``pipeline.ports.Decisions``.

    Nothing is locked, converted or changed: a reader may run beside the writers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, start_ns: int, end_ns: int) -> pl.DataFrame:
        """Return the decisions made in [start, end) by time: the log's columns, features as ``f_…``, ``fingerprint``, ``provenance``.

        Of several feature sets each leaves the others' features null. What no log vouches for is synthetic, as all that
        came in over HTTP is. Raises DataError naming a file that is not a log.
        """
        wanted = pl.col("ts").is_between(start_ns, end_ns, closed="left")
        found = [table for table in self._tables(wanted) if table.height]
        if not found:
            return _marked(table_of(FeatureSpec("", (), ""), []), {})
        return pl.concat(found, how="diagonal").sort("ts", "decision_id", maintain_order=True)

    def _tables(self, wanted: pl.Expr) -> Iterator[pl.DataFrame]:
        journals = sorted(self.folder.glob("*.journal"))  # before the finished ones: a journal may end meanwhile
        finished = {path.stem for path in self.folder.glob("*.parquet")}
        for path in journals:
            if path.stem not in finished:
                try:
                    yield from (table.filter(wanted) for table in _journal(path))
                except FileNotFoundError:
                    finished.add(path.stem)
        for stem in sorted(finished):
            yield _finished(self.folder / f"{stem}.parquet", wanted)


def _journal(path: Path) -> Iterator[pl.DataFrame]:
    with path.open("rb") as file:
        head, *rest = list(frames_of(file)) or [b""]
    with suppress(msgspec.MsgspecError):  # another version's, or not begun: it has no decisions for us
        features = msgspec.msgpack.decode(head, type=FeatureSpec)
        if rest:
            yield _marked(table_of(features, rest), {"fingerprint": features.fingerprint})


def _finished(path: Path, wanted: pl.Expr) -> pl.DataFrame:
    try:
        said: dict[str, Any] = dict(pl.read_parquet_metadata(path))
        return _marked(pl.scan_parquet(path).filter(wanted).collect(), said)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"not a decision log: {error}", file=path) from None


def _marked(table: pl.DataFrame, said: dict[str, Any]) -> pl.DataFrame:
    marks = {
        "fingerprint": said.get("fingerprint", ""),
        "provenance": said.get("provenance", Provenance.SYNTHETIC.value),
    }
    return table.with_columns(pl.lit(mark).cast(pl.Utf8).alias(name) for name, mark in marks.items())
