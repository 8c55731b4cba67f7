"""Say when an instrument trades, so that a gap is judged inside its sessions and a closed market is not a gap."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from probatum.core.clock import NS_PER_S


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
