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

    Without a ready row there is nothing to compare, and that is the one check, which fails.
    """
    if not len(events):
        raise ParameterError("events", "at least one", 0)
    frame = fold(feature_set, events, tick_size=tick_size)
    ready = int(frame.ready.sum())
    if not ready:
        return [Check("ready", False, 0, f"no row of {len(frame):,}")]
    first = f"{ready:,} of {len(frame):,} rows, from row {int(np.argmax(frame.ready)):,} on"
    rng = np.random.default_rng(seed)
    return [
        Check("ready", True, ready, first),
        _online(frame, events, tick_size),
        _plain(frame, events, tick_size, rng),
        _truncated(frame, events, tick_size, rng),
    ]


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
    return Check("online equals batch", same, len(ready), detail)


def _part(events: Events, start: int, end: int) -> Events:
    return Events(events.ts[start:end], events.kind[start:end], events.values[start:end])


def _plain(frame: FeatureFrame, events: Events, tick_size: float | None, rng: np.random.Generator) -> Check:
    """Step a stretch of events about a ready row in plain Python and compiled, from one state."""
    name, row = "compiled equals plain", int(rng.choice(np.flatnonzero(frame.ready)))
    start = max(0, int(np.searchsorted(events.ts, frame.ts[row])) - _PLAIN_EVENTS // 2)
    state, plain = FeatureState(frame.feature_set, tick_size), load_plain(kernels.__name__)
    fold(frame.feature_set, _part(events, 0, start), state=state)
    compiled, out = state.arrays
    copy, other_out, ready = compiled.copy(), out.copy(), 0
    sample = _part(events, start, start + _PLAIN_EVENTS)
    for i, values in enumerate(sample.values.tolist()):
        event = (int(sample.ts[i]), int(sample.kind[i]), *values)
        answer, other = kernels.step(compiled, out, *event), plain.step(copy, other_out, *event)
        if answer != other or out.tobytes() != other_out.tobytes() or compiled.tobytes() != copy.tobytes():
            return Check(name, False, ready, f"event {start + i:,}: {out.tolist()} against {other_out.tolist()}")
        ready += answer == kernels.READY
    return Check(name, ready > 0, ready)


def _truncated(frame: FeatureFrame, events: Events, tick_size: float | None, rng: np.random.Generator) -> Check:
    """Cut the data at some ready rows and compare what is left: a feature that looks ahead would change."""
    name, compared = "no look ahead", 0
    for row in rng.choice(np.flatnonzero(frame.ready), _CUTS):
        cut = int(np.searchsorted(events.ts, frame.ts[row], side="right"))
        head = fold(frame.feature_set, _part(events, 0, cut), tick_size=tick_size)
        detail = first_difference(frame.values[: row + 1], head.values, frame.feature_set.names)
        if detail:
            return Check(name, False, compared, detail)
        compared += int(head.ready.sum())
    return Check(name, True, compared)
