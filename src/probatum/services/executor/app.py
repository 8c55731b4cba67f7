"""Serve the executor over raw ASGI: decode, decide, encode."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from probatum.core.errors import ProbatumError
from probatum.monitoring.shadow import MATCH_DELTA, SLOW_BOUNDS_MS, Outcome
from probatum.rollout.breaker import Breaker, State
from probatum.services.engine.decode import Decoder, refuse_duplicates
from probatum.services.executor.decide import Executor
from probatum.services.executor.schema import DecisionRequest, EventsRequest
from probatum.services.http import Receive, Scope, Send, error_body, read_body, refusal, reply, require_json
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import CONTENT_TYPE, Registry

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("probatum.executor")
_decode_decision = Decoder(DecisionRequest).decode
_decode_events = Decoder(EventsRequest).decode


class LogCounts(Protocol):
    """What a decision log says of its rows."""

    offered: int
    written: int
    shed: int
    failed: int
    recovered: int
    torn_bytes: int
    unreadable: int


class CountedLog(Protocol):
    """A decision log that can be asked and closed."""

    @property
    def counts(self) -> LogCounts: ...

    @property
    def waiting(self) -> int: ...

    def close(self) -> None: ...


class Feeding(Protocol):
    """What brings market data of its own (``services.executor.feed.FeedDriver``)."""

    def start(self) -> None: ...

    async def stop(self) -> None: ...


class ExecutorApp:
    """Route requests to an executor, keep its lease renewed, and drain feed, shadow and log when the server stops.

    ``settings`` is what ``/shadow/metrics`` shows as ``config``.
    """

    def __init__(
        self,
        executor: Executor,
        registry: Registry,
        settings: dict[str, Any],
        log: CountedLog | None = None,
        feed: Feeding | None = None,
    ) -> None:
        self._executor, self._registry, self._settings, self._decision_log = executor, registry, settings, log
        self._feed = feed
        self._outcomes = executor.outcomes
        self._joining: asyncio.Task[None] | None = None
        self._rejected = registry.counter(metrics.EXECUTOR_REJECTED).inc
        self._posts: dict[str, Callable[[bytes], Any]] = {
            "/predict-with-shadow": self._decide,
            "/executor/predict-with-shadow": self._decide,
            "/market/events": self._events,
        }
        self._gets: dict[str, Callable[[], tuple[int, bytes, bytes]]] = {
            "/shadow/metrics": lambda: (200, _encode(self.shadow_metrics()), b"application/json"),
            "/metrics": lambda: (200, registry.expose(), CONTENT_TYPE),
            "/health": self._health,
            "/ready": self._health,
        }
        _DerivedCounters(registry, executor, log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = self._posts.get(scope["path"]) if scope["method"] == "POST" else None
        if handle is None:
            await self._cold(scope, send)
            return
        try:
            require_json(scope["headers"])
            body = await read_body(receive)
            if body is None:
                return
            status, answer = 200, await handle(body)
        except ProbatumError as error:
            self._rejected()
            status, answer = refusal(error)
        except Exception:
            _log.exception("internal error")
            status, answer = 500, error_body("internal error")
        await reply(send, status, answer)

    async def _cold(self, scope: Scope, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in self._gets and method in ("GET", "HEAD"):
            status, body, content_type = self._gets[path]()
            await reply(send, status, body, content_type)
        elif path in self._gets or path in self._posts:
            await reply(send, 405, error_body(f"{method} is not allowed here", field="method"))
        else:
            await reply(send, 404, error_body("no such path", field="path", value=path))

    async def _decide(self, body: bytes) -> bytes:
        request = _decode_decision(body)
        if body.count(b":") != _names_expected(request):
            refuse_duplicates(body)
        return _encode(await self._executor.decide(request))

    async def _events(self, body: bytes) -> bytes:
        request = _decode_events(body)
        if body.count(b":") != 2:
            refuse_duplicates(body)
        taken = self._executor.take_events(request.symbol, request.events)
        if self._outcomes:
            await self._outcomes.room()
        return _encode(taken)

    def _health(self) -> tuple[int, bytes, bytes]:
        return 200, _encode({"ok": True, "service": "executor", **self._rollout()}), b"application/json"

    def _rollout(self) -> dict[str, Any]:
        """Return what is applied: by its sequence the controller sees that its document has arrived."""
        document, share = self._executor.lease.read()
        return {"mode": document.mode, "share": share, "sequence": document.sequence}

    def shadow_metrics(self) -> dict[str, Any]:
        """Return the seed's fields, then the counts behind them; ``total_predictions`` = attempts + pending."""
        shadow, counts = self._executor.shadow, self._executor.shadow.counts
        heard = counts.outcomes[Outcome.OK]
        return {
            "match_rate": counts.match_rate,
            "total_predictions": counts.attempts + shadow.pending,
            "matches": counts.matches,
            "mismatches": counts.mismatches,
            "errors": counts.failures,
            "config": {**self._settings, "match_threshold": MATCH_DELTA},
            "decisions": self._executor.decisions,
            "attempts": counts.attempts,
            "pending": shadow.pending,
            "agreement_rate": counts.agreements / heard if heard else None,
            "rank_correlation": counts.rank_correlation(),
            "latency_ms": {
                name: {f"p{round(q * 100)}": sketch.quantile_ms(q) if sketch.count else None for q in (0.5, 0.95, 0.99)}
                for name, sketch in (("baseline", counts.baseline_latency), ("shadow", counts.shadow_latency))
            },
            "slower_than_ms": dict(zip(map(str, SLOW_BOUNDS_MS), counts.slow, strict=True)),
            "breaker": _breaker(shadow.caller.breaker),
            "rollout": self._rollout(),
            "log": None if self._decision_log is None else _log_counts(self._decision_log),
            "counts": counts.to_dict(),
        }

    async def start(self) -> None:
        """Read the rollout document once and begin to renew its lease; join outcomes from now on."""
        self._executor.lease.start()
        if self._feed:
            self._feed.start()
        if self._outcomes:
            self._joining = asyncio.create_task(self._outcomes.run())

    async def stop(self) -> None:
        """Finish every pending comparison, then write the log out."""
        self._executor.lease.stop()
        if self._feed:
            await self._feed.stop()
        await self._executor.shadow.drain()
        if self._joining:
            self._joining.cancel()
        if self._decision_log:
            await asyncio.get_running_loop().run_in_executor(None, self._decision_log.close)


