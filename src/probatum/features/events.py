"""Turn a dataset into the one stream of events that the kernels fold over."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from probatum.core.clock import NS_PER_DAY, NS_PER_MINUTE, utc_day
from probatum.core.errors import DataError, ParameterError
from probatum.market.calendar import Calendar
from probatum.market.dataset import Dataset
from probatum.market.events import BAR, QUOTE, TIMER, TRADE, Events

_QUOTE = ("bid", "ask", "bid_size", "ask_size")
_TRADE = ("price", "size", "side")
_BAR = ("close", "spread", "volume")


def available(dataset: Dataset) -> frozenset[str]:
    """Return which of spread, volume, sizes, trades and tick the data have.

    A bar column counts when it has any value: a row without one is not ready. Sizes count when every quote has them.
    """
    found = {"tick"} if dataset.tick_size is not None else set()
    if dataset.quotes is not None and not dataset.quotes.is_empty():
        sizes = dataset.quotes.select("bid_size", "ask_size")
        found |= {"spread"} | ({"sizes"} if sum(sizes.null_count().row(0)) == 0 else set())
        if dataset.trades is not None and not dataset.trades.is_empty():
            found |= {"volume", "trades"}
    elif dataset.bars is not None:
        found |= {name for name in ("spread", "volume") if dataset.bars[name].null_count() < dataset.bars.height}
    return frozenset(found)


def sessions_of(calendar: Calendar, ts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each time the number of the session (start, end] it belongs to, −1 outside; times ascend."""
    spans = _spans(calendar, ts) if len(ts) else np.empty((0, 2), dtype=np.int64)
    if not len(spans):
        return np.full(len(ts), -1, dtype=np.int64)
    index = np.searchsorted(spans[:, 0], ts, side="left") - 1
    inside = (index >= 0) & (ts <= spans[index, 1])
    return np.where(inside, index, -1).astype(np.int64)


def _spans(calendar: Calendar, ts: NDArray[np.int64]) -> NDArray[np.int64]:
    first, last = utc_day(max(int(ts[0]) - 2 * NS_PER_DAY, 0)), utc_day(int(ts[-1]) + 2 * NS_PER_DAY)
    return np.array(calendar.sessions(first, last), dtype=np.int64).reshape(-1, 2)


def dataset_events(dataset: Dataset, *, grid_ns: int | None) -> Events:
    """Return the events inside the calendar's sessions: bars without a grid; else quotes and trades, and timers on it.

    At equal times quotes come before trades and these before timers. A session is (start, end], like a minute, so the
    closing bar and the timer at the close belong to it. Raises DataError where nothing is left.
    """
    if dataset.quotes is not None and not dataset.quotes.is_empty():
        if grid_ns is None:
            raise ParameterError("grid", f"given (e.g. 1s), for {dataset.symbol} has quotes rather than bars", None)
        return _tick_events(dataset, grid_ns)
    if dataset.bars is None or dataset.bars.is_empty():
        raise DataError(f"{dataset.symbol} has neither bars nor quotes: without them there is no mid price")
    if grid_ns not in (None, NS_PER_MINUTE):
        raise ParameterError("grid", f"left out or 60s, for {dataset.symbol} has one-minute bars", f"{grid_ns} ns")
    return _inside(dataset, *_columns(dataset.bars, BAR, _BAR))


def _tick_events(dataset: Dataset, grid_ns: int) -> Events:
    if grid_ns <= 0:
        raise ParameterError("grid", "more than 0", f"{grid_ns} ns")
    parts = [_columns(frame, kind, names) for frame, kind, names in _frames(dataset)]
    first, last = min(int(ts[0]) for ts, _, _ in parts), max(int(ts[-1]) for ts, _, _ in parts)
    timers = np.arange(-(-first // grid_ns), last // grid_ns + 1, dtype=np.int64) * grid_ns
    parts.append((timers, np.full(len(timers), TIMER, dtype=np.int8), np.zeros((len(timers), 4))))
    ts = np.concatenate([part[0] for part in parts])
    order = np.argsort(ts, kind="stable")
    kind, values = np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])
    return _inside(dataset, ts[order], kind[order], values[order])


def _frames(dataset: Dataset) -> list[tuple[pl.DataFrame, int, tuple[str, ...]]]:
    frames = [(dataset.quotes, QUOTE, _QUOTE), (dataset.trades, TRADE, _TRADE)]
    return [(frame, kind, names) for frame, kind, names in frames if frame is not None and not frame.is_empty()]


def _columns(
    frame: pl.DataFrame, kind: int, names: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.float64]]:
    values = np.zeros((frame.height, 4))
    for j, name in enumerate(names):
        missing = 0.0 if name == "side" else float("nan")
        values[:, j] = frame[name].cast(pl.Float64).fill_null(missing).to_numpy()
    return frame["ts_event"].to_numpy(), np.full(frame.height, kind, dtype=np.int8), values


def _inside(dataset: Dataset, ts: NDArray[np.int64], kind: NDArray[np.int8], values: NDArray[np.float64]) -> Events:
    inside = sessions_of(dataset.calendar, ts) >= 0
    if not inside.any():
        raise DataError(f"{dataset.symbol} has no event inside the sessions of its calendar")
    return Events(ts[inside], kind[inside], values[inside])
