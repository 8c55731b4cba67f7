"""Pictures of pages: taken by a real browser where there is one, and said not to be where there is none."""

from __future__ import annotations

import shutil
import stat
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.conftest import require_service

from probatum.adapters import picture
from probatum.adapters.picture import take_picture
from probatum.core.clock import VirtualClock
from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance
from probatum.pipeline.picture import KIND, Shot, figures, png_size, record_picture
from probatum.pipeline.ports import Record
from probatum.pipeline.verify import verify
from probatum.services.controller.photographer import Photographer
from probatum.testing.fakes import MemoryLedger, MemorySources

PAGE = "<!doctype html><title>rollout</title><h1 id=a></h1><script>new EventSource('/events').onmessage = (e) => { a.textContent = e.data; }</script>"


@pytest.fixture
def sources() -> MemorySources:
    made = MemorySources()
    made.ledger = MemoryLedger(VirtualClock())
    return made


def event(number: int = 1) -> Record:
    return Record(number, "", "rollout_event", "btc", Provenance.REPLAY, {}, "", f"{number:064x}")


def png(width: int = 3, height: int = 2) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    )


class Streaming(BaseHTTPRequestHandler):
    """Serve a page that goes on listening to events, as the dashboard does."""

    def do_GET(self) -> None:
        stream = self.path == "/events"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if stream else "text/html")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(b"data: 25\n\n" if stream else PAGE.encode())
            self.wfile.flush()
            time.sleep(30 if stream else 0)

    def log_message(self, *_: object) -> None:
        pass


def test_a_real_browser(sources: MemorySources) -> None:
    """Chromium takes a page that streams, 1280 pixels wide; the size is the PNG's own, and the verifier reads it again."""
    require_service("chromium", shutil.which("chromium"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Streaming)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/rollout"
    made = record_picture(sources, "btc", event(), url, take_picture(url))
    server.shutdown()
    assert made is not None
    found = made.body["figures"]
    assert (found["taken"], found["width"]) == (True, 1280), found
    assert found["height"] >= 800
    assert found["bytes"] == len(sources.blobs.get("picture", made.body["inputs"]["picture"])) > 1_000
    assert made.provenance is Provenance.REPLAY
    sources.blobs._data["picture", made.body["inputs"]["picture"]] = png(1280, 900)
    assert "figures.bytes" in str(verify(sources.ledger, sources).findings)


def fake_browser(folder: Path, script: str) -> None:
    path = folder / "chromium"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 3", "ended with 3"), ("sleep 60 & wait", "took longer than 1 s"), ("exit 0", "wrote no picture")],
)
def test_a_browser_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: MemorySources, script: str, reason: str
) -> None:
    """One that dies, hangs or writes nothing leaves a record that says so, and no process."""
    fake_browser(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(picture, "TIMEOUT_S", 1.0)
    began = time.monotonic()
    made = record_picture(
        sources, "btc", event(), "http://127.0.0.1:9/rollout", take_picture("http://127.0.0.1:9/rollout")
    )
    assert time.monotonic() - began < 10
    assert made is not None
    assert not made.body["figures"]["taken"]
    assert reason in made.body["figures"]["reason"]


def test_no_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a browser the reason names what was looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert take_picture("http://127.0.0.1:9/") == Shot(None, "no browser: none of chromium, chromium-browser, google-chrome is installed")  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"GIF89a", png()[:20], png(0, 2)])
def test_what_is_no_png(sources: MemorySources, data: bytes) -> None:
    """Bytes that are no PNG are recorded as no picture, and refused where a record claims that they are one."""
    assert png_size(data) is None
    made = record_picture(sources, "btc", event(), "u", Shot(data, ""))
    assert made is not None
    assert made.body["figures"]["reason"] == "what the browser wrote is no PNG"
    digest = sources.blobs.put("picture", data)
    with pytest.raises(IntegrityError, match="not a PNG"):
        figures({"picture": digest}, sources)


def test_one_picture_an_event(sources: MemorySources) -> None:
    """An event that is asked for twice, as after a crash, has one picture; another event has its own."""
    shot = Shot(png(), "")
    assert record_picture(sources, "btc", event(), "u", shot) is not None
    assert record_picture(sources, "btc", event(), "u", shot) is None
    assert record_picture(sources, "btc", event(2), "u", shot) is not None
    assert len(list(sources.ledger.records(kind=KIND))) == 2


def test_asking_holds_nobody_up(sources: MemorySources) -> None:
    """A browser that hangs delays neither who asks nor the end; what was asked for is taken in turn."""
    hang, stop = threading.Event(), threading.Event()

    def take(url: str) -> Shot:  # noqa: ARG001
        hang.wait(10)
        return Shot(png(), "")

    photographer = Photographer(sources, take, "u")
    thread = threading.Thread(target=photographer.run, args=(stop,), daemon=True)
    thread.start()
    began = time.monotonic()
    for number in range(500):
        photographer.ask("btc", event(number))
    assert time.monotonic() - began < 1
    hang.set()
    while len(list(sources.ledger.records(kind=KIND))) < 20:
        assert time.monotonic() - began < 30
        time.sleep(0.01)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
