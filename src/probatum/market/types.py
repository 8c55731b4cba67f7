"""Hold one market event each: values that are valid from birth. Times are int nanoseconds UTC, prices are floats > 0."""

from __future__ import annotations

import math

import msgspec

from probatum.core.errors import ParameterError


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ParameterError(name, "a finite number > 0", value)


def _not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise ParameterError(name, "a finite number >= 0", value)


class Quote(msgspec.Struct, frozen=True):
    """Hold the best bid and ask at an instant.

    >>> Quote(0, 0, "BTCUSDT", 100.0, 99.0, 1.0, 1.0)
    Traceback (most recent call last):
    ...
    probatum.core.errors.ParameterError: ask must be at least bid (100.0), got 99.0
    """

    ts_event: int
    ts_recv: int
    symbol: str
    bid: float
    ask: float
    bid_size: float
    ask_size: float

    def __post_init__(self) -> None:
        _positive("bid", self.bid)
        _positive("ask", self.ask)
        _not_negative("bid_size", self.bid_size)
        _not_negative("ask_size", self.ask_size)
        if self.ask < self.bid:
            raise ParameterError("ask", f"at least bid ({self.bid})", self.ask)


class Trade(msgspec.Struct, frozen=True):
    """Hold one trade; ``side`` is +1 when the buyer was the aggressor, −1 the seller, 0 unknown."""

    ts_event: int
    ts_recv: int
    symbol: str
    price: float
    size: float
    side: int = 0

    def __post_init__(self) -> None:
        _positive("price", self.price)
        _not_negative("size", self.size)
        if self.side not in (-1, 0, 1):
            raise ParameterError("side", "-1, 0 or 1", self.side)


class Bar(msgspec.Struct, frozen=True):
    """Hold one bar, stamped at its close; ``volume`` and ``spread`` are None where the source has none."""

    ts_event: int
    ts_recv: int
    symbol: str
    open: float
    high: float
    low: float
    close: float
    volume: float | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        for name in ("open", "high", "low", "close"):
            _positive(name, getattr(self, name))
        if not self.low <= min(self.open, self.close) <= max(self.open, self.close) <= self.high:
            raise ParameterError("low, high", "around open and close", (self.low, self.high))
        if self.volume is not None:
            _not_negative("volume", self.volume)
        if self.spread is not None:
            _not_negative("spread", self.spread)
