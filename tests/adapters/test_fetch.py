"""Dumps come whole and verified through every fault of a server, or not at all."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from probatum.adapters import fetch as fetch_module
from probatum.adapters.fetch import fetch_binance
from probatum.adapters.importers import read_files
from probatum.core.clock import parse_utc
from probatum.core.errors import DataError, ParameterError, StorageError
from probatum.market.quality import gaps, screen

NOW_NS = parse_utc("2024-01-05T06:00:00Z")
LAST = date(2024, 1, 4)


def dump(day: date) -> bytes:
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    opens = [start + minute * 60_000 for minute in range(1440)]
    rows = [f"{t},100,101,99,100.5,{1 + t % 7},{t + 59_999},1,1,1,1,0\n" for t in opens]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"BTCUSDT-1m-{day}.csv", "".join(rows))
    return buffer.getvalue()


class Server:
    """Serve dumps and misbehave as told, by file name: each fault is used up by one request."""

    def __init__(self, days: int) -> None:
        self.files: dict[str, bytes] = {}
        for back in range(days):
            day = LAST - timedelta(days=back)
            self.add(f"BTCUSDT-1m-{day}.zip", dump(day))
        self.faults: dict[str, list[str]] = {}
        self.requests: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.resumes = True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def add(self, name: str, data: bytes) -> None:
        self.files[name] = data
        self.files[f"{name}.CHECKSUM"] = f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        folder, _, name = request.path.rpartition("/")
        self.requests[name] += 1
        fault = self.faults[name].pop(0) if self.faults.get(name) else ""
        data = self.files.get(name)
        if data is None or folder != "/data/spot/daily/klines/BTCUSDT/1m" or fault == "404":
            request.send_error(404)
        elif fault.isdigit():
            request.send_error(int(fault))
        else:
            self._send(request, data, fault)
        request.close_connection = True

    def _send(self, request: BaseHTTPRequestHandler, data: bytes, fault: str) -> None:
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.resumes else 0
        if asked:
            self.ranges.append(asked)
        if start and start >= len(data):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            shown = 0 if fault == "wrong range" else start
            request.send_header("Content-Range", f"bytes {shown}-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        if fault == "break":
            request.wfile.write(data[start : start + (len(data) - start) // 2])
        else:
            request.wfile.write(b"\x00" * len(data) if fault == "garbage" else data[start:])


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(3)
    yield running
    running.close()


def run(server: Server, folder: Path, days: int = 2, waits: list[float] | None = None) -> list[Path]:
    sleep = (waits if waits is not None else []).append
    return fetch_binance("BTCUSDT", days, folder=folder, now_ns=NOW_NS, base_url=server.url, sleep=sleep)


def name_of(days_back: int) -> str:
    return f"BTCUSDT-1m-{LAST - timedelta(days=days_back)}.zip"


def test_the_last_published_days_come_whole(server: Server, tmp_path: Path) -> None:
    """Two days in order, each the server's bytes; imported they are two days of bars without a gap."""
    files = run(server, tmp_path)
    assert [path.name for path in files] == [name_of(1), name_of(0)]
    assert [path.read_bytes() for path in files] == [server.files[path.name] for path in files]
    dataset = screen(read_files("binance-klines", files)).dataset
    assert dataset.frames["bars"].height == 2880
    assert gaps(dataset) == []


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """The second call asks the server for nothing; a third day adds its own two requests."""
    run(server, tmp_path)
    before = server.requests.total()
    run(server, tmp_path)
    assert server.requests.total() == before
    run(server, tmp_path, days=3)
    assert server.requests.total() == before + 2


def test_yesterday_may_not_be_published_yet(server: Server, tmp_path: Path) -> None:
    """When the newest dump is missing the days end one earlier; when three are, it is an error."""
    del server.files[f"{name_of(0)}.CHECKSUM"]
    assert [path.name for path in run(server, tmp_path)] == [name_of(2), name_of(1)]
    server.files.clear()
    with pytest.raises(DataError, match="no dump of the last 3 days"):
        run(server, tmp_path / "other")


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    """After two breaks the third request asks for the rest only, and the whole is right."""
    server.faults[name_of(0)] = ["break", "break"]
    waits: list[float] = []
    (path,) = run(server, tmp_path, days=1, waits=waits)
    assert path.read_bytes() == server.files[name_of(0)]
    sizes = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.ranges]
    assert 0 < sizes[0] < sizes[1] < len(server.files[name_of(0)])
    assert waits == [0.5, 1.0]


