"""Join outcomes beside the replies: what comes is only put in a queue, and worked off in slices between them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import isnan, nan

import numpy as np

from probatum.core.clock import NS_PER_MINUTE
from probatum.features.labels import Target
from probatum.market.events import BAR, TIMER
from probatum.models.metrics import auc, brier, ece
from probatum.monitoring.outcomes import Apart, Joined, Made, OutcomeJoiner, differs, is_right
from probatum.monitoring.shadow import DecisionRow
from probatum.services.telemetry import metrics
from probatum.services.telemetry.metrics import Metric
from probatum.services.telemetry.registry import Registry

QUEUE_MAX = 1 << 17
"""Rows and decisions that may wait; a day of seconds fits."""
SLICE = 32
"""So many are worked off in one turn of the loop: a fraction of a millisecond."""
PAUSE_S = 1.0
"""Longer than a shadow's answer can take, so that every decision has come by the second turn after its label."""
WINDOW = 1_024
OUTCOMES_MIN = 100
_GAUGES: tuple[tuple[Metric, Callable[..., float]], ...] = (
    (metrics.LIVE_AUC, auc),
    (metrics.LIVE_BRIER, brier),
    (metrics.LIVE_ECE, ece),
)


class LiveOutcomes:
    """Label the rows of all symbols (bars; timers on a grid; either a minute apart) and judge decisions when they are known.

    For one event loop, which runs :meth:`run`. ``tell`` hears every outcome, in order. Where more comes than can be worked
    off, all that waits is dropped, and counted: a label across lost rows would be wrong.
    """

    def __init__(self, target: Target, grid_ns: int | None, registry: Registry) -> None:
        self.kinds = frozenset({None: (BAR,), NS_PER_MINUTE: (BAR, TIMER)}.get(grid_ns, (TIMER,)))
        self.tell: Callable[[Joined], None] = lambda joined: None  # noqa: ARG005
        self._joiner = OutcomeJoiner(target, grid_ns or NS_PER_MINUTE)
        self._queue: deque[tuple[str, int, float] | Made] = deque()
        self._known: deque[Joined] = deque()
        self._registry, self._shown = registry, dict.fromkeys(self._joiner.counts.__struct_fields__, 0)
        self._lost = registry.counter(metrics.OUTCOME_ROWS_LOST).inc
        self._judge("")
        registry.before_expose(self._expose)

    @property
    def backlog(self) -> int:
        """Return the rows and decisions that were not worked off yet, and the outcomes not told yet."""
        return len(self._queue) + self._joiner.held + len(self._known)

    def row(self, symbol: str, ts: int, mid: float) -> None:
        """Take a row: its time (ns) and the mid then in force."""
        if len(self._queue) >= QUEUE_MAX:
            self._overflow()
        self._queue.append((symbol, ts, mid))

    def decided(self, row: DecisionRow, run: str) -> None:
        """Take a finished decision; one without a model's score has no outcome."""
        score = row.judged[1]
        if score is not None:
            if len(self._queue) >= QUEUE_MAX:
                self._overflow()
            self._queue.append(Made(row.symbol, row.as_of, row.ts, row.seq, row.baseline, score, row.model, run))

    def work(self) -> bool:
        """Work off a slice of what waits; say whether more does."""
        queue = self._queue
        for _ in range(min(SLICE, len(queue))):
            item = queue.popleft()
            if type(item) is Made:
                self._joiner.decided(item)
            else:
                self._joiner.row(*item)  # type: ignore[misc]
        return bool(queue)

    async def run(self) -> None:
        """Join until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            while self.work():
                await asyncio.sleep(0)
            self._known.extend(self._joiner.release())
            while self._known:
                for _ in range(min(SLICE, len(self._known))):
                    self._count(self._known.popleft())
                await asyncio.sleep(0)

    async def room(self) -> None:
        """Wait until the queue is half empty: who sends history faster than it can be labelled waits for its reply."""
        while len(self._queue) > QUEUE_MAX // 2:
            self.work()
            await asyncio.sleep(0)

    def _overflow(self) -> None:
        made = sum(type(item) is Made for item in self._queue)
        self._lost(len(self._queue) - made)
        self._joiner.counts.dropped += made
        self._joiner.forget()
        self._queue.clear()

    def _count(self, joined: Joined) -> None:
        made = joined.made
        if made.model != self._model:
            self._judge(made.model)
        self._window.append((made.score, made.baseline, joined.hit))
        if differs(made.score, made.baseline) and self._apart.takes(joined.as_of, joined.known):
            self._registry.counter(metrics.OUTCOME_PAIRS, made.model).inc()
            self._registry.counter(metrics.OUTCOME_LOSSES, made.model).inc(not is_right(made.score, joined.hit))
        self.tell(joined)

    def _judge(self, model: str) -> None:
        """Begin with another model: what the last one scored says nothing of it."""
        self._model, self._apart = model, Apart()
        self._window: deque[tuple[float, float, bool]] = deque(maxlen=WINDOW)

    def _expose(self) -> None:
        counts = self._joiner.counts
        for state, shown in self._shown.items():
            self._shown[state] = getattr(counts, state)
            self._registry.counter(metrics.OUTCOME_DECISIONS, state).inc(self._shown[state] - shown)
        rows = np.array(self._window, dtype=np.float64).reshape(-1, 3)
        for scorer, column in (("model", 0), ("baseline", 1)):
            for metric, measure in _GAUGES:
                value = measure(rows[:, column], rows[:, 2]) if len(rows) >= OUTCOMES_MIN else nan
                gauge = self._registry.gauge(metric, scorer)
                gauge.clear() if isnan(value) else gauge.set(value)
