"""Be an exchange: replay captured messages over a websocket, misbehave as told, and serve klines over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

GARBAGE: tuple[str | bytes, ...] = (
    "", "{", "null", "[]", "\x00\x01", b"\xff\xfe\xfd", '{"stream":"btcusdt@trade"}', '{"stream":5,"data":{}}', "[" * 5_000,
    '{"stream":"btcusdt@trade","data":{"s":"BTCUSDT","t":-1,"p":"1","q":"1","T":1723161255000,"m":true}}',
    '{"stream":"btcusdt@trade","data":{"s":"BTCUSDT","t":1,"p":"1","q":"1","T":99999999999999999999,"m":true}}',
    '{"stream":"btcusdt@bookTicker","data":{"s":"BTCUSDT","u":1e400,"b":"1","B":"1","a":"1","A":"1"}}',
)  # fmt: skip


def captured(path: Path) -> list[bytes]:
    """Return the messages of a capture, in order."""
    return [line.partition(b" ")[2] for line in gzip.decompress(path.read_bytes()).splitlines()]


def looped(messages: Sequence[bytes], times: int) -> list[bytes]:
    """Return the messages so often, each time with later numbers and times, as one long capture."""
    found = list(messages)
    decoded = [msgspec.json.decode(item) for item in messages]
    ticks = [item["data"] for item in decoded if kind_of(item)]
    spans = {
        name: max(d[name] for d in ticks if name in d) - min(d[name] for d in ticks if name in d) + 1 for name in "utT"
    }
    spans["E"] = spans["T"]
    for _ in range(times - 1):
        for item in ticks:
            for name, span in spans.items():
                if type(item.get(name)) is int:
                    item[name] += span
        found += map(msgspec.json.encode, decoded)
    return found


def kind_of(message: Any) -> str:
    """Return trade, bookTicker or nothing."""
    kind = message.get("stream", "").partition("@")[2] if isinstance(message, dict) else ""
    return kind if kind in ("trade", "bookTicker") else ""


class Script:
    """What is sent, in order: bytes and text as messages, and callables that do something to the connection."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        self.steps: list[Any] = list(messages)

    def insert(self, rng: random.Random, times: int, step: Any) -> None:
        """Put a step at random places."""
        for place in sorted((rng.randrange(10, len(self.steps)) for _ in range(times)), reverse=True):
            self.steps.insert(place, step)

    def duplicate(self, rng: random.Random, times: int) -> None:
        """Send some messages again, up to 50 messages later."""
        for place in sorted((rng.randrange(60, len(self.steps)) for _ in range(times)), reverse=True):
            self.steps.insert(place, self.steps[place - rng.randrange(1, 50)])

    def reorder(self, rng: random.Random, times: int, width: int = 20) -> None:
        """Shuffle some stretches."""
        for place in (rng.randrange(10, len(self.steps) - width) for _ in range(times)):
            part = self.steps[place : place + width]
            rng.shuffle(part)
            self.steps[place : place + width] = part

    def remove(self, rng: random.Random, times: int, width: int = 30) -> list[bytes]:
        """Leave some stretches out; return what is gone."""
        gone: list[bytes] = []
        for place in (rng.randrange(100, len(self.steps) - 100 - width) for _ in range(times)):
            gone += [item for item in self.steps[place : place + width] if isinstance(item, bytes)]
            del self.steps[place : place + width]
        return gone


async def close(link: ServerConnection) -> None:
    """End the connection properly."""
    await link.close()


async def half_close(link: ServerConnection) -> None:
    """Send no more, without a word, and keep the socket."""
    link.transport.write_eof()
    await link.wait_closed()


async def stall(link: ServerConnection) -> None:
    """Say nothing until the other side has had enough."""
    await link.wait_closed()


async def too_large(link: ServerConnection) -> None:
    """Send a message that nobody should take."""
    with suppress(ConnectionClosed):
        await link.send("x" * (2 << 20))
    await link.wait_closed()


def framed(message: str | bytes) -> bytes:
    """Return a message as one unmasked text frame, whatever its bytes."""
    body = message.encode() if isinstance(message, str) else message
    size = len(body)
    head = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")  # fmt: skip
    return b"\x81" + head + body


class Exchange:
    """Send a script to whoever connects; a new connection goes on where the last one ended."""

    def __init__(self, script: Script) -> None:
        self.steps, self.place, self.connections = script.steps, 0, 0
        self.paths: list[str] = []
        self.finished = asyncio.Event()
        self.url = ""
        self.each: Callable[[bytes], bytes] | None = None
        self.batch, self.pause_s = 64, 0.0

    async def handle(self, link: ServerConnection) -> None:
        self.connections += 1
        assert link.request is not None
        self.paths.append(link.request.path)
        with suppress(ConnectionClosed, ConnectionResetError):
            while self.place < len(self.steps):
                step = self.steps[self.place]
                if callable(step):
                    self.place += 1
                    await step(link)
                    return
                await self._send(link)
            self.finished.set()
            await link.close()

    async def _send(self, link: ServerConnection) -> None:
        """Send up to ``batch`` messages in one piece, as a busy exchange does."""
        frames: list[bytes] = []
        while len(frames) < self.batch and self.place < len(self.steps) and not callable(self.steps[self.place]):
            step = self.steps[self.place]
            self.place += 1
            frames.append(framed(self.each(step) if self.each else step))
        link.transport.write(b"".join(frames))
        await asyncio.sleep(self.pause_s)
        while link.transport.get_write_buffer_size() > 1 << 18:
            await asyncio.sleep(0.001)
        if link.transport.is_closing():
            raise ConnectionResetError

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Exchange]:
        """Listen on a free port."""
        async with serve(self.handle, "127.0.0.1", 0, compression=None, max_size=None, close_timeout=1) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}"
            yield self

    @contextmanager
    def in_thread(self) -> Iterator[Exchange]:
        """Listen on a loop of its own, for clients in other processes."""
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def main() -> None:
            async with self.serve():
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            loop.close()


class Klines:
    """Serve one-minute klines as the exchange does; ``spoil`` may change a reply's status and body."""

    def __init__(self, price: Callable[[int], float] = lambda minute: 100.0 + minute % 7) -> None:
        self.asked: list[dict[str, str]] = []
        self.spoil: Callable[[bytes], tuple[int, bytes]] = lambda body: (200, body)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                outer.asked.append(query | {"path": urlsplit(self.path).path})
                first, last = -(-int(query["startTime"]) // 60_000), int(query["endTime"]) // 60_000
                rows = [_kline(minute, price(minute)) for minute in range(first, last + 1)][: int(query["limit"])]
                status, body = outer.spoil(json.dumps(rows).encode())
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _kline(minute: int, price: float) -> list[object]:
    text = f"{price:.2f}"
    opened = minute * 60_000
    return [opened, text, text, text, text, "12.5", opened + 59_999, "1", 3, "1", "1", "0"]
