"""The load generator tells the truth about servers that are slow, rude or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from probatum.adapters.load import CONNECTION_LOST, TIMED_OUT, Reply, http_post, open_loop

Handler = Callable[[int, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


async def _serve_and_send(handler: Handler, count: int, *, rate: float = 500.0, timeout_s: float = 0.5) -> list[Reply]:
    """Start a server whose ``handler`` answers the n-th request, and send ``count`` of them."""
    seen = 0

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2)
                seen += 1
                await handler(seen - 1, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    requests = [http_post("127.0.0.1", port, "/x", b"{}")] * count
    async with server:
        return await open_loop("127.0.0.1", port, requests, rate_per_s=rate, connections=4, timeout_s=timeout_s)


def test_every_request_is_answered_once_and_in_order() -> None:
    """Replies come back in the order of the requests, with their bodies."""

    async def echo(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + f"{number % 100:02d}".encode())

    replies = asyncio.run(_serve_and_send(echo, 200))
    assert [reply.status for reply in replies] == [200] * 200
    assert sorted(reply.body for reply in replies) == sorted(f"{n % 100:02d}".encode() for n in range(200))
    assert [reply.intended_ns for reply in replies] == sorted(reply.intended_ns for reply in replies)


def test_a_stall_is_charged_to_every_request_it_delayed() -> None:
    """While the server sleeps, the requests that were due wait, and their latency says so (coordinated omission)."""

    async def stall_once(number: int, writer: asyncio.StreamWriter) -> None:
        if number < 4:  # all connections
            await asyncio.sleep(0.3)
        writer.write(OK + b"ok")

    replies = asyncio.run(_serve_and_send(stall_once, 100, rate=500.0, timeout_s=5.0))
    assert all(reply.status == 200 for reply in replies)
    assert sum(reply.latency_ns > 50_000_000 for reply in replies) > 50


def test_silence_is_a_timeout_and_a_late_reply_is_not_taken_for_the_next() -> None:
    """A request without a reply is counted as timed out; its connection is not used again."""

    async def mute_first(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 0:
            await asyncio.sleep(0.3)
            writer.write(OK + b"no")
            return
        writer.write(OK + b"ok")

    replies = asyncio.run(_serve_and_send(mute_first, 50, rate=100.0, timeout_s=0.1))
    assert replies[0].status == TIMED_OUT
    assert {(reply.status, reply.body) for reply in replies[1:]} == {(200, b"ok")}


def test_a_closed_connection_and_garbage_are_counted() -> None:
    """A server that hangs up or does not speak HTTP costs its own requests only."""

    async def rude(number: int, writer: asyncio.StreamWriter) -> None:
        if number % 10 == 0:
            writer.close()
        elif number % 10 == 1:
            writer.write(b"not http at all\r\n\r\n")
        else:
            writer.write(OK + b"ok")

    replies = asyncio.run(_serve_and_send(rude, 100))
    assert sum(reply.status == 200 for reply in replies) == 80
    assert sum(reply.status == CONNECTION_LOST for reply in replies) == 20


def test_nobody_listening() -> None:
    """A refused connection is a counted outcome of each request, not an exception."""
    requests = [http_post("127.0.0.1", 1, "/x", b"{}")] * 3
    replies = asyncio.run(open_loop("127.0.0.1", 1, requests, rate_per_s=100.0))
    assert [reply.status for reply in replies] == [CONNECTION_LOST] * 3


def test_one_connection_keeps_the_order_even_under_load() -> None:
    """With one connection, requests arrive in the order in which they were due, however late the server is."""
    arrived: list[bytes] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                arrived.append(await reader.readexactly(4))
                await asyncio.sleep(0.002 if len(arrived) % 3 else 0)
                writer.write(OK + b"ok")
        except asyncio.IncompleteReadError:
            writer.close()

    async def run() -> list[Reply]:
        server = await asyncio.start_server(client, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        requests = [http_post("127.0.0.1", port, "/x", f"{n:04d}".encode()) for n in range(300)]
        async with server:
            return await open_loop("127.0.0.1", port, requests, rate_per_s=5_000, connections=1, timeout_s=5.0)

    replies = asyncio.run(run())
    assert [reply.status for reply in replies] == [200] * 300
    assert arrived == [f"{n:04d}".encode() for n in range(300)]
