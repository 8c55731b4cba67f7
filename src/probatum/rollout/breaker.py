"""Stop calling an engine that fails too often, and find out carefully whether it has recovered.

::

    CLOSED ──tripped──▶ OPEN ──cooled──▶ HALF_OPEN ──proved──▶ CLOSED
                         ▲                   │
                         └──────failed───────┘
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite

import msgspec

from probatum.core.clock import NS_PER_S
from probatum.core.errors import ParameterError


class State(StrEnum):
    """Name what the breaker lets through: all calls, none, or a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(StrEnum):
    """Name what moves the breaker."""

    TRIPPED = "tripped"
    COOLED = "cooled"
    PROVED = "proved"
    FAILED = "failed"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.COOLED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.PROVED): State.CLOSED,
    (State.HALF_OPEN, Event.FAILED): State.OPEN,
}


class BreakerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Declare when the breaker trips and how it recovers.

    It trips when more than ``error_rate_max`` of the last ``window_calls`` calls failed and at least ``calls_min`` were
    made. Calls not made yet count as good, so a young window is never judged harder than a full one, and an engine that
    is dead from the start still trips it at call ``calls_min`` (docs/decisions/0070: simulation of the defaults).
    ``open_ns`` must exceed the timeout of a call, so that no answer from before the trip is taken for a probe's.
    """

    error_rate_max: float = 0.02
    window_calls: int = 500
    calls_min: int = 20
    open_ns: int = NS_PER_S
    probes: int = 5

    def __post_init__(self) -> None:
        if not (isfinite(self.error_rate_max) and 0.0 <= self.error_rate_max < 1.0):
            raise ParameterError("error_rate_max", "a number in [0, 1)", self.error_rate_max)
        if not 1 <= self.calls_min <= self.window_calls <= 1_000_000:
            raise ParameterError("calls_min, window_calls", "1 <= calls_min <= window_calls <= 1,000,000",
                                 (self.calls_min, self.window_calls))  # fmt: skip
        if self.open_ns < 1:
            raise ParameterError("open_ns", "at least 1", self.open_ns)
        if self.probes < 1:
            raise ParameterError("probes", "at least 1", self.probes)


class Breaker:
    """Judge calls by their error rate; every time is passed in (int ns of a monotonic clock).

    Ask :meth:`allow` before a call, tell :meth:`record` after it. Both cost a fraction of a microsecond while closed.

    >>> breaker = Breaker(BreakerSettings(calls_min=2, window_calls=50, open_ns=100, probes=1))
    >>> for now in (1, 2):
    ...     breaker.record(ok=False, now_ns=now)
    >>> breaker.state.value, breaker.allow(50), breaker.allow(102)
    ('open', False, True)
    >>> breaker.record(ok=True, now_ns=110)
    >>> breaker.state.value
    'closed'
    """

    def __init__(self, settings: BreakerSettings | None = None) -> None:
        self.settings = settings or BreakerSettings()
        self.trips = 0
        self._next: int = 0
        self._state = State.CLOSED
        self._closed = True  # the same as _state is CLOSED, kept beside it for the hot path
        self._failures_max = int(self.settings.error_rate_max * self.settings.window_calls)
        self._since_ns = 0
        self._probes_sent = self._probes_ok = 0
        self._clear()

    @property
    def state(self) -> State:
        """Return the present state."""
        return self._state

    @property
    def counts(self) -> tuple[int, int]:
        """Return (failures, calls) in the window; a rate is for the reader to derive."""
        return self._failures, self.settings.window_calls if self._wrapped else self._next

    def allow(self, now_ns: int) -> bool:
        """Say whether a call may be made now; in HALF_OPEN a true answer spends one probe."""
        if self._closed:
            return True
        if now_ns - self._since_ns >= self.settings.open_ns:
            # OPEN has cooled; or probes were sent and nobody recorded how they ended: send them anew
            self._enter_half_open(now_ns)
        if self._state is State.OPEN or self._probes_sent >= self.settings.probes:
            return False
        self._probes_sent += 1
        return True

    def record(self, ok: bool, now_ns: int) -> None:
        """Count how a call ended; a call that ends while OPEN was made before the trip and says nothing new."""
        if self._closed:
            place = self._next
            if ok and not self._ring[place] and self._failures <= self._failures_max:
                place += 1
                if place == self._size:
                    place, self._wrapped = 0, True
                self._next = place
                return
            self._record_closed(not ok, now_ns)
        elif self._state is State.HALF_OPEN:
            self._record_probe(ok, now_ns)

    def _record_closed(self, failed: bool, now_ns: int) -> None:
        self._failures += failed - self._ring[self._next]
        self._ring[self._next] = failed
        self._next += 1
        if self._next == self._size:
            self._next, self._wrapped = 0, True
        if self._failures > self._failures_max and (self._wrapped or self._next >= self.settings.calls_min):
            self.trips += 1
            self._move(Event.TRIPPED, now_ns)

    def _record_probe(self, ok: bool, now_ns: int) -> None:
        if not ok:
            self._move(Event.FAILED, now_ns)
            return
        self._probes_ok += 1
        if self._probes_ok >= self.settings.probes:
            self._clear()
            self._move(Event.PROVED, now_ns)

    def _enter_half_open(self, now_ns: int) -> None:
        self._probes_sent = self._probes_ok = 0
        if self._state is State.OPEN:
            self._move(Event.COOLED, now_ns)
        self._since_ns = now_ns

    def _move(self, event: Event, now_ns: int) -> None:
        self._state = TRANSITIONS[self._state, event]
        self._closed = self._state is State.CLOSED
        self._since_ns = now_ns

    def _clear(self) -> None:
        self._size = self.settings.window_calls
        self._ring = bytearray(self._size)
        self._next = 0
        self._failures = 0
        self._wrapped = False
