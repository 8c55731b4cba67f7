"""Name the instants at which a job is due: slots, in UTC, which has no summer time and so neither skips nor repeats one."""

from __future__ import annotations

from collections.abc import Container, Iterator

import msgspec

from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE

_SUNDAY = 3 * NS_PER_DAY  # the epoch was a Thursday


class Schedule(msgspec.Struct, frozen=True):
    """Hold slots ``offset_ns`` + k · ``period_ns``, and how systemd (``calendar``) and cron write the same."""

    name: str
    period_ns: int
    offset_ns: int
    calendar: str
    cron: str

    def newest(self, now_ns: int) -> int:
        """Return the newest slot at or before ``now_ns``."""
        return now_ns - (now_ns - self.offset_ns) % self.period_ns

    def slots(self, after_ns: int, until_ns: int) -> Iterator[int]:
        """Yield the slots in (after, until], oldest first.

        >>> from probatum.core.clock import format_utc, parse_utc
        >>> day = parse_utc("2024-01-07T00:00:00Z")
        >>> [format_utc(slot) for slot in WEEKLY.slots(day, day + NS_PER_DAY)]
        ['2024-01-07T23:59:00Z']
        """
        return iter(range(self.newest(after_ns) + self.period_ns, until_ns + 1, self.period_ns))

    def due(self, since_ns: int, done: Container[int], now_ns: int) -> Iterator[int]:
        """Yield every slot in (since, now] that is not done: after downtime all that were missed, oldest first."""
        return (slot for slot in self.slots(since_ns, now_ns) if slot not in done)


HOURLY = Schedule("hourly", NS_PER_HOUR, 0, "*-*-* *:00:00 UTC", "0 * * * *")
DAILY = Schedule("daily", NS_PER_DAY, 0, "*-*-* 00:00:00 UTC", "0 0 * * *")
WEEKLY = Schedule(
    "weekly", 7 * NS_PER_DAY, _SUNDAY + NS_PER_DAY - NS_PER_MINUTE, "Sun *-*-* 23:59:00 UTC", "59 23 * * 0"
)
