"""Call an engine over kept-alive HTTP/1.1 connections: a small asyncio protocol, for a client library costs 5 to 50 × as much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from probatum.core.errors import ParameterError

Cause = Literal["", "timeout", "refused", "closed", "protocol"]
BODY_BYTES_MAX = 8 << 20


class Reply(msgspec.Struct, frozen=True, gc=False):
    """Hold how a call ended: status and body, or status 0 and the cause."""

    status: int
    body: bytes = b""
    cause: Cause = ""


class EngineClient:
    """Keep up to ``connections_max`` connections to one engine, each with one call in flight. For one event loop.

    A call never raises and is always answered once, by a reply or by its cause. One that was sent on a kept-alive
    connection which the engine was just closing is sent once more, for predicting twice is predicting once.
    Raises ParameterError for anything but a plain http URL.
    """

    def __init__(self, url: str, path: str = "/ml/predict", connections_max: int = 4) -> None:
        self._host, self._port, base = _parse(url)
        self._head = (
            f"POST {base}{path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode("ascii")
        self._connections_max = connections_max
        self._idle: list[_Connection] = []
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_free(self) -> bool:
        """Say whether a call made now would be sent at once."""
        return bool(self._idle) or self._open < self._connections_max

    def call(self, body: bytes, timeout_s: float, done: Callable[[Reply], None]) -> None:
        """Send a request and call ``done`` when it ends; without a free connection it ends at once, as ``refused``."""
        call = _Call(self._head + b"%d\r\n\r\n" % len(body) + body, done)
        call.timer = asyncio.get_running_loop().call_later(timeout_s, call.expire)
        self._send(call)

    async def ask(self, body: bytes, timeout_s: float) -> Reply:
        """Send a request and wait for how it ends."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.call(body, timeout_s, lambda reply: None if future.done() else future.set_result(reply))
        return await future

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.abandon()
        self._idle.clear()

    def _send(self, call: _Call) -> None:
        if self._idle:
            call.on_connection(self._idle.pop(), is_reused=True)
        elif self._open < self._connections_max:
            self._open += 1
            call.connecting = task = asyncio.get_running_loop().create_task(self._connect(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            call.end(Reply(0, cause="refused"))

    async def _connect(self, call: _Call) -> None:
        connection = _Connection(self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, self._host, self._port)
        except (OSError, UnicodeError, asyncio.CancelledError):
            if connection.is_alive:  # it came about as its call ran out of time
                connection.abandon()
            else:
                self._open -= 1
            call.end(Reply(0, cause="refused"))
            return
        if call.is_over:
            self.release(connection)
        else:
            call.on_connection(connection, is_reused=False)

    def release(self, connection: _Connection) -> None:
        """Take back a connection whose call has ended well."""
        if connection.is_alive:
            self._idle.append(connection)

    def lost(self, connection: _Connection, call: _Call | None) -> None:
        """Forget a closed connection; end its call, or send it again where it was never received."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if call is None or call.is_over:
            return
        if call.may_retry and not connection.has_answered:
            call.may_retry = False
            self._send(call)
        else:
            call.end(Reply(0, cause="closed"))


class _Call:
    __slots__ = ("_connection", "_done", "_request", "connecting", "may_retry", "timer")

    def __init__(self, request: bytes, done: Callable[[Reply], None]) -> None:
        self._request = request
        self._done: Callable[[Reply], None] | None = done
        self._connection: _Connection | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.may_retry = False

    @property
    def is_over(self) -> bool:
        return self._done is None

    def on_connection(self, connection: _Connection, is_reused: bool) -> None:
        self._connection, self.may_retry = connection, is_reused
        connection.start(self, self._request)

    def expire(self) -> None:
        connection = self._connection
        self.end(Reply(0, cause="timeout"))
        if connection:
            connection.abandon()  # its answer may still come, and must not be taken for another call's
        elif self.connecting:
            self.connecting.cancel()  # a host that drops what we send would hold the place for minutes

    def end(self, reply: Reply) -> None:
        if (done := self._done) is None:
            return
        self._done = None
        if self.timer:
            self.timer.cancel()
        done(reply)


class _Connection(asyncio.Protocol):
    """Parse the answers of one connection; one call at a time."""

    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._call: _Call | None = None
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)
        self.is_alive = False
        self.has_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_alive = True

    def start(self, call: _Call, request: bytes) -> None:
        if self._transport is None or not self.is_alive:
            call.end(Reply(0, cause="closed"))
            return
        self._call, self.has_answered, self._body = call, False, b""
        self._transport.write(request)  # where it is closing, connection_lost follows and ends the call

    def abandon(self) -> None:
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._call is None:
            self.abandon()  # nobody asked
            return
        self.has_answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > BODY_BYTES_MAX:
            self._fail()

    def on_message_complete(self) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        status = self._parser.get_status_code()
        if self._parser.should_keep_alive():
            self._client.release(self)
        else:
            self.abandon()
        call.end(Reply(status, self._body))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        call, self._call = self._call, None
        self.is_alive = False
        self._client.lost(self, call)

    def _fail(self) -> None:
        if self._call:
            self._call.end(Reply(0, cause="protocol"))
        self.abandon()


def _parse(url: str) -> tuple[str, int, str]:
    allowed = "a plain URL like http://127.0.0.1:4010"
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        raise ParameterError("engine", allowed, url) from None
    if (
        parts.scheme != "http"
        or not parts.hostname
        or parts.query
        or parts.username
        or not url.isascii()
        or not url.isprintable()
        or " " in url
        or parts.fragment
    ):
        raise ParameterError("engine", allowed, url)
    return parts.hostname, port, parts.path.rstrip("/")
