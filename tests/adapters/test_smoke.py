"""What drives running services asks no more of them than they take, and says in one line what is wrong with them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from probatum.adapters.smoke import WARM_UP_EVENTS, ShadowDriver, smoke_engine
from probatum.core.errors import BlockedError, DataError, ParameterError
from probatum.market.events import BAR, Events
from probatum.services.executor.schema import EVENTS_MAX

ARTIFACT: Any = SimpleNamespace(name="m", digest="d" * 64, features=SimpleNamespace(set="robust", fingerprint="f"))
EVENTS = Events(np.array([60], np.int64), np.array([BAR], np.int8), np.ones((1, 4)))


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[str]:
    """Answer every GET with the same body, every POST with a refusal."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(status, body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.reply(422, b"events[0] is impossible")

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def drive(kind: str, url: str) -> None:
    if kind == "engine":
        smoke_engine(url, ARTIFACT, [[1.0]], rate_per_s=1000.0, now_ns=0)
    else:
        ShadowDriver(url, ARTIFACT, "S", EVENTS).warm_up(1)


def test_a_warm_up_request_holds_no_more_events_than_an_executor_takes() -> None:
    """Adapters cannot import services, so the two numbers are declared apart; apart they once broke every run."""
    assert WARM_UP_EVENTS <= EVENTS_MAX


@pytest.mark.parametrize("kind", ["engine", "executor"])
@pytest.mark.parametrize("body", [b"hello", b"[1]", b"{}"])
def test_a_stranger_behind_the_port_is_named(kind: str, body: bytes) -> None:
    """Whatever answers where a service of ours should is one message with its address, before anything is sent."""
    with answering(body) as url, pytest.raises(DataError, match=f"{url}/.*: is not what a service of ours answers"):
        drive(kind, url)
    with answering(body, 503) as url, pytest.raises(DataError, match=f"{url}/.*: answers 503"):
        drive(kind, url)


@pytest.mark.parametrize("kind", ["engine", "executor"])
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "http://a b:80", "https://x:1", "127.0.0.1:4010", "http://x:1/base"]
)
def test_what_is_no_address_is_refused(kind: str, url: str) -> None:
    """A scheme, a port or a path that cannot be used is said before anything is sent."""
    with pytest.raises(ParameterError, match="http://HOST:PORT"):
        drive(kind, url)


@pytest.mark.parametrize("kind", ["engine", "executor"])
def test_nobody_at_the_address_is_one_message(kind: str) -> None:
    """Port 1 is nobody's: the error holds the whole URL that was asked."""
    with pytest.raises(DataError, match=r"http://127.0.0.1:1/.*does not answer"):
        drive(kind, "http://127.0.0.1:1")


def test_services_that_serve_something_else_are_refused() -> None:
    """Another artifact, another feature set, and events that the executor will not have: said, and nothing is proven."""
    with answering(b'{"digest": "e", "version": "v9"}') as url, pytest.raises(BlockedError, match="serves v9"):
        drive("engine", url)
    shadow = b'{"pending": 0, "config": {"delivery": "mirror", "feature_set": "%s"}, "counts": {}}'
    with answering(shadow % b"book") as url, pytest.raises(BlockedError, match="feature set book, not robust"):
        drive("executor", url)
    with answering(shadow % b"robust") as url, pytest.raises(DataError, match=r"answers 422.*events"):
        drive("executor", url)
