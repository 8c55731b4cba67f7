"""What drives running services asks no more of them than they take."""

from __future__ import annotations

from probatum.adapters.smoke import WARM_UP_EVENTS
from probatum.services.executor.schema import EVENTS_MAX


def test_a_warm_up_request_holds_no_more_events_than_an_executor_takes() -> None:
    """Adapters cannot import services, so the two numbers are declared apart; apart they once broke every run."""
    assert WARM_UP_EVENTS <= EVENTS_MAX
