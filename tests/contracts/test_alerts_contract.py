"""What a real Prometheus says of alerts is read right, and what it cannot know is said."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from prometheus import Prometheus, prometheus

from probatum.adapters.alerts import PrometheusAlerts
from probatum.core.errors import ParameterError
from probatum.pipeline.alerts import summarise
from probatum.testing.fakes import MemorySources

WINDOW_S = 6
RULES = """
groups:
  - name: probatum
    interval: 200ms
    rules:
      - {alert: MLQuiet, expr: vector(0) > 1, labels: {severity: critical}}
      - {alert: MLFires, expr: vector(time()) > %d, labels: {severity: warning, criterion: error_rate}}
      - {alert: MLWatched, expr: vector(time()) > %d, labels: {severity: critical, criterion: match_rate}}
      - {alert: NodeDown, expr: vector(1), labels: {severity: critical}}
"""


class Pages:
    """Answer every path with the same status and body."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def page() -> Iterator[str]:
    pages = Pages(b"# TYPE a gauge\na 1\n")
    yield pages.url
    pages.close()


def told(server: Prometheus | str, window_s: int = WINDOW_S) -> dict[str, Any]:
    url = server if isinstance(server, str) else server.url
    sources = MemorySources()
    answer = PrometheusAlerts(url).read(window_s, time.time_ns())
    return summarise(sources, sources.blobs.put("alerts", answer), ("match_rate",))


def test_silence_firing_and_looking_away(tmp_path: Path, page: str) -> None:
    """Before the window is watched whole: an error. Then silence; then an alert that fires; after a pause an error again."""
    fires = int(time.time()) + 18
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "ml.yml").write_text(RULES % (fires, fires))
    with prometheus(tmp_path, executors=[page], engines=[page], rules=tmp_path / "rules") as server:
        while "not evaluated" in (problem := told(server)["problem"]):  # for a moment after the start
            time.sleep(0.1)
        assert "within the window" in problem
        time.sleep(WINDOW_S + 4)
        quiet = told(server)
        assert (quiet["critical"], quiet["warning"], quiet["problem"], quiet["coverage"]) == (0, 0, "", 1.0)
        assert quiet["alerts"] == []
        assert "within the window" in told(server, 600)["problem"]
        time.sleep(max(0.0, fires + 2 - time.time()))
        loud = told(server)
        assert (loud["critical"], loud["warning"]) == (0, 1)
        assert {(row["alertname"], row["severity"], row["counts_as"]) for row in loud["alerts"]} == {
            ("MLFires", "warning", "warning"),
            ("MLWatched", "critical", ""),
        }
        server.process.send_signal(signal.SIGSTOP)
        assert "not answered" in told(server)["problem"]
        time.sleep(4.5)
        server.process.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        assert "of the window only" in told(server)["problem"]


def test_without_rules_nothing_is_silent(tmp_path: Path, page: str) -> None:
    """A Prometheus that evaluates no rule of ours, and one that sees no engine, prove nothing."""
    with prometheus(tmp_path, executors=[page], engines=[]) as server:
        time.sleep(WINDOW_S + 1)
        found = told(server)
        assert ("no alert rule" in found["problem"], found["coverage"]) == (True, 0.0)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"not json"),
        (200, b"{}"),
        (200, b'{"data": null}'),
        (200, b'{"data": {"result": [{"metric": {"job": "x"}, "values": []}]}}'),
        (200, b'{"data": {"result": [{"metric": 5, "values": [["a", 1]]}], "groups": [{}], "lastConfigTime": 7}}'),
        (200, b'{"data": {"result": [], "groups": [{"rules": [{"name": 1}]}], "lastConfigTime": "soon"}}'),
        (500, b""),
    ],
)
def test_a_strange_answer_is_a_problem(status: int, body: bytes) -> None:
    """Whatever comes back, it is recorded as not answered; nothing raises."""
    pages = Pages(body, status)
    assert "not answered" in told(pages.url)["problem"]
    pages.close()


def test_nobody_there_is_a_problem() -> None:
    """An address without a Prometheus is an answer with a problem; what is no address is refused."""
    assert "not answered" in told("http://127.0.0.1:1")["problem"]
    for url in ("nonsense", "http://a b:x", "ftp://host", ""):
        with pytest.raises(ParameterError, match="prometheus"):
            PrometheusAlerts(url)


def test_a_password_is_not_recorded() -> None:
    """Of the address only scheme, host and port are kept."""
    answer = PrometheusAlerts("http://ada:secret@127.0.0.1:1/").read(10, time.time_ns())
    assert b"127.0.0.1:1" in answer
    assert b"secret" not in answer
