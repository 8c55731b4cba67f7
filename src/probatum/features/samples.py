"""Join features and labels into the rows that a model is trained and judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from probatum.core.clock import NS_PER_MINUTE
from probatum.core.errors import DataError, ParameterError
from probatum.features.events import available, dataset_events, sessions_of
from probatum.features.fold import FeatureFrame, fold
from probatum.features.labels import Labels, Target, label, segments
from probatum.features.sets import FeatureSet, get_feature_set
from probatum.market.dataset import Dataset


@dataclass(frozen=True)
class Samples:
    """Hold n labelled rows in time order.

    ``ts`` int64[n] ns, ``symbol`` str[n], ``values`` float64[n, k], ``label`` int8[n], ``fwd_return`` float64[n] (log
    return of mid over the label's horizon), ``label_end`` int64[n] (ns, when the label became known).
    """

    ts: NDArray[np.int64]
    symbol: NDArray[np.str_]
    values: NDArray[np.float64]
    label: NDArray[np.int8]
    fwd_return: NDArray[np.float64]
    label_end: NDArray[np.int64]
    feature_set: FeatureSet
    target: Target

    def __len__(self) -> int:
        return int(self.ts.shape[0])

    def take(self, rows: NDArray[np.int64]) -> Samples:
        """Return these rows only."""
        names = ("ts", "symbol", "values", "label", "fwd_return", "label_end")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


class Progress(Protocol):
    """Where long work says how far it is."""

    def step(self, description: str, done: int, total: int) -> None:
        """Report ``done`` of ``total`` units."""
        ...


def build_samples(
    datasets: Sequence[Dataset],
    set_name: str,
    target: Target,
    *,
    grid_ns: int | None,
    progress: Progress | None = None,
) -> Samples:
    """Return the rows of all datasets that are ready and labelled, by time and then symbol.

    The columns are those that every dataset supports. Raises DataError where no row is left.
    """
    if not datasets:
        raise ParameterError("datasets", "at least one", [])
    common = frozenset.intersection(*(available(dataset) for dataset in datasets))
    feature_set = get_feature_set(set_name, common)
    parts = []
    for done, dataset in enumerate(datasets):
        parts.append(_rows(dataset, feature_set, target, grid_ns))
        if progress is not None:
            progress.step(f"features {set_name}", done + 1, len(datasets))
    ts, symbol, values, labels, returns, ends = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((symbol, ts))
    if not len(order):
        raise DataError(f"no row is both ready ({feature_set.required_minutes} minutes of history) and labelled")
    return Samples(ts, symbol, values, labels, returns, ends, feature_set, target).take(order)


def labelled(
    dataset: Dataset, feature_set: FeatureSet, target: Target, grid_ns: int | None
) -> tuple[FeatureFrame, Labels]:
    """Return every row of a dataset, ready or not, and its label."""
    frame = fold(feature_set, dataset_events(dataset, grid_ns=grid_ns), tick_size=dataset.tick_size)
    segment = segments(frame.ts, frame.mid, sessions_of(dataset.calendar, frame.ts))
    return frame, label(target, frame.ts, frame.mid, segment, grid_ns or NS_PER_MINUTE)


def _rows(
    dataset: Dataset, feature_set: FeatureSet, target: Target, grid_ns: int | None
) -> tuple[
    NDArray[np.int64], NDArray[np.str_], NDArray[np.float64], NDArray[np.int8], NDArray[np.float64], NDArray[np.int64]
]:
    frame, labels = labelled(dataset, feature_set, target, grid_ns)
    use = frame.ready & labels.valid
    symbol = np.full(int(use.sum()), dataset.symbol)
    return frame.ts[use], symbol, frame.values[use], labels.label[use], labels.fwd_return[use], labels.label_end[use]
