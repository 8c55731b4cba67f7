"""A dataset becomes one stream: in time order, inside its sessions, with what it has and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from feature_streams import MINUTE, SECOND, START

from probatum.core.clock import parse_utc
from probatum.core.errors import DataError, ParameterError
from probatum.core.verdict import Provenance
from probatum.features.events import available, dataset_events, sessions_of
from probatum.market.calendar import CALENDARS, Calendar
from probatum.market.dataset import SCHEMAS, Dataset
from probatum.market.events import BAR, QUOTE, TIMER, TRADE

ROW: dict[str, Any] = {"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": None, "spread": None}
BOOK: dict[str, Any] = {"bid": 1.0, "ask": 1.1, "bid_size": 2.0, "ask_size": 3.0}
DEAL: dict[str, Any] = {"price": 1.0, "size": 1.0, "side": 1}


def frame(kind: str, times: Sequence[int], row: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{"ts_event": t, "ts_recv": t, **row} for t in times], schema=SCHEMAS[kind])


def dataset(calendar: str = "24x7", tick_size: float | None = None, **frames: pl.DataFrame) -> Dataset:
    return Dataset("X", Provenance.REPLAY, "0" * 64, CALENDARS[calendar], tick_size, **frames)


def test_what_a_dataset_has() -> None:
    """Only what has values counts: a bar column with any, sizes when every quote has them, the tick when declared."""
    at = [START + MINUTE, START + 2 * MINUTE]
    bare, full = frame("bars", at, ROW), frame("bars", at, {**ROW, "volume": 1.0, "spread": 0.1})
    quotes, trades = frame("quotes", at, BOOK), frame("trades", at, DEAL)
    unsized = frame("quotes", at, {**BOOK, "ask_size": None})
    assert available(dataset(bars=bare)) == set()
    assert available(dataset(bars=full)) == {"spread", "volume"}
    assert available(dataset(bars=pl.concat([bare[:1], full[1:]]))) == {"spread", "volume"}
    assert available(dataset(quotes=quotes, tick_size=0.1)) == {"spread", "sizes", "tick"}
    assert available(dataset(quotes=unsized, trades=trades)) == {"spread", "volume", "trades"}
    assert available(dataset(quotes=pl.concat([quotes[:1], unsized[1:]]))) == {"spread"}
    assert available(dataset(quotes=quotes, trades=trades[:0])) == {"spread", "sizes"}


def test_quotes_come_before_trades_and_these_before_timers() -> None:
    """At one instant the order is fixed, so that two runs see one stream."""
    at = [START + SECOND, START + SECOND, START + 2 * SECOND]
    events = dataset_events(dataset(trades=frame("trades", at, DEAL), quotes=frame("quotes", at, BOOK)), grid_ns=SECOND)
    assert events.kind.tolist() == [QUOTE, QUOTE, TRADE, TRADE, TIMER, QUOTE, TRADE, TIMER]
    assert (np.diff(events.ts) >= 0).all()
    assert events.values[0].tolist() == [1.0, 1.1, 2.0, 3.0]
    assert events.values[2].tolist() == [1.0, 1.0, 1.0, 0.0]


def test_missing_values_are_nan_and_an_unknown_side_is_zero() -> None:
    """NaN says that the source has none; zero would be a value."""
    bars = dataset_events(dataset(bars=frame("bars", [START + MINUTE], ROW)), grid_ns=None)
    assert bars.kind.tolist() == [BAR]
    np.testing.assert_array_equal(bars.values[0], [1.0, np.nan, np.nan, 0.0])
    at = [START + SECOND]
    market = dataset(quotes=frame("quotes", at, BOOK), trades=frame("trades", at, {**DEAL, "side": None}))
    assert dataset_events(market, grid_ns=SECOND).values[1].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_only_sessions_count() -> None:
    """An event belongs to (open, close]; the closing bar and the last timer are in, the night is out."""
    opens, closes = parse_utc("2024-01-03T14:30:00Z"), parse_utc("2024-01-03T21:00:00Z")
    at = [opens - MINUTE, opens, opens + MINUTE, closes, closes + MINUTE]
    events = dataset_events(dataset("us-equity", bars=frame("bars", at, ROW)), grid_ns=None)
    assert events.ts.tolist() == [opens + MINUTE, closes]
    ticks = dataset_events(dataset("us-equity", quotes=frame("quotes", at, BOOK)), grid_ns=MINUTE)
    timers = ticks.ts[ticks.kind == TIMER]
    assert (timers[0], timers[-1], len(timers)) == (opens + MINUTE, closes, 390)
    days = np.array([opens + 1, closes, closes + 1, opens + 86_400 * SECOND + 1])
    assert np.diff(sessions_of(CALENDARS["us-equity"], days)[[0, 1, 3]]).tolist() == [0, 1]
    assert sessions_of(CALENDARS["us-equity"], days)[2] == -1


def test_a_stream_that_cannot_be_made_is_an_error_that_says_why() -> None:
    """No mid, no grid for ticks, another grid than the bars', nothing inside the sessions."""
    at, night = [START + MINUTE], [parse_utc("2024-01-03T03:00:00Z")]
    quotes, bars = frame("quotes", at, BOOK), frame("bars", at, ROW)
    for market, grid, kind, word in (
        (dataset(trades=frame("trades", at, DEAL)), SECOND, DataError, "mid"),
        (dataset(bars=bars[:0]), None, DataError, "mid"),
        (dataset(quotes=quotes), None, ParameterError, "grid"),
        (dataset(quotes=quotes), 0, ParameterError, "grid"),
        (dataset(bars=bars), SECOND, ParameterError, "grid"),
        (dataset("us-equity", bars=frame("bars", night, ROW)), None, DataError, "sessions"),
    ):
        with pytest.raises(kind, match=word):
            dataset_events(market, grid_ns=grid)


def test_a_calendar_without_sessions_holds_nothing() -> None:
    """Saturday traders are closed on a Wednesday; and no time, no answer."""
    assert sessions_of(Calendar(weekdays=(5,)), np.array([START + 2 * 1440 * MINUTE])).tolist() == [-1]
    assert sessions_of(CALENDARS["24x7"], np.array([], dtype=np.int64)).tolist() == []
