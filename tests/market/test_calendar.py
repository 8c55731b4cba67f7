"""Sessions follow the local clock, and explained gaps are valid from birth."""

from __future__ import annotations

import pytest

from probatum.core.clock import NS_PER_HOUR, parse_utc
from probatum.core.errors import ParameterError
from probatum.market.calendar import CALENDARS, Calendar, Explained, parse_calendar


def test_us_sessions_move_with_daylight_saving() -> None:
    """09:30 in New York is 13:30 UTC before 2013-11-03 and 14:30 after."""
    spans = CALENDARS["us-equity"].sessions("2013-11-01", "2013-11-04")
    assert spans == [
        (parse_utc("2013-11-01T13:30:00Z"), parse_utc("2013-11-01T20:00:00Z")),
        (parse_utc("2013-11-04T14:30:00Z"), parse_utc("2013-11-04T21:00:00Z")),
    ]


def test_an_fx_week_is_one_session() -> None:
    """Sunday 17:00 to Friday 17:00 in New York is contiguous, 120 hours."""
    ((start, end),) = CALENDARS["fx"].sessions("2012-02-05", "2012-02-11")
    assert (start, end - start) == (parse_utc("2012-02-05T22:00:00Z"), 120 * NS_PER_HOUR)


def test_a_calendar_can_be_declared() -> None:
    """ZONE,HH:MM-HH:MM,WEEKDAYS gives the same as the values."""
    assert parse_calendar("Asia/Tokyo,09:00-15:00,01234") == Calendar("Asia/Tokyo", "09:00", "15:00", (0, 1, 2, 3, 4))


@pytest.mark.parametrize("text", ["", "mars", "Nowhere/City,09:00-15:00,0", "UTC,9-15,0", "UTC,24:00-25:00,0", "UTC,09:00-15:00,7", "../etc,00:00-00:00,0"])  # fmt: skip
def test_a_wrong_calendar_is_refused(text: str) -> None:
    """A name or declaration that means nothing raises ParameterError."""
    with pytest.raises(ParameterError):
        parse_calendar(text)


@pytest.mark.parametrize(("start", "end", "reason"), [("2024-01-01", "2024-01-02T00:00:00Z", "x"), ("2024-01-02T00:00:00Z", "2024-01-02T00:00:00Z", "x"), ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", " "), ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", "a\nb")])  # fmt: skip
def test_a_gap_needs_two_times_and_a_reason(start: str, end: str, reason: str) -> None:
    """No explanation without zones, an order, and one line of text."""
    with pytest.raises(ParameterError):
        Explained(start, end, reason)
