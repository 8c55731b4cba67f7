"""Import recorded or synthetic data: screen it, store what is good, keep what is bad, and prove what was done."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from probatum.core.clock import format_utc
from probatum.core.errors import IntegrityError
from probatum.market.dataset import SCHEMAS, Dataset
from probatum.market.quality import QUARANTINE_SCHEMA, Recording, covered_minutes, gaps, screen, sessions_between
from probatum.pipeline.evidence import prove_once, same_inputs
from probatum.pipeline.ports import Ledger, Record, Sources

LARGEST_GAPS = 10


@dataclass(frozen=True)
class Imported:
    """Hold the stored dataset, and the record that says what was read, kept and refused."""

    dataset: Dataset
    record: Record


def import_recording(
    recording: Recording, *, save: Callable[[Dataset], Dataset], ledger: Ledger, sources: Sources
) -> Imported:
    """Screen a recording, store its good rows as a new version and its bad ones as a blob, and append the record.

    The same rows twice are one version and one record.
    Raises DataError before anything is stored when the recording is refused.
    """
    screened = screen(recording)
    buffer = io.BytesIO()
    screened.quarantine.write_parquet(buffer)
    quarantine = sources.blobs.put("quarantine", buffer.getvalue())
    dataset = save(screened.dataset)
    inputs = {
        "symbol": dataset.symbol,
        "dataset": dataset.sha256,
        "quarantine": quarantine,
        "format": recording.format,
        "sources": msgspec.to_builtins(recording.sources),
        "rows_merged": recording.merged,
        "rows_ignored": recording.ignored,
        "rows_out_of_order": screened.out_of_order,
        "decisions": list(recording.decisions),
    }
    record = prove_once(
        ledger,
        sources,
        kind="data_import",
        subject=dataset.symbol,
        provenance=dataset.provenance,
        inputs=inputs,
        derive=figures,
        standing=same_inputs(inputs),
    )
    return Imported(dataset, record)


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Count what was stored and what is in quarantine; the sum is the rows that came in.

    Raises IntegrityError when it is not: then a row was lost or made up.
    """
    dataset = sources.datasets.load(inputs["symbol"], inputs["dataset"])
    quarantine = read_quarantine(sources.blobs.get("quarantine", inputs["quarantine"]))
    counts = {
        "rows_in": sum(source["rows"] for source in inputs["sources"]),
        "rows_stored": sum(frame.height for frame in dataset.frames.values()),
        "rows_merged": inputs["rows_merged"],
        "rows_ignored": sum(inputs["rows_ignored"].values()),
        "rows_quarantined": quarantine.height,
    }
    total, *parts = counts.values()
    if total != sum(parts):
        raise IntegrityError("data_import", f"{total} rows came in, {sum(parts)} are accounted for")
    reasons = quarantine["reason"].value_counts().sort("reason").rows()
    return {**counts, "quarantined": dict(reasons), **quality(dataset)}


def read_quarantine(data: bytes) -> pl.DataFrame:
    """Return the rejected rows: kind, file, row, reason and every value the source gave."""
    try:
        return pl.read_parquet(io.BytesIO(data)).select(list(QUARANTINE_SCHEMA))
    except pl.exceptions.PolarsError as error:
        raise IntegrityError("quarantine", f"not a quarantine file: {error}") from None


def quality(dataset: Dataset) -> dict[str, Any]:
    """Describe a stored dataset: rows, span, columns it lacks, gaps in sessions, locked and repeated quotes.

    ``trainable`` is false while a gap is unexplained.
    """
    spine = dataset.frames[dataset.spine]["ts_event"]
    holes = gaps(dataset)
    unexplained = sum(gap.reason is None for gap in holes)
    have, minutes = covered_minutes(dataset)
    quotes = dataset.quotes
    return {
        "provenance": dataset.provenance.value,
        "rows": {kind: frame.height for kind, frame in dataset.frames.items()},
        "start": format_utc(int(spine[0])),
        "end": format_utc(int(spine[-1])),
        "absent": [f"{kind}.{name}" for kind, frame in dataset.frames.items() for name in _absent(frame)],
        "minutes_in_sessions": minutes,
        "minutes_with_data": have,
        "rows_outside_sessions": _outside(dataset, spine),
        "locked": 0 if quotes is None else int((quotes["bid"] == quotes["ask"]).sum()),
        "repeated": {kind: _repeated(kind, frame) for kind, frame in dataset.frames.items()},
        "gaps": len(holes),
        "gaps_unexplained": unexplained,
        "gaps_largest": [
            {
                "start": format_utc(gap.start_ns),
                "end": format_utc(gap.end_ns),
                "minutes": gap.minutes,
                "explained": gap.reason,
            }
            for gap in sorted(holes, key=lambda gap: gap.start_ns - gap.end_ns)[:LARGEST_GAPS]
        ],
        "trainable": unexplained == 0,
    }


def _absent(frame: pl.DataFrame) -> list[str]:
    return [name for name in frame.columns if frame[name].null_count() == frame.height]


def _outside(dataset: Dataset, ts: pl.Series) -> int:
    inside = sum(
        int(ts.search_sorted(end, "right")) - int(ts.search_sorted(start, "left"))
        for start, end in sessions_between(dataset.calendar, int(ts[0]), int(ts[-1]) + 1)
    )
    return ts.len() - inside


def _repeated(kind: str, frame: pl.DataFrame) -> int:
    """Count rows equal to the one before in time and every value: duplicates that nothing can tell from real events."""
    same = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in SCHEMAS[kind] if name != "ts_recv"]
    return int(frame.select(pl.all_horizontal(same).slice(1).sum()).item())
