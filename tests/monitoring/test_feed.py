"""The monitor finds what is wrong with a feed, says how much, and abstains until it is right again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_MS, NS_PER_S
from probatum.core.errors import ParameterError
from probatum.market.events import QUOTE, TRADE
from probatum.market.ticks import Notice, Tick
from probatum.monitoring.feed import FINDINGS, FeedMonitor, FeedSettings

T0 = 1_700_000_000 * NS_PER_S


def trade(
    number: int, ts: int | None = None, *, size: float = 1.0, price: float = 100.0, event: int | None = None
) -> Tick:
    ts = T0 + number * 100 * NS_PER_MS if ts is None else ts
    return Tick(TRADE, "X", ts, ts if event is None else event, number, price, size, 1.0)


def quote(number: int, ts: int | None = None, symbol: str = "X") -> Tick:
    ts = T0 + number * 100 * NS_PER_MS if ts is None else ts
    return Tick(QUOTE, symbol, ts, None, number, 100.0, 100.1, 1.0, 1.0)


def watch(ticks: Iterable[Tick], **changes: int) -> FeedMonitor:
    monitor = FeedMonitor(["X"], FeedSettings(**changes))
    for tick in ticks:
        monitor.take(tick)
    return monitor


def names(monitor: FeedMonitor) -> list[tuple[str, int]]:
    return [(item.name, item.amount) for item in monitor.drain()]


def test_a_good_feed_has_no_findings() -> None:
    """Minutes of ticks in order, checked at every one: nothing is found, every tick may be used."""
    monitor = FeedMonitor(["X"])
    for i in range(5_000):
        assert monitor.take(trade(i) if i % 3 else quote(i)) is True
        monitor.look(T0 + i * 100 * NS_PER_MS)
    missing = monitor.states["X"].missing  # every third number went to a quote
    assert missing == len([i for i in range(5_000) if i % 3 == 0 and 1 < i < 4_999])
    assert {item.name for item in monitor.drain()} == {"missing"}
    assert monitor.abstains("X") is None


def test_before_the_first_tick_one_abstains() -> None:
    """No data is silence, not consent."""
    assert FeedMonitor(["X"]).abstains("X") == "silent"


def test_silence_is_found_once_and_ends_with_the_next_tick() -> None:
    """After 30 s without a tick the symbol is abstained from; the next tick ends it, and marks the hole."""
    monitor = watch([trade(1)])
    monitor.look(trade(1).ts_recv + 30 * NS_PER_S)
    assert monitor.abstains("X") is None
    for extra in (1, 2, 3):
        monitor.look(trade(1).ts_recv + 30 * NS_PER_S + extra)
    assert names(monitor) == [("silent", 1)]
    assert monitor.abstains("X") == "silent"
    back = trade(2, T0 + 60 * NS_PER_S)
    monitor.take(back)
    assert monitor.abstains("X") is None
    assert monitor.states["X"].broken_ns == back.ts_recv


def test_a_gap_of_an_hour_is_told_with_its_length() -> None:
    """An hour without data is a gap even where nobody looked meanwhile, and the features' history is broken by it."""
    monitor = watch([trade(1), trade(2, T0 + NS_PER_HOUR)])
    found = monitor.drain()
    assert [(item.name, item.symbol) for item in found] == [("gap", "X")]
    assert "3600 s" in found[0].detail
    assert monitor.states["X"].broken_ns == T0 + NS_PER_HOUR


@pytest.mark.parametrize("offset_ns", [-3 * NS_PER_S, 3 * NS_PER_S, NS_PER_DAY])
def test_clock_skew_is_found_and_lifted(offset_ns: int) -> None:
    """Clocks more than 2 s apart, either way, or events of yesterday: abstain until they agree again."""
    skewed = [trade(i, event=trade(i).ts_recv - offset_ns) for i in range(1, 21)]
    monitor = watch(skewed)
    assert names(monitor) == [("clock_skew", 1)]
    assert monitor.abstains("X") == "clock_skew"
    for i in range(21, 41):
        monitor.take(trade(i))
    assert monitor.abstains("X") is None
    assert monitor.drain() == []


def test_one_slow_way_is_no_skew() -> None:
    """The shortest of twenty delays counts: some late packets do not make the clocks differ."""
    monitor = watch(trade(i, event=trade(i).ts_recv - (5 * NS_PER_S if i % 20 else 0)) for i in range(1, 200))
    assert monitor.drain() == []


@pytest.mark.parametrize("make", [trade, quote])
def test_a_feed_that_repeats_yesterday_is_abstained_from(make: Any) -> None:
    """Numbers that were there before, hundreds in a row: told once, nothing is used of them but what is new."""
    monitor = watch(make(i) for i in range(2_000))
    again = [monitor.take(make(i, T0 + 300 * NS_PER_S + i)) for i in range(600)]
    assert monitor.abstains("X") == "repeats"
    assert names(monitor) == [("repeats", 500)]
    assert make is quote or not any(again)
    monitor.take(make(2_000, T0 + 301 * NS_PER_S))
    assert monitor.abstains("X") is None


def test_a_changed_volume_unit_is_found_and_stays() -> None:
    """Sizes a thousand times what they were: abstain for good, since nobody knows which unit is right."""
    monitor = watch([*(trade(i) for i in range(600)), *(trade(i, size=1_000.0) for i in range(600, 1_200))])
    found = monitor.drain()
    assert [item.name for item in found] == ["unit_change"]
    assert "trade sizes are 1e+03 times" in found[0].detail
    for i in range(1_200, 2_400):
        monitor.take(trade(i))
    assert monitor.abstains("X") == "unit_change"


