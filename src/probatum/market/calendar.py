"""Say when an instrument trades, so that a gap is judged inside its sessions and a closed market is not a gap."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from probatum.core.clock import NS_PER_S, parse_utc
from probatum.core.errors import ParameterError

_HH_MM = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


class Explained(msgspec.Struct, frozen=True):
    """Explain a gap: a span in which the market was closed or the loss of data is accepted, by whom and why.

    >>> Explained("2024-01-02T00:00:00Z", "2024-01-01T00:00:00Z", "exchange maintenance")
    Traceback (most recent call last):
    ...
    probatum.core.errors.ParameterError: end must be after start (2024-01-02T00:00:00Z), got '2024-01-01T00:00:00Z'
    """

    start: str
    end: str
    reason: str

    def __post_init__(self) -> None:
        if parse_utc(self.end) <= parse_utc(self.start):
            raise ParameterError("end", f"after start ({self.start})", self.end)
        if not 0 < len(self.reason.strip()) <= 200 or not self.reason.isprintable():
            raise ParameterError("reason", "1 to 200 printable characters", self.reason)

    def covers(self, start_ns: int, end_ns: int) -> bool:
        """Say whether the whole of [start_ns, end_ns) is explained."""
        return parse_utc(self.start) <= start_ns and end_ns <= parse_utc(self.end)


class Calendar(msgspec.Struct, frozen=True):
    """Declare daily trading hours ``open``–``close`` (HH:MM, in ``zone``) on ``weekdays`` (0 = Monday).

    Equal open and close mean the whole day, which is then contiguous with the next open day. An overnight session
    (FX: Sunday 17:00 to Friday 17:00 New York) is declared by a close that is not after its open: it ends on the next
    day, and ``weekdays`` are the days it starts on.

    >>> Calendar().sessions("2024-01-01", "2024-01-01")[0][0] == 1_704_067_200_000_000_000
    True
    """

    zone: str = "UTC"
    open: str = "00:00"
    close: str = "00:00"
    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    explained: tuple[Explained, ...] = ()

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (KeyError, ValueError, OSError):
            raise ParameterError("zone", "an IANA time zone such as America/New_York", self.zone) from None
        for name in ("open", "close"):
            if not _HH_MM.fullmatch(getattr(self, name)):
                raise ParameterError(name, "a time of day HH:MM", getattr(self, name))
        if not self.weekdays or not set(self.weekdays) <= set(range(7)):
            raise ParameterError("weekdays", "some of 0 (Monday) to 6 (Sunday)", self.weekdays)

    def sessions(self, first: str, last: str) -> list[tuple[int, int]]:
        """Return merged [start_ns, end_ns) sessions that start on the local dates first..last (``YYYY-MM-DD``)."""
        zone = ZoneInfo(self.zone)
        opens, closes = time.fromisoformat(self.open), time.fromisoformat(self.close)
        spans: list[tuple[int, int]] = []
        day = date.fromisoformat(first)
        while day <= date.fromisoformat(last):
            if day.weekday() in self.weekdays:
                end_day = day if closes > opens else day + timedelta(days=1)
                start = _ns(datetime.combine(day, opens, zone))
                end = _ns(datetime.combine(end_day, closes, zone))
                if spans and spans[-1][1] >= start:
                    spans[-1] = (spans[-1][0], end)
                else:
                    spans.append((start, end))
            day += timedelta(days=1)
        return spans


def _ns(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) * NS_PER_S


CALENDARS: dict[str, Calendar] = {
    "24x7": Calendar(),
    "fx": Calendar(zone="America/New_York", open="17:00", close="17:00", weekdays=(6, 0, 1, 2, 3)),
    "us-equity": Calendar(zone="America/New_York", open="09:30", close="16:00", weekdays=(0, 1, 2, 3, 4)),
}


def parse_calendar(text: str) -> Calendar:
    """Return a calendar by its name, or from a declaration ``ZONE,HH:MM-HH:MM,WEEKDAYS`` (0 = Monday).

    >>> parse_calendar("Europe/London,08:00-16:30,01234").close
    '16:30'
    """
    if text in CALENDARS:
        return CALENDARS[text]
    match = re.fullmatch(r"([^,]+),(\d\d:\d\d)-(\d\d:\d\d),([0-6]+)", text)
    if match is None:
        allowed = f"one of {', '.join(CALENDARS)}, or ZONE,HH:MM-HH:MM,WEEKDAYS such as Europe/London,08:00-16:30,01234"
        raise ParameterError("calendar", allowed, text)
    zone, opens, closes, days = match.groups()
    return Calendar(zone, opens, closes, tuple(int(day) for day in days))
