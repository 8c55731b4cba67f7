"""Send requests at a fixed rate and time each from the instant it was meant to leave.

Open loop: a slow server does not slow the sender down, so a stall shows in every request that it delayed, not in one
("coordinated omission", Tene 2013).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import httptools

from probatum.core.clock import NS_PER_S

if TYPE_CHECKING:
    from probatum.pipeline.ports import Progress

# Statuses of a request that got no HTTP reply.
TIMED_OUT, CONNECTION_LOST = -1, -2
TIMER_NS = 1_500_000


@dataclass(frozen=True)
class Reply:
    """Hold one reply: intended send time since the start, latency from it, HTTP status (< 0: no reply), body."""

    intended_ns: int
    latency_ns: int
    status: int
    body: bytes


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self.closed = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.closed = False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed = True
        self._finish(CONNECTION_LOST, b"")

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body = bytes(self._body)
        self._body.clear()
        keep_alive = self._parser.should_keep_alive()
        self._finish(self._parser.get_status_code(), body)
        if not keep_alive:
            self.abort()

    def _finish(self, status: int, body: bytes) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result((status, body))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self.closed = True

    async def send(self, request: bytes, timeout_s: float) -> tuple[int, bytes]:
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await asyncio.wait_for(self._waiter, timeout_s)
        except TimeoutError:
            self.abort()  # a late reply must not be taken for the next request's
            return TIMED_OUT, b""


def http_post(host: str, port: int, path: str, body: bytes) -> bytes:
    """Return the bytes of a keep-alive JSON POST."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _connect(host: str, port: int) -> _Connection:
    """Return a connection; one that was refused is returned closed, and tried again when it is needed."""
    connection = _Connection()
    with suppress(OSError):
        await asyncio.get_running_loop().create_connection(lambda: connection, host, port)
    return connection


async def open_loop(
    host: str,
    port: int,
    requests: Sequence[bytes],
    *,
    rate_per_s: float,
    connections: int = 32,
    timeout_s: float = 2.0,
    progress: Progress | None = None,
) -> list[Reply]:
    """Send every request at its own time, ``rate_per_s`` of them a second, and return the replies in order.

    A request that finds all ``connections`` busy waits, and the wait counts in its latency. Connections are made before
    the clock starts, as a trading process would have them; one that is lost is made anew at its next request's expense.
    """
    loop = asyncio.get_running_loop()
    pool: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
    for _ in range(connections):
        pool.put_nowait(await _connect(host, port))
    replies: list[Reply | None] = [None] * len(requests)
    start_ns = time.perf_counter_ns()

    async def one(index: int, intended_ns: int, connection: _Connection) -> None:
        status, body = CONNECTION_LOST, b""
        if connection.closed:
            connection = await _connect(host, port)
        if not connection.closed:
            status, body = await connection.send(requests[index], timeout_s)
        pool.put_nowait(connection)
        replies[index] = Reply(intended_ns, time.perf_counter_ns() - start_ns - intended_ns, status, body)

    tasks: list[asyncio.Task[None]] = []
    for index in range(len(requests)):
        intended_ns = int(index * NS_PER_S / rate_per_s)
        # Timers of the loop are a millisecond coarse, which would be charged to the server: yield through the last one.
        await asyncio.sleep(max(0, start_ns + intended_ns - TIMER_NS - time.perf_counter_ns()) / NS_PER_S)
        while time.perf_counter_ns() - start_ns < intended_ns:
            await asyncio.sleep(0)
        # Taken here rather than in the task: requests leave in their order, and with one connection arrive in it.
        connection = await pool.get()
        tasks.append(loop.create_task(one(index, intended_ns, connection)))
        if progress is not None and index % 50 == 0:
            progress.step("requests", index, len(requests))
    await asyncio.gather(*tasks)
    if progress is not None:
        progress.step("requests", len(requests), len(requests))
    while not pool.empty():
        pool.get_nowait().abort()
    return [reply for reply in replies if reply is not None]
