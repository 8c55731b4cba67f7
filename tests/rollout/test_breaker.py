"""The breaker against a naive model of itself, and its table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from probatum.core.errors import ParameterError
from probatum.rollout.breaker import TRANSITIONS, Breaker, BreakerSettings, Event, State

SETTINGS = BreakerSettings(error_rate_max=0.2, window_calls=10, calls_min=4, open_ns=100, probes=2)


class BreakerMachine(RuleBasedStateMachine):
    """Keep every outcome in a list and judge by definition; the ring buffer must agree at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(SETTINGS)
        self.now_ns = 0
        self.history: list[bool] = []
        self.state = State.CLOSED
        self.since_ns = 0
        self.sent = self.proved = 0

    @rule(delta_ns=st.integers(0, 70))
    def wait(self, delta_ns: int) -> None:
        self.now_ns += delta_ns

    @rule()
    def ask(self) -> None:
        if self.state is not State.CLOSED and self.now_ns - self.since_ns >= SETTINGS.open_ns:
            self.state, self.since_ns, self.sent, self.proved = State.HALF_OPEN, self.now_ns, 0, 0
        expected = self.state is State.CLOSED or (self.state is State.HALF_OPEN and self.sent < SETTINGS.probes)
        self.sent += self.state is State.HALF_OPEN and expected
        assert self.breaker.allow(self.now_ns) is expected

    @precondition(lambda self: self.state is not State.OPEN)
    @rule(ok=st.booleans())
    def tell(self, ok: bool) -> None:
        self.breaker.record(ok, self.now_ns)
        if self.state is State.HALF_OPEN:
            self.proved += ok
            if not ok:
                self.state, self.since_ns = State.OPEN, self.now_ns
            elif self.proved == SETTINGS.probes:
                self.state, self.history = State.CLOSED, []
            return
        self.history.append(ok)
        failures = self.history[-SETTINGS.window_calls :].count(False)
        too_many = failures > SETTINGS.error_rate_max * SETTINGS.window_calls
        if too_many and len(self.history) >= SETTINGS.calls_min:
            self.state, self.since_ns = State.OPEN, self.now_ns

    @precondition(lambda self: self.state is State.OPEN)
    @rule(ok=st.booleans())
    def tell_late(self, ok: bool) -> None:
        self.breaker.record(ok, self.now_ns)

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state is self.state
        if self.state is State.CLOSED:
            window = self.history[-SETTINGS.window_calls :]
            assert self.breaker.counts == (window.count(False), len(window))


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_every_event_of_the_table_is_reached() -> None:
    """The four transitions are all there is, and each can happen."""
    seen = set()
    breaker = Breaker(SETTINGS)

    def step(event: Event, before: State) -> None:
        assert TRANSITIONS[before, event] is breaker.state
        seen.add((before, event))

    for _ in range(4):
        breaker.record(False, 0)
    step(Event.TRIPPED, State.CLOSED)
    assert breaker.allow(100)
    step(Event.COOLED, State.OPEN)
    breaker.record(False, 100)
    step(Event.FAILED, State.HALF_OPEN)
    assert breaker.allow(200)
    assert breaker.allow(200)
    assert not breaker.allow(200)
    breaker.record(True, 201)
    breaker.record(True, 201)
    step(Event.PROVED, State.HALF_OPEN)
    assert seen == set(TRANSITIONS)
    assert breaker.trips == 1


def test_probes_that_were_never_answered_are_sent_again() -> None:
    """A caller that dies between asking and telling does not leave the breaker half open for ever."""
    breaker = Breaker(SETTINGS)
    for _ in range(4):
        breaker.record(False, 0)
    assert [breaker.allow(now) for now in (99, 100, 101, 102, 199, 200)] == [False, True, True, False, False, True]


@given(window=st.integers(1, 400), rate=st.floats(0, 0.5), outcomes=st.lists(st.booleans(), max_size=300))
def test_trips_only_above_the_rate_of_a_full_window(window: int, rate: float, outcomes: list[bool]) -> None:
    """Whatever comes, a breaker that is closed holds no more failures than its rate allows in its window."""
    breaker = Breaker(BreakerSettings(error_rate_max=rate, window_calls=window, calls_min=1))
    for i, ok in enumerate(outcomes):
        breaker.record(ok, i)
        if breaker.state is State.OPEN:
            assert outcomes[max(0, i + 1 - window) : i + 1].count(False) > rate * window - 1e-9
            return
        assert outcomes[max(0, i + 1 - window) : i + 1].count(False) <= rate * window


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"error_rate_max": 1.0}, "error_rate_max"),
        ({"error_rate_max": float("nan")}, "error_rate_max"),
        ({"calls_min": 0}, "calls_min"),
        ({"calls_min": 501}, "calls_min"),
        ({"open_ns": 0}, "open_ns"),
        ({"probes": 0}, "probes"),
    ],
)
def test_impossible_settings_are_named(change: dict[str, float], name: str) -> None:
    """A setting outside its range is refused by name."""
    with pytest.raises(ParameterError, match=name):
        BreakerSettings(**change)
