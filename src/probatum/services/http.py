"""Share what the raw-ASGI fast paths need: bounded bodies, one shape of error, a guard against slow and endless senders."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from probatum.core.errors import InputError, ParameterError, ProbatumError, UnknownNameError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = tuple[int, bytes]

BODY_BYTES_MAX = 1 << 20
HEAD_BYTES_MAX = 1 << 16
SLOW_S = 10.0
JSON = b"application/json"
TEXT_MAX = 200


class RequestError(InputError):
    """A request cannot be answered as it is; becomes a 4xx whose body names the field."""

    def __init__(
        self, status: int, error: str, *, field: str | None = None, allowed: str | None = None, value: object = None
    ) -> None:
        super().__init__(error, field=field, allowed=allowed, value=value)
        self.status = status


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The one shape of every error: what is wrong, in which field, what is allowed, what came."""

    error: str
    field: str | None = None
    allowed: str | None = None
    value: str | None = None


def error_body(error: str, *, field: object = None, allowed: object = None, value: object = None) -> bytes:
    """Write an error; texts from outside are cut, so that a reply cannot be made large."""
    return msgspec.json.encode(
        ErrorBody(_cut(error), *(None if x is None else _cut(x) for x in (field, allowed, value)))
    )


def _cut(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"
    return text.encode("utf-8", "replace").decode()


def refusal(error: ProbatumError) -> Answer:
    """Return the status and body of an error of ours: 422 unless it says otherwise."""
    fields = error.fields
    allowed = ", ".join(error.known) if isinstance(error, UnknownNameError) else fields.get("allowed")
    field = fields.get("name") if isinstance(error, ParameterError) else fields.get("field")
    status = error.status if isinstance(error, RequestError) else 422
    return status, error_body(error.message, field=field, allowed=allowed, value=fields.get("value"))


def require_json(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a declared content type that is not JSON (415). None declared is read as JSON, as plain clients send it."""
    for name, value in headers:
        if name == b"content-type" and value != JSON:
            media = value.partition(b";")[0].strip().lower()
            if media != JSON and not (media.startswith(b"application/") and media.endswith(b"+json")):
                raise RequestError(
                    415,
                    "content-type is not JSON",
                    field="content-type",
                    allowed="application/json",
                    value=value.decode("latin-1"),
                )


async def read_body(receive: Receive, limit: int = BODY_BYTES_MAX) -> bytes | None:
    """Return the whole body, or None when the client left before it was in. Raises RequestError 413 above ``limit``."""
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        _check_size(len(body), limit)
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        _check_size(size, limit)
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    _check_size(size, limit)
    return b"".join(parts)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestError(413, "body is too large", field="body", allowed=f"at most {limit} bytes")


async def reply(send: Send, status: int, body: bytes, content_type: bytes = JSON) -> None:
    """Send a whole response."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, closing connections whose head or body does not arrive, or whose head does not end.

    uvicorn itself waits for ever. A look every ``SLOW_S`` costs nothing per request: what was unfinished at the last
    look and is the same request still unfinished now is closed, so a slow sender is cut after one to two periods.
    """

    _head_bytes = 0
    _seen: object = None
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look = self.loop.call_later(SLOW_S, self._guard)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        HttpToolsProtocol.data_received(self, data)
        cycle = self.cycle
        if cycle is not None and cycle.scope is self.scope:  # not in a head; inlined, for it runs once a request
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self.transport.close()

    def _in_head(self) -> bool:
        return self.cycle is None or self.cycle.scope is not self.scope

    def _unfinished(self) -> object:
        if self._in_head():
            return self.scope or self
        return self.cycle if self.cycle.more_body and not self.cycle.response_complete else None

    def _guard(self) -> None:
        unfinished = self._unfinished()
        if unfinished is not None and unfinished is self._seen:
            self.transport.close()
            return
        self._seen = unfinished
        self._look = self.loop.call_later(SLOW_S, self._guard)
