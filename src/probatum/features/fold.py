"""Build features in batch: the compiled loop over the same step that serving takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probatum.core.errors import ParameterError
from probatum.features import kernels
from probatum.features.sets import FeatureSet
from probatum.features.state import FeatureState, columns, new_state, refusal
from probatum.market.events import BAR, TIMER, Events


@dataclass(frozen=True)
class FeatureFrame:
    """Hold n rows: ``ts`` int64[n], ``values`` float64[n, k] (NaN where not ``ready``), ``mid`` float64[n]."""

    ts: NDArray[np.int64]
    values: NDArray[np.float64]
    ready: NDArray[np.bool_]
    mid: NDArray[np.float64]
    feature_set: FeatureSet

    def __len__(self) -> int:
        return int(self.ts.shape[0])


def kind_of_rows(events: Events) -> int:
    """Return which events a row is made at: timers where there are any, else bars."""
    return TIMER if bool((events.kind == TIMER).any()) else BAR


def fold(
    feature_set: FeatureSet,
    events: Events,
    *,
    tick_size: float | None = None,
    state: FeatureState | None = None,
    every_event: bool = False,
) -> FeatureFrame:
    """Return one row per bar; or per timer, where the stream has timers; or per event.

    A ``state`` is taken on from where it stands, and moved. Raises DataError naming the first impossible event.
    """
    if state is None:
        array, scratch = new_state(feature_set, tick_size), np.empty(kernels.WIDTHS[kernels.CODES[feature_set.name]])
    elif state.feature_set.fingerprint != feature_set.fingerprint:
        raise ParameterError(
            "state", f"one of feature set {feature_set.name!r} with the same columns", state.feature_set.name
        )
    else:
        array, scratch = state.arrays
    row_kind = -1 if every_event else kind_of_rows(events)
    chosen = slice(None) if every_event else events.kind == row_kind
    ts = events.ts[chosen].copy()
    out = np.empty((ts.shape[0], len(feature_set.features)))
    ready, mid = np.empty(ts.shape[0], dtype=np.bool_), np.empty(ts.shape[0])
    code, row = kernels.fold(
        array, scratch, events.ts, events.kind, events.values, row_kind, columns(feature_set), out, ready, mid
    )
    if code < 0:
        raise refusal(code, int(events.ts[row]), int(events.kind[row]), tuple(events.values[row].tolist()), row)
    return FeatureFrame(ts, out, ready, mid, feature_set)
