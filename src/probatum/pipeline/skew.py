"""Prove that what was logged is what batch computes: every feature of every row again, from the recorded raw data, bit by bit.

Figures of ``skew``: ``verdict``, ``checks``; ``rows`` = ``ready`` + ``unchecked``, ``ready`` = ``equal`` + ``unequal``; ``reasons``, how
many rows could not be checked and why; ``first_mismatch`` {symbol, time, made, seq, feature, logged, computed} or null; ``start``
and ``end`` of the rows' market time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from probatum.core.clock import NS_PER_MINUTE, NS_PER_MS, format_utc
from probatum.core.errors import InconclusiveError
from probatum.features.events import available, dataset_events
from probatum.features.fold import FeatureFrame, fold, kind_of_rows
from probatum.features.sets import FEATURE_SETS, FeatureSet
from probatum.market.dataset import Dataset
from probatum.market.events import Events
from probatum.pipeline import logged
from probatum.pipeline.evidence import prove
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.rollout.criteria import SKEW_CRITERIA, Measurement, assess

KIND = "skew"

REASONS = ("no_start", "other_features", "no_data", "no_history", "no_row", "not_ready")
"""Why a row is not checked: its vector was the caller's own, or the features still remembered warm-up bars; this version has
no such feature set; no data of the symbol; the data begin after the executor's, and the features still remember that; no event
at that time; not ready in batch."""


def prove_skew(
    ledger: Ledger, sources: Sources, frame: pl.DataFrame, *, dataset: str | None = None, grid_ns: int
) -> Record:
    """Recompute logged decisions and append ``skew``. ``grid_ns`` is how far apart timers were, on quotes.

    ``dataset`` names the raw data where they are not stored under the symbol that was logged. Raises InconclusiveError where
    nothing was logged, and UnknownNameError where there are no raw data at all.
    """
    if frame.is_empty():
        raise InconclusiveError("no decision was logged in this time: nothing to compare")
    datasets = logged.datasets_of(sources, frame, dataset)
    inputs = {
        "decisions": sources.blobs.put("decisions", logged.encode(frame)),
        **logged.inputs_of(datasets),
        "grid_ms": grid_ns // NS_PER_MS,
    }
    return prove(
        ledger,
        sources,
        kind=KIND,
        subject="+".join(inputs["symbols"]),
        provenance=logged.class_of(frame, datasets),
        inputs=inputs,
        derive=figures,
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Compare every row of the stored decisions with the batch path over the named datasets."""
    frame = logged.decode(sources, inputs["decisions"])
    datasets = logged.load(sources, inputs)
    reasons, equal, mismatches = Counter[str](), 0, list[dict[str, Any]]()
    for symbol, rows in _groups(frame, "symbol"):
        data = datasets.get(symbol)
        events = None if data is None else _events(data, inputs["grid_ms"] * NS_PER_MS)
        for _, alike in _groups(rows, "fingerprint"):
            feature_set = _set_of(alike)
            for _, part in _groups(alike, "since"):
                found = _check(part, feature_set, data, events)
                reasons.update(found.unchecked)
                equal += found.equal
                mismatches += found.mismatches
    unequal, ready = sum(item["rows"] for item in mismatches), frame.height - reasons.total()
    first = min(mismatches, key=lambda item: item["place"], default=None)
    return {
        **_judge(unequal, ready),
        "rows": frame.height,
        "ready": ready,
        "equal": equal,
        "unequal": unequal,
        "unchecked": reasons.total(),
        "reasons": {name: reasons[name] for name in REASONS},
        "first_mismatch": first and {key: first[key] for key in first if key not in ("place", "rows")},
        "provenance": logged.class_of(frame, datasets),
        "start": format_utc(int(frame["as_of"].min() or 0)),  # type: ignore[arg-type]
        "end": format_utc(int(frame["as_of"].max() or 0)),  # type: ignore[arg-type]
    }


def _judge(unequal: int, ready: int) -> dict[str, Any]:
    """Judge: one unequal row is enough to fail, and too few equal ones prove nothing."""
    (criterion,) = SKEW_CRITERIA
    asked = msgspec.structs.replace(criterion, count_min=0) if unequal else criterion
    judged = assess([asked], {asked.name: Measurement.counted(float(unequal), ready)})
    return {"verdict": judged.verdict, "checks": msgspec.to_builtins(judged.checks)}


