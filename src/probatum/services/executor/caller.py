"""Ask an engine for scores behind a breaker, and give every row of a call one answer with a named outcome."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, get_args

import msgspec

from probatum.core.clock import NS_PER_S
from probatum.monitoring.shadow import Outcome
from probatum.rollout.breaker import Breaker
from probatum.services.executor.client import Cause, EngineClient, Reply


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Hold what an engine said of one row: a score in [0, 1] where the outcome is ok, else None and the cause."""

    outcome: Outcome
    score: float | None = None
    cause: str = ""


SHED = Answer(Outcome.SHED, cause="shed")
BREAKER_OPEN = Answer(Outcome.BREAKER_OPEN, cause="breaker_open")
TIMEOUT = Answer(Outcome.TIMEOUT, cause="timeout")
KNOWN_CAUSES = (*get_args(Cause)[1:], "http_4xx", "http_5xx", "nan", "shed", "breaker_open")
_NOT_A_SCORE = Answer(Outcome.NAN, cause="nan")


class Caller:
    """Send vectors in the engine's batch form. The breaker counts calls: one failed when any of its rows did."""

    def __init__(
        self, client: EngineClient, fingerprint: str | None, breaker: Breaker, now_ns: Callable[[], int]
    ) -> None:
        self.client, self.breaker, self._now_ns = client, breaker, now_ns
        self._tail = b"}" if fingerprint is None else b',"fingerprint":' + msgspec.json.encode(fingerprint) + b"}"

    def send(
        self, vectors: Sequence[Sequence[float]], timeout_s: float, done: Callable[[Sequence[Answer]], None]
    ) -> None:
        """Send the vectors in one call, unless the breaker is open, and call ``done`` once with one answer for each."""
        if not self.breaker.allow(self._now_ns()):
            done([BREAKER_OPEN] * len(vectors))
            return

        def ended(reply: Reply) -> None:
            answers = parse_answers(reply, len(vectors))
            self.breaker.record(all(answer.outcome is Outcome.OK for answer in answers), self._now_ns())
            done(answers)

        self.client.call(b'{"rows":' + msgspec.json.encode(vectors) + self._tail, timeout_s, ended)

    async def ask(self, vector: Sequence[float], budget_ns: int) -> Answer:
        """Send one vector and wait for its answer, no longer than the budget."""
        if budget_ns <= 0:
            return TIMEOUT
        if not self.client.is_free:
            return SHED
        if not self.breaker.allow(self._now_ns()):
            return BREAKER_OPEN
        reply = await self.client.ask(b'{"rows":' + msgspec.json.encode([vector]) + self._tail, budget_ns / NS_PER_S)
        answer = parse_answers(reply, 1)[0]
        self.breaker.record(answer.outcome is Outcome.OK, self._now_ns())
        return answer


class _Batch(msgspec.Struct):
    scores: list[float | None]


_DECODER = msgspec.json.Decoder(_Batch)


def parse_answers(reply: Reply, rows: int) -> list[Answer]:
    """Read a reply to a batch of ``rows``; whatever the engine sent, there is one answer for each row.

    >>> [answer.outcome.value for answer in parse_answers(Reply(200, b'{"scores":[0.5,NaN]}'), 2)]
    ['ok', 'nan']
    >>> parse_answers(Reply(500), 1)[0].cause
    'http_5xx'
    """
    if reply.cause == "timeout":
        return [TIMEOUT] * rows
    if reply.status != 200:
        cause = reply.cause or f"http_{reply.status // 100}xx"
        return [Answer(Outcome.ERROR, cause=cause)] * rows
    try:
        scores: list[Any] = list(_DECODER.decode(reply.body).scores)
    except msgspec.DecodeError:
        scores = _tolerant_scores(reply.body)
    if len(scores) != rows:
        return [Answer(Outcome.ERROR, cause="protocol")] * rows
    return [
        Answer(Outcome.OK, score) if isinstance(score, float) and 0.0 <= score <= 1.0 else _NOT_A_SCORE
        for score in scores
    ]


def _tolerant_scores(body: bytes) -> list[Any]:
    """Read what strict JSON refuses (NaN, Infinity), so that a model's NaN is counted as one and not as a bad line."""
    try:
        scores = json.loads(body)["scores"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [float(item) if type(item) is int else item for item in scores] if isinstance(scores, list) else []