class _DerivedCounters:
    """Bring counts that others keep into the registry when somebody looks."""

    def __init__(self, registry: Registry, executor: Executor, log: CountedLog | None) -> None:
        self._log = log
        self._breakers = {"challenger": executor.shadow.caller.breaker}
        if executor.champion:
            self._breakers["champion"] = executor.champion.breaker
        self._open = {name: registry.gauge(metrics.BREAKER_OPEN, name).set for name in self._breakers}
        self._trips = {name: registry.counter(metrics.BREAKER_TRIPS, name).inc for name in self._breakers}
        self._rows = {name: registry.counter(metrics.DECISION_LOG_ROWS, name).inc for name in _LOG_STATES if log}
        self._seen: dict[str, int] = {}
        self._lease = executor.lease
        self._sequence = registry.gauge(metrics.ROLLOUT_SEQUENCE).set
        self._share = registry.gauge(metrics.ROLLOUT_SHARE).set
        registry.before_expose(self._derive)

    def _derive(self) -> None:
        document, share = self._lease.read()
        self._sequence(document.sequence)
        self._share(share)
        for name, breaker in self._breakers.items():
            self._open[name](float(breaker.state is not State.CLOSED))
            self._trips[name](self._new(name, breaker.trips))
        for name, inc in self._rows.items():
            inc(self._new(f"log.{name}", getattr(self._log and self._log.counts, name)))

    def _new(self, name: str, total: int) -> int:
        before, self._seen[name] = self._seen.get(name, 0), total
        return total - before


_LOG_STATES = ("offered", "written", "shed", "failed", "recovered")


def _log_counts(log: CountedLog) -> dict[str, int]:
    return {name: getattr(log.counts, name) for name in (*_LOG_STATES, "torn_bytes", "unreadable")} | {
        "waiting": log.waiting
    }


def _breaker(breaker: Breaker) -> dict[str, Any]:
    failures, calls = breaker.counts
    return {"state": breaker.state, "failures": failures, "calls": calls, "trips": breaker.trips}


def _names_expected(request: DecisionRequest) -> int:
    """Count the colons of a body with these names, each once, and none in a text: equal counts rule duplicates out."""
    count = sum(getattr(request, name) is not None for name in ("features", "snapshot", "events", "decision_id",
                                                                "fingerprint", "as_of"))  # fmt: skip
    count += bool(request.symbol) + bool(request.strategy) + bool(request.session)
    if type(request.features) is dict:
        count += len(request.features)
    return count + (5 if request.snapshot is not None else 0)
