"""Prove on given data what the feature path promises: one result online and in batch, compiled and plain, with no future."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from probatum.core.errors import ParameterError
from probatum.features import kernels
from probatum.features.fold import FeatureFrame, fold, kind_of_rows
from probatum.features.jit import load_plain
from probatum.features.sets import FeatureSet
from probatum.features.state import FeatureState
from probatum.market.events import Events

_CUTS = 5
_PLAIN_EVENTS = 2_000


class Check(msgspec.Struct, frozen=True):
    """Hold one promise: whether it was kept, and on how many rows; ``detail`` names the first place where it was not."""

    name: str
    ok: bool
    rows: int
    detail: str = ""


def check_features(feature_set: FeatureSet, events: Events, tick_size: float | None, seed: int = 7) -> list[Check]:
    """Return the checks of one set on one stream; all compare bit by bit.

    No row that is ready is no proof: then every check fails.
    """
    if not len(events):
        raise ParameterError("events", "at least one", 0)
    frame = fold(feature_set, events, tick_size=tick_size)
    ready = int(frame.ready.sum())
    share = Check("ready", ready > 0, ready, f"{ready:,} of {len(frame):,} rows, from {_first_ready(frame)} on")
    rng = np.random.default_rng(seed)
    return [
        share,
        _online(frame, events, tick_size),
        _plain(feature_set, events, tick_size, rng),
        _truncated(frame, events, tick_size, rng),
    ]


def _first_ready(frame: FeatureFrame) -> str:
    return f"row {int(np.argmax(frame.ready)):,}" if frame.ready.any() else "no row"


def first_difference(ours: NDArray[np.float64], other: NDArray[np.float64], names: tuple[str, ...]) -> str:
    """Return where two tables differ first, bit by bit (NaN equals NaN); empty where nowhere."""
    bad = np.argwhere(ours.view(np.int64) != other.view(np.int64))
    if not len(bad):
        return ""
    row, column = bad[0]
    return f"row {row:,}, {names[column]}: {ours[row, column]!r} against {other[row, column]!r}"


def _online(frame: FeatureFrame, events: Events, tick_size: float | None) -> Check:
    """Feed the events one by one, and compare each row that the batch kept."""
    state, values = FeatureState(frame.feature_set, tick_size), np.empty_like(frame.values)
    ready: list[bool] = []
    row_kind = kind_of_rows(events)
    for ts, kind, row in zip(events.ts.tolist(), events.kind.tolist(), events.values.tolist(), strict=True):
        is_ready = state.update(ts, kind, *row)
        if kind == row_kind:
            values[len(ready)] = state.values
            ready.append(is_ready)
    detail = first_difference(frame.values, values, frame.feature_set.names)
    same = not detail and ready == frame.ready.tolist()
    return Check("online equals batch", same and bool(frame.ready.any()), len(ready), detail)


def _plain(feature_set: FeatureSet, events: Events, tick_size: float | None, rng: np.random.Generator) -> Check:
    """Step a stretch of events that starts late in the stream in plain Python and compiled, from one state."""
    start = int(rng.integers(max(1, len(events) * 3 // 4 - _PLAIN_EVENTS), len(events) * 3 // 4 + 1))
    head, end = Events(events.ts[:start], events.kind[:start], events.values[:start]), start + _PLAIN_EVENTS
    state = FeatureState(feature_set, tick_size)
    fold(feature_set, head, state=state)
    compiled, out = state.arrays
    copy, plain_out, plain = compiled.copy(), out.copy(), load_plain(kernels.__name__)
    rows, ready = 0, 0
    for ts, kind, row in zip(
        events.ts[start:end], events.kind[start:end], events.values[start:end].tolist(), strict=True
    ):
        answer = kernels.step(compiled, out, int(ts), int(kind), *row)
        other = plain.step(copy, plain_out, int(ts), int(kind), *row)
        if answer != other or compiled.tobytes() != copy.tobytes() or out.tobytes() != plain_out.tobytes():
            return Check(
                "compiled equals plain",
                False,
                rows,
                f"event {start + rows:,}: {out.tolist()} against {plain_out.tolist()}",
            )
        rows, ready = rows + 1, ready + (answer == kernels.READY)
    return Check("compiled equals plain", ready > 0, ready, "" if ready else "no ready row in the sample")


def _truncated(frame: FeatureFrame, events: Events, tick_size: float | None, rng: np.random.Generator) -> Check:
    """Cut the data at some times and compare what is left: a feature that looks ahead would change."""
    rows, compared = rng.integers(len(frame) // 2, len(frame), _CUTS), 0
    for row in rows:
        cut = int(np.searchsorted(events.ts, frame.ts[row], side="right"))
        head = fold(
            frame.feature_set, Events(events.ts[:cut], events.kind[:cut], events.values[:cut]), tick_size=tick_size
        )
        detail = first_difference(frame.values[: row + 1], head.values, frame.feature_set.names)
        if detail:
            return Check("no look ahead", False, compared, detail)
        compared += int(head.ready.sum())
    return Check("no look ahead", compared > 0, compared)
