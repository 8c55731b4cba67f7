"""Serve the dashboard: pages, their JSON twins, a stream that says when they change, and the acts behind their buttons."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from time import monotonic
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from probatum.pipeline.views import VIEWS
from probatum.services.auth import Role, Tokens
from probatum.services.controller.actions import Desk
from probatum.services.controller.board import LOOK_S, Board
from probatum.services.controller.pages import UNREADABLE, render
from probatum.services.http import RequestError

CLIENTS_MAX = 64
BEAT_S = 10.0
STREAM_S = 300.0
"""A stream ends after so long, and the page asks for another: one that nobody reads any more frees its place."""
NAME_MAX = 200
PASS_S = 60.0
_log = logging.getLogger("probatum.dashboard")

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}  # fmt: skip


class Dashboard:
    """Route requests to the board's views. With ``closed`` nothing is shown without a token of role view."""

    def __init__(self, board: Board, desk: Desk, tokens: Tokens, *, closed: bool) -> None:
        self._board, self._desk, self._tokens, self._closed = board, desk, tokens, closed
        self._clients = 0
        self._passes: dict[str, float] = {}
        self._ending = asyncio.Event()
        self._rendered: dict[Any, tuple[Any, bytes]] = {}  # the view is kept too, so that no other has its id

    @property
    def routes(self) -> list[BaseRoute]:
        """Return the routes to wire into the controller's."""
        assets = str(files("probatum.pipeline") / "assets")
        return [
            Route("/", self._page("overview")),
            *(Route(f"/{page}", self._page(page)) for page in VIEWS),
            *(Route(f"/{page}.json", self._twin(page)) for page in VIEWS),
            Route("/events", self._events),
            Route("/session", self._session),
            *self._desk.routes,
            Mount("/assets", StaticFiles(directory=assets)),
            Mount("/static", StaticFiles(packages=[(__package__, "static")])),
        ]

    def close(self) -> None:
        """End what would go on for ever: the server drains."""
        self._ending.set()
        self._desk.stop()

    def guard(self, request: Request) -> None:
        """Raise RequestError where the caller may not see what is served."""
        if self._closed and monotonic() > self._passes.pop(request.query_params.get("pass", ""), 0.0):
            self._tokens.require(_authorization(request), Role.VIEW)

    def admit(self, url: str) -> str:
        """Return the address at which a page may be looked at once, by a browser of ours that takes its picture."""
        if not self._closed:
            return url
        key, now = secrets.token_urlsafe(32), monotonic()
        self._passes = {**{old: until for old, until in self._passes.items() if until > now}, key: now + PASS_S}
        return f"{url}&pass={key}"

    def _page(self, page: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                self.guard(request)
                await self._board.fresh()
                body = await _made(self._render, page, _name(request))
                return _html(body, 503 if self._board.status.problem else 200)
            except RequestError as error:
                return _html(render(page, None, {"refused": error}), error.status)

        return endpoint

    def _render(self, page: str, name: str) -> bytes:
        view, status = self._board.view(page, name), self._board.status
        stale = int(status.age_s or 0) if status.problem else 0
        key = (page, id(view), status.problem, status.reading, stale)
        if key not in self._rendered:
            self._rendered = dict(list(self._rendered.items())[-16:])
            self._rendered[key] = (view, render(page, view, msgspec.to_builtins(status)))
        return self._rendered[key][1]

    def _twin(self, page: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            self.guard(request)
            await self._board.fresh()
            status, name = self._board.status, _name(request)
            view = await _made(self._board.view, page, name)
            body = msgspec.json.encode({"ledger": status, **view})
            return Response(body, 503 if status.problem else 200, _HEADERS, "application/json")

        return endpoint

    async def _session(self, request: Request) -> Response:
        """Say whose token this is."""
        held = self._tokens.held(_authorization(request))
        if held is None:
            raise RequestError(401, "this token is not known", field="authorization")
        body = msgspec.json.encode({"role": held[0].name.lower(), "name": held[1]})
        return Response(body, 200, _HEADERS, "application/json")

    async def _events(self, request: Request) -> Response:
        self.guard(request)
        if self._clients >= CLIENTS_MAX:
            raise RequestError(503, f"{CLIENTS_MAX} pages follow already")
        self._clients += 1
        return _Stream(self._marks(), self._left)

    def _left(self) -> None:
        self._clients -= 1

    async def _marks(self) -> AsyncIterator[bytes]:
        """Yield what changed, when it changed, and a beat when nothing did."""
        until, beat, seen = monotonic() + STREAM_S, 0.0, None
        while monotonic() < until and not self._ending.is_set():
            await self._board.fresh()
            if (mark := self._board.mark) != seen:
                seen, beat = mark, monotonic()
                yield b"data: " + msgspec.json.encode(mark) + b"\n\n"
            elif monotonic() - beat > BEAT_S:
                beat = monotonic()
                yield b": still here\n\n"
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), LOOK_S)


class _Stream(StreamingResponse):
    """Stream events, and tell when the client is gone, however it went."""

    def __init__(self, content: AsyncIterator[bytes], left: Callable[[], None]) -> None:
        super().__init__(content, 200, _HEADERS, "text/event-stream")
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()


async def _made(make: Callable[[str, str], Any], page: str, name: str) -> Any:
    """Return what a thread makes of the records; RequestError where one has a shape that this version does not know."""
    try:
        return await run_in_threadpool(make, page, name)
    except UNREADABLE as error:
        _log.exception("page %s", page)
        raise RequestError(500, f"{page} cannot be made from these records ({type(error).__name__})") from None


def _html(body: bytes, status: int) -> Response:
    return Response(body, status, _HEADERS, "text/html")


def _authorization(request: Request) -> bytes:
    return request.headers.get("authorization", "").encode("latin-1")


def _name(request: Request) -> str:
    name = request.query_params.get("name", "")
    if len(name) > NAME_MAX:
        raise RequestError(422, "name is too long", field="name", allowed=f"at most {NAME_MAX} characters")
    return name