def test_an_interrupted_run_goes_on_in_the_next(server: Server, tmp_path: Path) -> None:
    """What an earlier process left in the part file is not fetched twice."""
    data = server.files[name_of(0)]
    (tmp_path / f"{name_of(0)}.part").write_bytes(data[:1000])
    (path,) = run(server, tmp_path, days=1)
    assert path.read_bytes() == data
    assert server.ranges == ["bytes=1000-"]


@pytest.mark.parametrize("case", ["no ranges", "wrong range", "too long", "other file"])
def test_a_part_that_cannot_be_resumed_is_fetched_anew(server: Server, tmp_path: Path, case: str) -> None:
    """No Range support, a wrong answer to it, a part that is too long or of another file: the result is right."""
    part = tmp_path / f"{name_of(0)}.part"
    part.write_bytes(server.files[name_of(0)][:1000])
    if case == "no ranges":
        server.resumes = False
    elif case == "wrong range":
        server.faults[name_of(0)] = ["wrong range"]
    elif case == "too long":
        part.write_bytes(b"x" * 10**6)
    else:
        part.write_bytes(b"x" * 1000)
    (path,) = run(server, tmp_path, days=1)
    assert path.read_bytes() == server.files[name_of(0)]
    assert not part.exists()


@pytest.mark.parametrize("fault", ["500", "503", "429"])
def test_a_passing_fault_is_waited_out(server: Server, tmp_path: Path, fault: str) -> None:
    """Server errors and throttling are retried with growing waits, for dump and CHECKSUM alike."""
    server.faults[name_of(0)] = [fault, fault]
    server.faults[f"{name_of(0)}.CHECKSUM"] = [fault]
    waits: list[float] = []
    (path,) = run(server, tmp_path, days=1, waits=waits)
    assert path.read_bytes() == server.files[name_of(0)]
    assert waits == [0.5, 0.5, 1.0]


def test_a_lasting_fault_ends_with_a_storage_error(server: Server, tmp_path: Path) -> None:
    """Five attempts, then StorageError naming the address; no zip is there."""
    server.faults[name_of(0)] = ["500"] * 9
    with pytest.raises(StorageError, match=r"the server answers 500, after 5 attempts; run it again"):
        run(server, tmp_path, days=1)
    assert not list(tmp_path.glob("*.zip"))
    server.close()
    with pytest.raises(StorageError, match="after 5 attempts"):
        run(server, tmp_path / "other", days=1)


def test_a_wrong_checksum_keeps_nothing(server: Server, tmp_path: Path) -> None:
    """Bytes that the CHECKSUM does not name are refused: neither the zip nor its part stays; later it works."""
    server.faults[name_of(0)] = ["garbage"]
    with pytest.raises(DataError, match="not the one its CHECKSUM names; it was not kept"):
        run(server, tmp_path, days=1)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name_of(0)}.CHECKSUM"]
    run(server, tmp_path, days=1)


@pytest.mark.parametrize("text", [b"", b"not a checksum", b"0" * 64, b"0" * 64 + b"  other.zip\n", b"\xff" * 5000])
def test_a_checksum_file_that_is_none_is_refused(server: Server, tmp_path: Path, text: bytes) -> None:
    """Empty, garbled, of another file or too long: refused before the dump is fetched."""
    server.files[f"{name_of(0)}.CHECKSUM"] = text
    with pytest.raises(DataError, match="not a CHECKSUM of this dump"):
        run(server, tmp_path, days=1)
    assert server.requests[name_of(0)] == 0


def test_a_changed_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    """A kept zip that no longer has its digest is replaced."""
    (path,) = run(server, tmp_path, days=1)
    path.write_bytes(b"damaged")
    (path,) = run(server, tmp_path, days=1)
    assert path.read_bytes() == server.files[name_of(0)]


def test_a_missing_day_and_a_giant_are_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day in the middle that does not exist is named; a dump beyond the limit is not stored."""
    server.faults[f"{name_of(1)}.CHECKSUM"] = ["404"]
    with pytest.raises(DataError, match=f"{name_of(1)}: no such dump"):
        run(server, tmp_path)
    monkeypatch.setattr(fetch_module, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="larger than 1000 bytes"):
        run(server, tmp_path / "other", days=1)
    assert not list((tmp_path / "other").glob("*.zip*part"))


@pytest.mark.parametrize(("symbol", "days"), [("../x", 1), ("btcusdt", 1), ("BTCUSDT", 0), ("BTCUSDT", 1001)])
def test_parameters_are_checked_before_any_request(server: Server, tmp_path: Path, symbol: str, days: int) -> None:
    """A symbol that is a path, and days out of range, raise ParameterError."""
    with pytest.raises(ParameterError):
        fetch_binance(symbol, days, folder=tmp_path, now_ns=NOW_NS, base_url=server.url)
    assert server.requests.total() == 0