def test_a_changed_price_unit_is_found() -> None:
    """A price a hundredth of what it was within minutes is another unit, not a market."""
    monitor = watch([*(trade(i) for i in range(600)), *(trade(i, price=1.0) for i in range(600, 1_200))])
    assert [item.name for item in monitor.drain()] == ["unit_change"]


def test_a_market_that_moves_changes_no_unit() -> None:
    """Sizes that grow tenfold over hours, and prices that double, are a market."""
    monitor = watch(trade(i, size=1.0 + i / 1_000, price=100.0 + i / 100) for i in range(10_000))
    assert monitor.drain() == []


def test_a_renamed_symbol_is_told_and_the_old_one_falls_silent() -> None:
    """Ticks of a name that was not asked for are refused, told once, and counted; the asked one is abstained from."""
    monitor = watch([quote(1)])
    taken = [monitor.take(quote(i, symbol="Y")) for i in range(2, 1_000)]
    assert not any(taken)
    found = monitor.drain()
    assert [(item.name, item.detail) for item in found] == [("renamed", "Y comes, asked for were X")]
    assert monitor.strange == 998
    monitor.look(T0 + 100 * NS_PER_S)
    assert monitor.abstains("X") == "silent"


def test_strangers_without_end_take_no_room() -> None:
    """A million names from outside are not a million findings."""
    monitor = watch(quote(1, symbol=f"S{i}") for i in range(3_000))
    assert len(monitor.drain()) == 1_024
    assert monitor.strange == 3_000


def test_a_lost_connection_is_a_hole_for_every_symbol() -> None:
    """What was sent meanwhile is unknown: the history is broken then; garbage is counted with its first words."""
    monitor = FeedMonitor(["X", "Y"])
    monitor.notice(Notice("connected", 1))
    monitor.notice(Notice("garbage", 2, "no JSON"))
    assert [state.broken_ns for state in monitor.states.values()] == [1, 1]
    monitor.notice(Notice("lost", 3, "reset"))
    assert [state.broken_ns for state in monitor.states.values()] == [3, 3]
    assert (monitor.connections, monitor.garbage, monitor.lost) == (1, 1, 1)
    assert [(item.name, item.detail) for item in monitor.drain()] == [("garbage", "no JSON"), ("lost", "reset")]


def test_much_garbage_is_counted_and_told_seldom() -> None:
    """A thousand messages that are none: ten findings, whose amounts are the first 512."""
    monitor = FeedMonitor(["X"])
    for i in range(1_000):
        monitor.notice(Notice("garbage", i, "no JSON"))
    found = monitor.drain()
    assert (len(found), sum(item.amount for item in found), monitor.garbage) == (10, 512, 1_000)


def test_missing_trades_are_told_when_they_had_time_to_come() -> None:
    """A hole that is filled within 2 s was a reordering; what is left after is missing, told once, and breaks history."""
    monitor = watch([trade(1, T0), trade(10, T0 + 1), trade(5, T0 + 2)])
    monitor.look(T0 + NS_PER_S)
    assert monitor.drain() == []
    assert monitor.states["X"].broken_ns == 0
    for extra in (0, 1):
        monitor.look(T0 + 3 * NS_PER_S + extra)
    assert names(monitor) == [("missing", 7)]
    assert monitor.states["X"].broken_ns == T0 + 3 * NS_PER_S
    monitor.take(trade(7, T0 + 4 * NS_PER_S))
    assert monitor.states["X"].missing == 6


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=80), st.integers(1, 8))
def test_missing_is_what_is_missing(numbers: list[int], every: int) -> None:
    """Whatever the order and the repeats: numbers between the first and the highest that did not come, exactly; each is new,
    late or again as a set would say."""
    monitor = FeedMonitor(["X"])
    seen: set[int] = set()
    first = numbers[0] if numbers else 0
    for i, number in enumerate(numbers):
        new = number not in seen and number >= first
        assert monitor.take(trade(number, T0 + i * NS_PER_S)) is new
        seen.add(number)
        if i % every == 0:
            monitor.look(T0 + i * NS_PER_S)
    expected = set(range(first, max(seen, default=0) + 1)) - seen if numbers else set()
    assert monitor.states["X"].missing == len(expected)
    monitor.look(T0 + 1_000 * NS_PER_S)
    assert {item.name for item in monitor.drain()} <= {"missing", "silent"}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.builds(
    Tick, st.sampled_from([QUOTE, TRADE]), st.sampled_from(["X", "Y", "Z" * 40]), st.integers(0, 2**62),
    st.none() | st.integers(0, 2**62), st.none() | st.integers(0, 2**62), st.floats(), st.floats(), st.floats(), st.floats(),
), max_size=100))  # fmt: skip
def test_no_tick_breaks_the_monitor(ticks: list[Tick]) -> None:
    """Any values, times and numbers: an answer for each tick, known findings, counts that add up."""
    monitor = FeedMonitor(["X", "Y"])
    for tick in ticks:
        assert monitor.take(tick) in (True, False)
        monitor.look(tick.ts_recv)
    assert {item.name for item in monitor.drain()} <= set(FINDINGS)
    assert sum(state.ticks for state in monitor.states.values()) + monitor.strange == len(ticks)


def test_settings_are_valid_from_birth() -> None:
    """A bound that cannot be is refused by name; NaN too."""
    for name, value in (("silent_ns", 0), ("size_factor", float("nan"))):
        with pytest.raises(ParameterError, match=name):
            FeedSettings(**{name: value})
