"""Make small random streams of events, for properties and oracles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probatum.market.events import BAR, QUOTE, TIMER, TRADE, Events

MINUTE = 60_000_000_000
SECOND = 1_000_000_000
START = 1_704_067_200_000_000_000  # 2024-01-01T00:00Z


def bars(rows: int, *, seed: int = 7, holes: tuple[tuple[int, int], ...] = (), spread: bool = True) -> Events:
    """Return minute bars of a random walk, without the minutes [start, start + length) of ``holes``."""
    rng = np.random.default_rng(seed)
    minutes = np.arange(rows)
    for start, length in holes:
        minutes = minutes[(minutes < start) | (minutes >= start + length)]
    n = len(minutes)
    mid = np.round(100.0 * np.exp(np.cumsum(rng.normal(0, 5e-4, n))), 2)
    spreads = rng.integers(1, 6, n) * 0.01 if spread else np.full(n, np.nan)
    values = np.column_stack([mid, spreads, rng.lognormal(2, 1, n), np.zeros(n)])
    return Events(START + (minutes + 1) * MINUTE, np.full(n, BAR, dtype=np.int8), values)


def ticks(
    seconds: int, *, seed: int = 7, rate: float = 3.0, grid: int = SECOND, silent: tuple[int, int] = (0, 0)
) -> Events:
    """Return quotes and trades at random times and timers on a grid; no market event in ``silent`` (from, to) seconds."""
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    at = np.sort(rng.integers(0, seconds * SECOND, n))
    at = at[(at < silent[0] * SECOND) | (at >= silent[1] * SECOND)]
    n = len(at)
    kind = np.where(rng.random(n) < 0.7, QUOTE, TRADE).astype(np.int8)
    kind[0] = QUOTE
    bid = 100.0 + np.cumsum(rng.integers(-1, 2, n)) * 0.01
    ask = bid + rng.integers(0, 3, n) * 0.01
    quotes = np.column_stack([bid, ask, rng.integers(1, 50, n), rng.integers(1, 50, n)])
    price = np.where(rng.random(n) < 0.5, ask, bid)
    trades = np.column_stack([price, rng.integers(1, 9, n), rng.integers(-1, 2, n), np.zeros(n)])
    values = np.where((kind == QUOTE)[:, None], quotes, trades).astype(np.float64)
    timers = np.arange(grid, seconds * SECOND + 1, grid)
    ts = np.concatenate([at, timers])
    order = np.argsort(ts, kind="stable")
    kinds = np.concatenate([kind, np.full(len(timers), TIMER, dtype=np.int8)])
    return Events(START + ts[order], kinds[order], np.concatenate([values, np.zeros((len(timers), 4))])[order])


def head(events: Events, n: int) -> Events:
    """Return the first n events."""
    return Events(events.ts[:n], events.kind[:n], events.values[:n])


def tail(events: Events, n: int) -> Events:
    """Return the events from n on."""
    return Events(events.ts[n:], events.kind[n:], events.values[n:])


def same_bits(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Say whether two tables are equal bit by bit, NaN included."""
    return a.shape == b.shape and bool((a.view(np.int64) == b.view(np.int64)).all())