def _groups(frame: pl.DataFrame, key: str) -> list[tuple[Any, pl.DataFrame]]:
    return [(value, part) for (value,), part in frame.group_by(key, maintain_order=True)]


def _events(dataset: Dataset, grid_ns: int) -> Events:
    return dataset_events(dataset, grid_ns=None if dataset.quotes is None else grid_ns)


class _Found(msgspec.Struct):
    unchecked: Counter[str]
    equal: int = 0
    mismatches: list[dict[str, Any]] = []


def _check(
    rows: pl.DataFrame, feature_set: FeatureSet | None, dataset: Dataset | None, events: Events | None
) -> _Found:
    """Check rows of one symbol, one feature set and one start of the executor's state."""
    since = int(rows["since"][0])
    if since == 0:
        return _Found(Counter(no_start=rows.height))
    if feature_set is None:
        return _Found(Counter(other_features=rows.height))
    if dataset is None or events is None or not feature_set.needs <= available(dataset):
        return _Found(Counter(no_data=rows.height))
    begin, as_of = int(events.ts[0]), rows["as_of"].to_numpy()
    remembered = begin + feature_set.memory_minutes * NS_PER_MINUTE if begin > since else begin
    batch = _batch(feature_set, events, since, as_of, dataset.tick_size)
    place = np.maximum(np.searchsorted(batch.ts, as_of, side="right") - 1, 0)
    why = np.full(len(as_of), "", dtype=object)
    why[~batch.ready[place]] = "not_ready"
    why[batch.ts[place] != as_of] = "no_row"
    why[as_of < remembered] = "no_history"
    return _compare(rows, feature_set, batch.values[place], why)


def _batch(
    feature_set: FeatureSet, events: Events, since: int, as_of: NDArray[np.int64], tick_size: float | None
) -> FeatureFrame:
    """Fold the events that the executor's state had seen by the last row; at every event where rows are off the grid."""
    low = min(int(np.searchsorted(events.ts, since)), len(events) - 1)
    high = max(int(np.searchsorted(events.ts, as_of.max(), side="right")), low + 1)
    seen = Events(events.ts[low:high], events.kind[low:high], events.values[low:high])
    on_grid = np.isin(as_of, seen.ts[seen.kind == kind_of_rows(seen)]).all()
    return fold(feature_set, seen, tick_size=tick_size, every_event=not on_grid)


def _compare(rows: pl.DataFrame, feature_set: FeatureSet, computed: NDArray[np.float64], why: Any) -> _Found:
    found = _Found(Counter(why[why != ""].tolist()))
    values = logged.values_of(rows, feature_set.names)
    differs = (values.view(np.int64) != np.ascontiguousarray(computed).view(np.int64)) & (why == "")[:, None]
    unequal = np.flatnonzero(differs.any(axis=1))
    found.equal = rows.height - found.unchecked.total() - len(unequal)
    if len(unequal):
        row = int(unequal[0])
        column = int(np.flatnonzero(differs[row])[0])
        told = rows.row(row, named=True)
        found.mismatches = [
            {
                "place": told["place"],
                "rows": len(unequal),
                "symbol": told["symbol"],
                "time": format_utc(told["as_of"]),
                "made": format_utc(told["ts"]),
                "seq": told["seq"],
                "feature": feature_set.names[column],
                "logged": repr(float(values[row, column])),
                "computed": repr(float(computed[row, column])),
            }
        ]
    return found


def _set_of(rows: pl.DataFrame) -> FeatureSet | None:
    """Return the feature set whose fingerprint the rows bear, by the columns they have; None where this version has none."""
    logged_names = {name.removeprefix("f_") for name in rows.columns if name.startswith("f_")}
    present = {name for name in logged_names if rows[f"f_{name}"].null_count() < rows.height}
    for known in FEATURE_SETS.values():
        chosen = msgspec.structs.replace(known, features=tuple(f for f in known.features if f.name in present))
        if chosen.fingerprint == rows["fingerprint"][0]:
            return chosen
    return None
