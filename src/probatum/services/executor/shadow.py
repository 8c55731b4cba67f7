"""Hear the challenger beside the baseline, off the reply path or within its budget, and count what came of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from probatum.core.clock import NS_PER_MS, NS_PER_S
from probatum.core.errors import ParameterError
from probatum.monitoring.shadow import MATCH_DELTA, DecisionRow, Outcome, ShadowCounts
from probatum.rollout.breaker import BreakerSettings
from probatum.services.executor.caller import KNOWN_CAUSES, SHED, TIMEOUT, Answer, Caller
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

AWAIT_BUDGET_MS = 60
MIRROR_TIMEOUT_MS = 250
FULL_ROWS = 64
"""So many rows do not wait for more company: a longer batch would hold up the replies beside it."""


class ShadowSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Declare the times and bounds of shadow calls.

    A row waits ``batch_ms`` for company (less where FULL_ROWS have met), and then at most half as long again for a
    request on whose wake-up its batch can ride.
    """

    await_ms: int = AWAIT_BUDGET_MS
    mirror_ms: int = MIRROR_TIMEOUT_MS
    batch_ms: int = 50
    batch_rows: int = 256
    queue_rows: int = 2048
    breaker: BreakerSettings = BreakerSettings()

    def __post_init__(self) -> None:
        for name in ("await_ms", "mirror_ms", "batch_ms", "batch_rows", "queue_rows"):
            if not 1 <= getattr(self, name) <= 100_000:
                raise ParameterError(name, "between 1 and 100,000", getattr(self, name))
        if self.breaker.open_ns <= max(self.await_ms, self.mirror_ms) * NS_PER_MS:
            raise ParameterError("breaker.open_ns", "longer than the timeouts of a call", self.breaker.open_ns)


class DecisionLog(Protocol):
    """Where finished decisions go; ``append`` must neither block nor raise."""

    def append(self, row: DecisionRow) -> bool:
        """Take a row, or drop it, count it and return False."""
        ...


class NoLog:
    """Keep nothing."""

    def append(self, row: DecisionRow) -> bool:  # noqa: ARG002
        return True


