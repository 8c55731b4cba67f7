"""Do what the pages' buttons ask, for those whose token allows it: the acts of the command line, each named in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from probatum.core.clock import NS_PER_S, Clock
from probatum.core.errors import BlockedError, ProbatumError, StorageError, UnknownNameError
from probatum.pipeline.control import KIND as DOCUMENT
from probatum.pipeline.operate import ACTS, act, confirm, stop_now
from probatum.pipeline.ports import Ledger, Sources
from probatum.pipeline.promotion import record_verification, waive
from probatum.pipeline.proposals import ask
from probatum.pipeline.registry import resolve
from probatum.pipeline.retrain import choose_proposal, run_retrain
from probatum.pipeline.rollout import Effects, Rollout, carry_out
from probatum.pipeline.verify import verify
from probatum.services.auth import Role, Tokens
from probatum.services.controller.board import Board
from probatum.services.controller.work import LongWork
from probatum.services.engine.decode import Decoder
from probatum.services.http import RequestError, read_body, require_json

BODY_MAX = 8_192
_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Text = Annotated[str, Meta(max_length=500)]
LONG = ("verify", "retrain")
_log = logging.getLogger("probatum.dashboard")


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pause, resume, abort or validate a rollout."""

    rollout: _Name
    reason: _Text = ""


class Confirm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Start or widen a rollout with its phrase."""

    rollout: _Name
    phrase: Annotated[str, Meta(min_length=1, max_length=1_000)]


class Waive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let a blocker of a model (name, alias or digest) stand for some hours."""

    model: _Name
    blocker: _Name
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    hours: Annotated[float, Meta(gt=0, le=24 * 90)] = 24.0


class Verify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recompute every figure in the chain."""


class Propose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for a successor of a model (name, alias or digest)."""

    model: _Name
    reason: Annotated[str, Meta(min_length=1, max_length=120)]


class Retrain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make one attempt on a proposal (hash)."""

    proposal: Annotated[str, Meta(min_length=8, max_length=64)]


class Desk:
    """Take what people ask. Everything that reads or writes runs in a thread; evidence is written after the reply."""

    def __init__(
        self, board: Board, ledger: Ledger, sources: Sources, clock: Clock, effects: Effects, tokens: Tokens
    ) -> None:
        self._board, self._ledger, self._sources, self._clock = board, ledger, sources, clock
        self._effects, self._tokens = effects, tokens

    @property
    def routes(self) -> list[Route]:
        """Return one route for each act."""
        acts: list[tuple[str, Role, type, Callable[[Any, str, str], Done]]] = [
            *((verb, Role.OPERATE, Act, self._act) for verb in ACTS),
            ("confirm", Role.APPROVE, Confirm, self._confirm),
            ("waive", Role.APPROVE, Waive, self._waive),
            ("verify", Role.OPERATE, Verify, self._begin_verify),
            ("propose", Role.OPERATE, Propose, self._propose),
            ("retrain", Role.OPERATE, Retrain, self._begin_retrain),
        ]
        return [Route(f"/actions/{verb}", self._endpoint(verb, *rest), methods=["POST"]) for verb, *rest in acts]

    def stop(self) -> None:
        """Let what runs long give up."""
        for work in (self._board.verifying, self._board.retraining):
            work.stop()

    def _endpoint(self, verb: str, role: Any, schema: Any, do: Any) -> Callable[[Request], Any]:
        decode = Decoder(schema)

        async def endpoint(request: Request) -> Response:
            by = self._tokens.require(request.headers.get("authorization", "").encode("latin-1"), role)
            require_json(request.scope["headers"])
            body = await read_body(request.receive, BODY_MAX)
            if body is None:
                return Response(status_code=400)
            asked = decode(body)
            try:
                said, after = await run_in_threadpool(do, asked, verb, by)
            except StorageError as error:
                raise RequestError(503, error.message) from None
            task = BackgroundTask(after) if after else None
            answer = msgspec.json.encode({"done": verb, "by": by, **said})
            return Response(answer, 202 if verb in LONG else 200, media_type="application/json", background=task)

        return endpoint

    def _open(self, name: str) -> Rollout:
        trail = self._board.chronicle.trails.get(name)
        if trail is None:
            raise UnknownNameError("rollout", name[:200], self._board.chronicle.trails)
        return Rollout(self._ledger, self._sources, name, controls=True, at=trail.record)

    def _act(self, asked: Act, verb: str, by: str) -> Done:
        if verb == "abort":
            document = self._board.chronicle.newest.get((DOCUMENT, asked.rollout))
            if document is not None:
                stop_now(self._ledger, asked.rollout, after=document.seq - 1)
        rollout = self._open(asked.rollout)
        act(rollout, verb, now_ns=self._clock.now_ns(), by=by, reason=asked.reason)
        return self._said(rollout)

    def _confirm(self, asked: Confirm, verb: str, by: str) -> Done:  # noqa: ARG002
        rollout = self._open(asked.rollout)
        confirm(rollout, asked.phrase, by, self._clock.now_ns())
        return self._said(rollout)

    def _said(self, rollout: Rollout) -> Done:
        def after() -> None:
            try:
                carry_out(rollout, self._effects)
            except ProbatumError as error:
                _log.error("%s: %s", rollout.name, error.message)

        state = rollout.state
        return {"rollout": rollout.name, "stage": state.stage.value, "share_percent": state.share_percent}, after

    def _waive(self, asked: Waive, verb: str, by: str) -> Done:  # noqa: ARG002
        now_ns = self._clock.now_ns()
        expires_ns = now_ns + int(asked.hours * 3600) * NS_PER_S
        model = resolve(self._board.chronicle.registry, asked.model)
        record = waive(self._ledger, self._sources, model, asked.blocker, by=by, reason=asked.reason,
                       now_ns=now_ns, expires_ns=expires_ns)  # fmt: skip
        return {"model": record.subject, "blocker": asked.blocker, "seq": record.seq}, None

    def _begin_verify(self, asked: Verify, verb: str, by: str) -> Done:  # noqa: ARG002
        return self._long(self._board.verifying, by, lambda: self._run_verify(by))

    def _run_verify(self, by: str) -> None:
        findings = verify(self._ledger, self._sources, self._board.verifying).findings
        record_verification(self._ledger, self._sources, findings, by=by)

    def _propose(self, asked: Propose, verb: str, by: str) -> Done:  # noqa: ARG002
        model = resolve(self._board.chronicle.registry, asked.model)
        reason = f"{by}: {asked.reason}"
        record = ask(self._ledger, self._sources, model=model, reason=reason, now_ns=self._clock.now_ns())
        return {"model": record.subject, "proposal": record.hash, "seq": record.seq}, None

    def _begin_retrain(self, asked: Retrain, verb: str, by: str) -> Done:  # noqa: ARG002
        chosen = choose_proposal(self._board.chronicle.registry, asked.proposal)

        def run() -> None:
            outcome = run_retrain(self._ledger, self._sources, chosen, progress=self._board.retraining)
            if outcome.attempt is None:
                open_ = [c for c in outcome.data.body["figures"]["checks"] if c["enforced"] and c["verdict"] != "PASS"]
                raise BlockedError("the data allow no attempt: " + "; ".join(c["reason"] for c in open_))

        return self._long(self._board.retraining, by, run)

    def _long(self, work: LongWork, by: str, do: Callable[[], None]) -> Done:
        work.begin(by)
        return {}, lambda: work.run(do)


Done = tuple[dict[str, Any], Callable[[], None] | None]
