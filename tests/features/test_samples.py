"""Rows for training: ready, labelled, in time order, with the columns that all data support."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from feature_streams import MINUTE, SECOND, bars, same_bits

from probatum.core.errors import DataError, ParameterError
from probatum.core.verdict import Provenance
from probatum.features.events import available, dataset_events
from probatum.features.fold import fold
from probatum.features.labels import parse_target
from probatum.features.samples import build_samples
from probatum.features.sets import get_feature_set
from probatum.market.calendar import CALENDARS
from probatum.market.dataset import BAR_SCHEMA, Dataset

TARGET = parse_target("direction@60s")


def dataset(symbol: str, rows: int, seed: int, *, spread: bool = True) -> Dataset:
    events = bars(rows, seed=seed, spread=spread)
    close, gap, volume = events.values[:, 0], events.values[:, 1], events.values[:, 2]
    frame = pl.DataFrame(
        {
            "ts_event": events.ts,
            "ts_recv": events.ts,
            "open": close,
            "high": close,
            "low": close,
            "close": close,
            "volume": volume,
            "spread": gap if spread else [None] * rows,
        },
        schema=BAR_SCHEMA,
    )
    return Dataset(symbol, Provenance.SYNTHETIC, "0" * 64, CALENDARS["24x7"], None, bars=frame)


class Steps:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def step(self, description: str, done: int, total: int) -> None:
        self.seen.append((description, done, total))


def test_rows_of_two_instruments_interleave_in_time() -> None:
    """Rows come by time and then by name, each with its own instrument's features, and progress is told."""
    a, b, steps = dataset("A", 600, 1), dataset("B", 600, 2), Steps()
    both = build_samples([b, a], "v1.8.1", TARGET, grid_ns=None, progress=steps)
    assert both.symbol[:4].tolist() == ["A", "B", "A", "B"]
    assert (np.diff(both.ts) >= 0).all()
    for own in (a, b):
        alone = build_samples([own], "v1.8.1", TARGET, grid_ns=None)
        part = both.take(np.flatnonzero(both.symbol == own.symbol))
        assert same_bits(part.values, alone.values)
        assert (part.label == alone.label).all()
        assert (part.label_end == part.ts + MINUTE).all()
    assert steps.seen == [("features v1.8.1", 1, 2), ("features v1.8.1", 2, 2)]
    assert len(both) == 2 * (600 - 359 - 1)


def test_the_columns_are_those_that_all_data_support() -> None:
    """One instrument without a spread takes the column from all, and the fingerprint says so."""
    samples = build_samples([dataset("A", 500, 1), dataset("B", 500, 2, spread=False)], "v1.8.1", TARGET, grid_ns=None)
    assert samples.feature_set == get_feature_set("v1.8.1", frozenset({"volume"}))
    assert samples.values.shape[1] == len(samples.feature_set.names) == 6
    assert np.isfinite(samples.values).all()


def test_rows_are_the_ready_and_labelled_ones_of_a_real_file(btc: Dataset) -> None:
    """A month of BTCUSDT gives every row after six hours but the last minute, and features as the fold gives them."""
    samples = build_samples([btc], "robust", TARGET, grid_ns=None)
    frame = fold(get_feature_set("robust", available(btc)), dataset_events(btc, grid_ns=None))
    rows = np.flatnonzero(frame.ready)[:-1]
    assert len(samples) == len(rows) == 44_280
    assert same_bits(samples.values, np.ascontiguousarray(frame.values[rows]))
    assert (samples.label == (frame.mid[rows + 1] > frame.mid[rows])).all()


def test_ticks_give_rows_on_the_grid(bac: Dataset) -> None:
    """Three hours of BAC, less its last 46 ms, give a row per second but the first minute and the last horizon."""
    samples = build_samples([bac], "book", parse_target("direction@10s"), grid_ns=SECOND)
    assert len(samples) == 3 * 3600 - 1 - 60 - 10
    assert (samples.ts % SECOND == 0).all()
    assert 0.0 < samples.label.mean() < 0.1


def test_no_rows_is_an_error() -> None:
    """Too little history, and no dataset at all, say so."""
    with pytest.raises(DataError, match="360 minutes"):
        build_samples([dataset("A", 300, 1)], "v1.8.1", TARGET, grid_ns=None)
    with pytest.raises(ParameterError):
        build_samples([], "v1.8.1", TARGET, grid_ns=None)


def test_a_grid_wider_than_the_data_leaves_no_row(bac: Dataset) -> None:
    """No timer inside the data is too little data, not a crash."""
    assert bac.quotes is not None
    short = Dataset("BAC", bac.provenance, bac.sha256, bac.calendar, bac.tick_size, quotes=bac.quotes[50_000:50_003])
    with pytest.raises(DataError):
        build_samples([short], "book", TARGET, grid_ns=MINUTE)