class Shadow:
    """Send rows to the challenger's engine and finish each exactly once: outcome, comparison, telemetry, log.

    For one event loop. ``now_ns`` is a monotonic clock. :meth:`mirror` returns at once; :meth:`hear` waits for its budget.
    """

    def __init__(
        self,
        caller: Caller,
        settings: ShadowSettings,
        now_ns: Callable[[], int],
        log: DecisionLog,
        registry: Registry,
    ) -> None:
        self.counts = ShadowCounts()
        self.caller = caller
        self._settings, self._now_ns, self._log = settings, now_ns, log
        self._in_flight = 0
        self._queue: deque[DecisionRow] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due_ns = self._ride_ns = 0
        self._batch_ns = settings.batch_ms * NS_PER_MS
        self._mirror_ns, self._await_ns = settings.mirror_ms * NS_PER_MS, settings.await_ms * NS_PER_MS
        self._meters = _Meters(registry, self.counts)

    @property
    def pending(self) -> int:
        """Return the rows whose outcome is not known yet."""
        return len(self._queue) + self._in_flight

    def skip(self, row: DecisionRow) -> None:
        """Finish a row that the share or the mode left out."""
        self._finish(row, Answer(Outcome.SKIPPED), None)

    def mirror(self, row: DecisionRow) -> None:
        """Take a row to be compared later; the caller replies meanwhile. A full queue sheds it, and counts."""
        if len(self._queue) >= self._settings.queue_rows:
            self._finish(row, SHED, None)
            return
        now_ns = self._now_ns()
        if self._timer is None:
            self._arm(now_ns)
        row.due_ns = self._due_ns
        self._queue.append(row)
        if now_ns >= self._ride_ns or len(self._queue) == FULL_ROWS:
            # Ride on the wake-up of this request, after its reply: at a steady rate the timer then never wakes the loop.
            self._ride_ns = self._due_ns
            asyncio.get_running_loop().call_soon(self._flush)

    async def hear(self, row: DecisionRow, spent_ns: int = 0) -> None:
        """Ask for one row's score and wait, no longer than what is left of the budget; the row is finished after."""
        row.due_ns = self._now_ns()
        self._in_flight += 1
        answer = await self.caller.ask(row.features, self._await_ns - spent_ns)
        self._in_flight -= 1
        self._finish(row, answer, self._now_ns() - row.due_ns)

    async def drain(self) -> None:
        """Send what waits and wait until every row is finished; what two timeouts do not bring is shed."""
        give_up_ns = self._now_ns() + 2 * self._mirror_ns
        while self.pending and self._now_ns() < give_up_ns:
            await asyncio.sleep(self._batch_ns / NS_PER_S)
        if self._timer:
            self._timer.cancel()
        while self._queue:
            self._finish(self._queue.popleft(), SHED, None)
        self.caller.client.close()

    def _arm(self, now_ns: int) -> None:
        self._ride_ns = now_ns + self._batch_ns
        self._due_ns = self._ride_ns + self._batch_ns // 2
        self._timer = asyncio.get_running_loop().call_later((self._due_ns - now_ns) / NS_PER_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ns, queue = self._now_ns(), self._queue
        for row in reversed(queue):
            if row.due_ns <= now_ns:
                break
            row.due_ns = now_ns  # sent before its time
        while queue and now_ns - queue[0].due_ns > self._mirror_ns:
            row = queue.popleft()
            self._finish(row, TIMEOUT, now_ns - row.due_ns)
        while queue and self.caller.client.is_free:
            self._send([queue.popleft() for _ in range(min(self._settings.batch_rows, len(queue)))], now_ns)
        if queue:
            self._arm(now_ns)

    def _send(self, rows: Sequence[DecisionRow], now_ns: int) -> None:
        def done(answers: Sequence[Answer]) -> None:
            self._in_flight -= len(rows)
            now_ns = self._now_ns()
            for row, answer in zip(rows, answers, strict=True):
                shadow_ns = now_ns - row.due_ns
                self._finish(row, answer if shadow_ns <= self._mirror_ns else _late(answer), shadow_ns)

        self._in_flight += len(rows)
        timeout_s = (rows[-1].due_ns + self._mirror_ns - now_ns) / NS_PER_S
        self.caller.send([row.features for row in rows], timeout_s, done)

    def _finish(self, row: DecisionRow, answer: Answer, shadow_ns: int | None) -> None:
        row.outcome, row.challenger, row.shadow_ns = answer.outcome.value, answer.score, shadow_ns
        if answer.score is not None and shadow_ns is not None:
            self.counts.heard(row.baseline, answer.score, row.baseline_ns, shadow_ns)
            self._meters.heard(row.baseline, answer.score, row.baseline_ns, shadow_ns)
        else:
            self.counts.missed(answer.outcome)
            self._meters.missed(answer)
        self._log.append(row)


def _late(answer: Answer) -> Answer:
    return TIMEOUT if answer.outcome is Outcome.OK else answer


class _Meters:
    """Hold the telemetry children, resolved once."""

    def __init__(self, registry: Registry, counts: ShadowCounts) -> None:
        self._success = registry.counter(metrics.SHADOW_SUCCESS).inc
        self._match = registry.counter(metrics.SHADOW_MATCH).inc
        self._mismatch = registry.counter(metrics.SHADOW_MISMATCH).inc
        self._abs_delta = registry.histogram(metrics.SHADOW_ABS_DELTA).observe
        self._latency = registry.histogram(metrics.SHADOW_LATENCY).observe
        self._latency_delta = registry.histogram(metrics.SHADOW_LATENCY_DELTA).observe
        self._errors = {cause: registry.counter(metrics.SHADOW_ERROR, cause) for cause in KNOWN_CAUSES}
        self._registry, self._counts = registry, counts
        self._rate = registry.gauge(metrics.SHADOW_MATCH_RATE)
        self._outcomes = {item: registry.counter(metrics.SHADOW_OUTCOMES, item.value).inc for item in Outcome}
        registry.before_expose(self._derive)

    def heard(self, baseline: float, score: float, baseline_ns: int, shadow_ns: int) -> None:
        delta = abs(baseline - score)
        self._success()
        self._outcomes[Outcome.OK]()
        (self._match if delta < MATCH_DELTA else self._mismatch)()
        self._abs_delta(delta)
        self._latency(shadow_ns / NS_PER_MS)
        self._latency_delta((shadow_ns - baseline_ns) / NS_PER_MS)

    def missed(self, answer: Answer) -> None:
        self._outcomes[answer.outcome]()
        if answer.outcome is Outcome.SKIPPED:
            return
        if answer.cause not in self._errors:
            self._errors[answer.cause] = self._registry.counter(metrics.SHADOW_ERROR, answer.cause)
        self._errors[answer.cause].inc()

    def _derive(self) -> None:
        if (rate := self._counts.match_rate) is not None:
            self._rate.set(rate)
