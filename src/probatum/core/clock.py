"""Tell the time in integer nanoseconds UTC, from a clock that is passed in."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Protocol

from probatum.core.errors import ParameterError

NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NS_PER_MINUTE = 60 * NS_PER_S
NS_PER_HOUR = 3_600 * NS_PER_S
NS_PER_DAY = 86_400 * NS_PER_S

_ISO = re.compile(r"(\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})")


class Clock(Protocol):
    """Anything that tells the time; decisions take an ``int`` instead."""

    def now_ns(self) -> int:
        """Return nanoseconds since the epoch, UTC."""
        ...


class SystemClock:
    """Read the machine's clock."""

    def now_ns(self) -> int:
        return time.time_ns()


class VirtualClock:
    """Tell a time that only moves when told to.

    >>> clock = VirtualClock(5)
    >>> clock.advance(3)
    >>> clock.now_ns()
    8
    """

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        return self._now_ns

    def advance(self, delta_ns: int) -> None:
        if delta_ns < 0:
            raise ParameterError("delta_ns", "at least 0", delta_ns)
        self._now_ns += delta_ns

    def set(self, now_ns: int) -> None:
        self.advance(now_ns - self._now_ns)


def format_utc(ns: int) -> str:
    """Write a time as ISO 8601 UTC, with as many decimals as it needs (0, 3, 6 or 9).

    RFC 8785 numbers end at 2**53, nanoseconds since 1970 do not fit: records carry this text instead.

    >>> format_utc(1_704_067_200_000_000_000)
    '2024-01-01T00:00:00Z'
    >>> format_utc(1_704_067_200_000_000_001)
    '2024-01-01T00:00:00.000000001Z'
    """
    seconds, fraction = divmod(ns, NS_PER_S)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if not fraction:
        return text + "Z"
    digits = f"{fraction:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{text}.{digits}Z"


def parse_utc(text: str) -> int:
    """Read an ISO 8601 time with a zone; the inverse of :func:`format_utc`.

    >>> parse_utc("2024-01-01T00:00:00Z")
    1704067200000000000
    >>> parse_utc("2024-01-01T00:00:00")
    Traceback (most recent call last):
    ...
    probatum.core.errors.ParameterError: time must be ISO 8601 with a zone, e.g. 2024-01-01T00:00:00Z, got '2024-01-01T00:00:00'
    """
    match = _ISO.fullmatch(text)
    if match is None:
        raise ParameterError("time", "ISO 8601 with a zone, e.g. 2024-01-01T00:00:00Z", text)
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ParameterError("time", "a date that exists", text) from None
    return int(moment.timestamp()) * NS_PER_S + int((fraction or "").ljust(9, "0"))


def utc_day(ns: int) -> str:
    """Return the UTC date of a time, ``YYYY-MM-DD``."""
    return format_utc(ns)[:10]
