"""Slots are the instants that the calendar names, and downtime loses or repeats none of them."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import require_service

from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_S, format_utc, parse_utc
from probatum.core.schedule import DAILY, HOURLY, WEEKLY, Schedule

NS = st.integers(min_value=0, max_value=parse_utc("2100-01-01T00:00:00Z"))
SCHEDULES = st.sampled_from([HOURLY, DAILY, WEEKLY])


@given(NS, st.integers(0, 21 * NS_PER_DAY))
def test_slots_against_the_calendar(start: int, length: int) -> None:
    """Hourly slots are full hours, daily ones midnights, weekly ones Sundays 23:59, and each in the span is named."""
    hours = {h * NS_PER_HOUR for h in range(start // NS_PER_HOUR + 1, (start + length) // NS_PER_HOUR + 1)}
    assert set(HOURLY.slots(start, start + length)) == hours
    assert set(DAILY.slots(start, start + length)) == {slot for slot in hours if slot % NS_PER_DAY == 0}
    weekly = {
        slot - 60 * NS_PER_S
        for slot in (*hours, (start + length) // NS_PER_HOUR * NS_PER_HOUR + NS_PER_HOUR)
        if slot % NS_PER_DAY == 0 and datetime.fromtimestamp(slot // NS_PER_S, UTC).weekday() == 0
    }
    assert set(WEEKLY.slots(start, start + length)) == {s for s in weekly if start < s <= start + length}


@given(SCHEDULES, NS, st.lists(st.integers(1, 10 * NS_PER_DAY), max_size=20))
def test_any_downtimes_give_each_slot_once(schedule: Schedule, start: int, naps: list[int]) -> None:
    """Whenever somebody looks, and however long nobody did: the slots done are those of the span, each once, in order."""
    now, done = start, list[int]()
    for nap in naps:
        now += nap
        done += schedule.due(start, set(done), now)
    assert done == list(schedule.slots(start, now))
    assert list(schedule.due(start, set(done), now)) == []


@given(SCHEDULES, NS)
def test_the_newest_slot_has_been(schedule: Schedule, now: int) -> None:
    """The newest slot lies within one period before now, and is a slot."""
    newest = schedule.newest(now)
    assert now - schedule.period_ns < newest <= now
    assert list(schedule.slots(newest - 1, newest)) == [newest]


@pytest.mark.parametrize("schedule", [HOURLY, DAILY, WEEKLY], ids=lambda s: s.name)
def test_systemd_means_the_same(schedule: Schedule) -> None:
    """systemd computes the same next three instants from the calendar expression."""
    require_service("systemd-analyze", shutil.which("systemd-analyze"))
    base = parse_utc("2026-03-05T12:34:56Z")
    command = [
        "systemd-analyze",
        "calendar",
        "--iterations=3",
        f"--base-time={format_utc(base)[:19].replace('T', ' ')} UTC",
    ]
    done = subprocess.run(
        [*command, schedule.calendar],
        capture_output=True,
        text=True,
        check=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
    )
    elapsed = [
        line.split(":", 1)[1].split() for line in done.stdout.splitlines() if "elapse" in line or "Iter." in line
    ]
    seen = [parse_utc(f"{words[1]}T{words[2]}Z") for words in elapsed]
    assert seen == list(schedule.slots(base, base + 30 * NS_PER_DAY))[:3]
