"""Shadow a model from inside a trading process of one's own: the strategy decides, a thread of its own does the rest."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import isfinite
from types import TracebackType
from typing import Any

import uvloop

from probatum.core.clock import Clock, SystemClock
from probatum.core.errors import ParameterError
from probatum.monitoring.shadow import DecisionRow, Outcome
from probatum.rollout.breaker import Breaker
from probatum.rollout.choose import Mode, is_in_share
from probatum.rollout.lease import RolloutDocument, RolloutSource, StaticRollout
from probatum.services.executor.caller import Caller
from probatum.services.executor.client import EngineClient
from probatum.services.executor.lease import Lease
from probatum.services.executor.shadow import DecisionLog, NoLog, Shadow, ShadowSettings
from probatum.services.telemetry.registry import Registry


class ShadowRunner:
    """Compare each decision of a strategy with a model served at ``engine``; what the strategy gets is its own score.

    :meth:`decide` calls ``baseline`` on the features, hands a copy to a background thread and returns. It never waits
    for the engine, and nothing the engine does (dead, slow, wrong) can raise in it or change what it returns; only an
    exception of ``baseline`` itself comes through. It may be called from any thread.

    ``features`` is how many values a vector has and ``fingerprint`` the digest of the feature set they come from.
    The runner only observes; a champion that answers needs the executor. Raises ParameterError for a bad URL.
    """

    def __init__(
        self,
        engine: str,
        baseline: Callable[[Sequence[float]], float],
        features: int,
        *,
        fingerprint: str | None = None,
        rollout: RolloutSource | None = None,
        log: DecisionLog | None = None,
        settings: ShadowSettings | None = None,
        clock: Clock | None = None,
        registry: Registry | None = None,
    ) -> None:
        if features < 1:
            raise ParameterError("features", "at least 1", features)
        self.settings = settings or ShadowSettings()
        self.registry = registry or Registry()
        self.rejected = 0
        self._baseline, self._dimension = baseline, features
        self._clock = clock or SystemClock()
        now_ns = time.monotonic_ns
        caller = Caller(EngineClient(engine), fingerprint, Breaker(self.settings.breaker), now_ns)
        self._shadow = Shadow(caller, self.settings, now_ns, NoLog() if log is None else log, self.registry)
        self._lease = Lease(rollout or StaticRollout(RolloutDocument()), now_ns)
        self._lease.renew()
        self._stop = asyncio.Event()
        self._lock = threading.Lock()
        self._inbox: deque[DecisionRow] = deque()
        self._is_awake = False
        self._seq = self._shed = 0
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="shadow-runner", daemon=True)
        self._thread.start()

    def decide(self, features: Sequence[float], **labels: str) -> float:
        """Return the baseline's score of the features; ``labels`` are strategy, symbol, session, decision_id."""
        started_ns = time.monotonic_ns()
        score = self._baseline(features)
        self.observe(features, score, baseline_ns=time.monotonic_ns() - started_ns, **labels)
        return score

    def observe(self, features: Sequence[float], score: float, *, baseline_ns: int = 0, **labels: str) -> None:
        """Compare a decision that was made elsewhere. What cannot be compared is counted as ``rejected``; nothing raises."""
        with self._lock:
            self._seq += 1
            seq = self._seq
        try:
            row = self._row(seq, features, score, baseline_ns, **labels)
        except Exception:
            with self._lock:
                self.rejected += 1
            return
        if len(self._inbox) >= self.settings.queue_rows:
            with self._lock:
                self._shed += 1
            return
        self._inbox.append(row)
        self._wake()

    def metrics(self) -> dict[str, Any]:
        """Return the integer counts: decisions = rejected + pending + the sum of the outcomes."""
        counts = self._shadow.counts.to_dict()
        with self._lock:
            counts["outcomes"][Outcome.SHED.value] += self._shed
            rejected, decisions = self.rejected, self._seq
        pending = len(self._inbox) + self._shadow.pending
        return {"decisions": decisions, "rejected": rejected, "pending": pending, **counts}

    def close(self) -> None:
        """Finish the pending comparisons (at most two timeouts) and stop the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> ShadowRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _row(
        self, seq: int, features: Sequence[float], score: float, baseline_ns: int,
        strategy: str = "", symbol: str = "", session: str = "", decision_id: str = "",
    ) -> DecisionRow:  # fmt: skip
        vector = [float(value) for value in features]
        if len(vector) != self._dimension or not all(map(isfinite, vector)) or not isfinite(score):
            raise ParameterError("features", f"{self._dimension} finite numbers", len(vector))
        return DecisionRow(seq, self._clock.now_ns(), 0, decision_id or str(seq), strategy, symbol, session, vector,
                           float(score), baseline_ns)  # fmt: skip

    def _wake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            try:
                self._loop.call_soon_threadsafe(self._take)
            except RuntimeError:
                self._is_awake = False  # closed: what comes now stays pending, and is shown as such

    def _take(self) -> None:
        self._is_awake = False  # before the inbox is emptied, so that no row can slip in between unseen
        while self._inbox:
            row = self._inbox.popleft()
            document, share = self._lease.read()
            if document.mode is not Mode.OFF and is_in_share(row.decision_id, share, document.plan):
                self._shadow.mirror(row)
            else:
                self._shadow.skip(row)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._lease.start()
        await self._stop.wait()
        self._lease.stop()
        self._take()
        await self._shadow.drain()
