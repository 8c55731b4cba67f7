"""Hurt the engine, or the executor's disk, with real processes: the baseline answers everything, and the counts say why."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from probatum.core.verdict import Provenance
from probatum.features.sets import get_feature_set
from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, FixedModel, ReferenceBins

SNAPSHOT = {"ts": 0, "mid": 42_000.0, "spreadBp": 1.0, "vol1m": 1e6}


def seed_artifact() -> bytes:
    """Return the seed's fixed model as an artifact."""
    names = get_feature_set("v1.8-b0").names
    bins = ReferenceBins((0.0,), (10, 10), 0, 10, ((5, 5, 0), (5, 5, 0)))
    data = DataSpec(("TEST",), ("0" * 64,), Provenance.SYNTHETIC, 20, "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z")
    return Artifact(
        name="v1.8-b0", model=FixedModel((-3.0, 0.00001, -0.02, 0.000001, 0.01, 0.0002)),
        features=FeatureSpec("v1.8-b0", names, get_feature_set("v1.8-b0").fingerprint), target="direction@60s",
        grid_ns=None, reference=dict.fromkeys(names, bins), data=data, split={}, seed=7, versions={}, metrics={},
    ).to_bytes()  # fmt: skip


class Service:
    """One `probatum` process and the port it said it listens on."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "probatum.cli.main", *arguments], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        seen = ""
        for line in self.process.stderr:
            seen += line
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise AssertionError(f"{arguments} ended: {seen}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> int:
        """Let it drain; return its exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(timeout=60)


class Client:
    """Keep one connection to an executor."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        self._connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def decide(self, rsi14: float) -> dict[str, Any]:
        """Ask for one decision and hold the reply to what the baseline must say."""
        status, reply = self.post("/predict-with-shadow", {"snapshot": {**SNAPSHOT, "rsi14": rsi14}})
        assert status == 200, reply
        assert reply["prediction"] == (0.6 if rsi14 > 70 else 0.4 if rsi14 < 30 else 0.5)
        assert reply["route"] == "baseline"
        return reply

    def metrics(self) -> dict[str, Any]:
        self._connection.request("GET", "/shadow/metrics")
        return dict(json.loads(self._connection.getresponse().read()))

    def settled(self) -> dict[str, Any]:
        """Wait until nothing is pending, and hold the counters to their sums."""
        while (metrics := self.metrics())["pending"]:
            time.sleep(0.02)
        assert metrics["decisions"] == metrics["attempts"] == metrics["total_predictions"]
        outcomes = metrics["counts"]["outcomes"]
        assert sum(outcomes.values()) == metrics["attempts"]
        assert metrics["matches"] + metrics["mismatches"] == outcomes["ok"]
        assert metrics["errors"] == metrics["attempts"] - outcomes["ok"] - outcomes["skipped"]
        return metrics


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "model.json"
    path.write_bytes(seed_artifact())
    return path


@contextmanager
def executor(engine_url: str, *options: str) -> Iterator[tuple[Client, Service]]:
    service = Service("executor", "--port", "0", "--engine", engine_url, *options)
    try:
        yield Client(service.port), service
    finally:
        assert service.stop() == 0


class FakeEngine:
    """Answer as ``answer(body)`` says, and remember how many calls came and were answered."""

    def __init__(self, answer: Callable[[dict[str, Any]], tuple[int, str]]) -> None:
        self.received = self.answered = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.received += 1
                status, text = answer(body)
                outer.answered += 1
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("content-length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def rows_of(body: dict[str, Any]) -> int:
    return len(body["rows"])


def good(body: dict[str, Any]) -> tuple[int, str]:
    return 200, json.dumps({"scores": [0.52] * rows_of(body), "version": "fake", "latency_ms": 0.1})


def send(client: Client, count: int, pause_s: float = 0.002) -> None:
    for i in range(count):
        client.decide((i * 7) % 101)
        time.sleep(pause_s)  # spreads the decisions over several batches; nothing is asserted of it


@pytest.mark.parametrize("delivery", ["mirror", "await"])
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_engine_killed_or_stopped(artifact: Path, fault: signal.Signals, delivery: str) -> None:
    """After kill -9 or SIGSTOP of a real engine every decision is the baseline's; after SIGCONT the shadow comes back."""
    engine = Service("engine", "--artifact", str(artifact), "--port", "0")
    try:
        with executor(engine.url, "--artifact", str(artifact), "--no-log", "--delivery", delivery) as (client, _):
            send(client, 60)
            before = client.settled()["counts"]["outcomes"]
            assert before["ok"] == 60
            engine.process.send_signal(fault)
            if fault is signal.SIGKILL:
                engine.process.wait()
            send(client, 80)
            during = client.settled()
            outcomes = during["counts"]["outcomes"]
            assert outcomes["ok"] == 60
            expected = "error" if fault is signal.SIGKILL else "timeout"
            assert outcomes[expected] > 0
            assert sum(outcomes[name] for name in (expected, "breaker_open", "shed")) == 80
            assert during["breaker"]["trips"] <= 1
            if fault is signal.SIGSTOP:
                engine.process.send_signal(signal.SIGCONT)
                while client.settled()["counts"]["outcomes"]["ok"] < 70:
                    send(client, 10, 0.02)
                assert client.metrics()["breaker"]["state"] in ("closed", "half_open")
    finally:
        engine.stop()


def test_dead_engine_trips_the_breaker(artifact: Path) -> None:
    """An engine that refuses connections costs a few errors, then open-breaker outcomes, counted as errors of coverage."""
    with executor("http://127.0.0.1:9", "--artifact", str(artifact), "--no-log", "--delivery", "await") as (client, _):
        send(client, 100, 0.0)
        metrics = client.settled()
        outcomes = metrics["counts"]["outcomes"]
        assert outcomes["error"] == 20  # calls_min: the breaker's first judgement
        assert outcomes["breaker_open"] == 80
        assert metrics["errors"] == 100
        assert metrics["match_rate"] is None
        assert metrics["breaker"]["state"] == "open"


FAULTY: dict[str, tuple[Callable[[dict[str, Any]], tuple[int, str]], str]] = {
    "500": (lambda _: (500, '{"error":"internal error"}'), "error"),
    "nan": (lambda body: (200, json.dumps({"scores": [float("nan")] * rows_of(body)})), "nan"),
    "null": (lambda body: (200, json.dumps({"scores": [None] * rows_of(body)})), "nan"),
    "out-of-range": (lambda body: (200, json.dumps({"scores": [1e300] * rows_of(body)})), "nan"),
    "too-few": (lambda _: (200, '{"scores":[]}'), "error"),
    "rubbish": (lambda _: (200, "<html>"), "error"),
    "redirect": (lambda _: (302, ""), "error"),
}


@pytest.fixture(scope="module")
def faulty_executor(artifact: Path) -> Iterator[tuple[Client, dict[str, Any]]]:
    """One executor for all wrong answers; the fake engine behind it is told what to say."""
    said: dict[str, Any] = {"answer": good}
    with (
        FakeEngine(lambda body: said["answer"](body)) as engine,
        executor(engine.url, "--artifact", str(artifact), "--no-log") as (client, _),
    ):
        yield client, said


@pytest.mark.parametrize("fault", FAULTY)
def test_engine_answers_wrongly(faulty_executor: tuple[Client, dict[str, Any]], fault: str) -> None:
    """500, NaN, null, impossible or missing scores, rubbish: each is counted under its name, and decides nothing."""
    client, said = faulty_executor
    answer, outcome = FAULTY[fault]
    said["answer"] = good
    while client.settled()["breaker"]["state"] != "closed":
        send(client, 1, 0.05)
    before = client.settled()["counts"]["outcomes"]
    said["answer"] = answer
    send(client, 10)
    after = client.settled()["counts"]["outcomes"]
    gained = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert sum(gained.values()) == 10
    assert set(gained) <= {outcome, "breaker_open"}
    assert gained[outcome] > 0


@pytest.mark.parametrize(("delivery", "outcome"), [("mirror", "ok"), ("await", "timeout")])
def test_slow_engine(artifact: Path, delivery: str, outcome: str) -> None:
    """At 200 ms the mirror hears the engine and sees that it is slow; await gives up at its 60 ms budget."""

    def slow(body: dict[str, Any]) -> tuple[int, str]:
        time.sleep(0.2)
        return good(body)

    with (
        FakeEngine(slow) as engine,
        executor(engine.url, "--artifact", str(artifact), "--no-log", "--delivery", delivery) as (client, _),
    ):
        send(client, 12, 0.01)
        metrics = client.settled()
        assert metrics["counts"]["outcomes"][outcome] > 0
        assert metrics["counts"]["outcomes"]["ok"] + metrics["counts"]["outcomes"]["timeout"] == 12
        assert metrics["slower_than_ms"]["60"] == 12


def test_mirror_replies_before_the_engine_answers(artifact: Path) -> None:
    """No reply waits on the engine: fifty replies are in while it has a call and has answered none."""
    release = threading.Event()

    def hold(body: dict[str, Any]) -> tuple[int, str]:
        release.wait(30)
        return good(body)

    with (
        FakeEngine(hold) as engine,
        executor(engine.url, "--artifact", str(artifact), "--no-log") as (client, _),
    ):
        client.decide(50.0)
        while not engine.received:
            time.sleep(0.005)
        for _ in range(50):
            client.decide(75.0)
        assert engine.received > 0
        assert engine.answered == 0
        release.set()
        client.settled()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_executors_disk_full(artifact: Path, tiny_disk: Path) -> None:
    """With the log's disk full every decision is answered and heard; the lost rows are counted, and no file is broken."""
    with (
        FakeEngine(good) as engine,
        executor(engine.url, "--artifact", str(artifact), "--log", str(tiny_disk)) as (client, _),
    ):
        while not client.metrics()["log"]["failed"]:
            send(client, 100, 0.0)
        metrics = client.settled()
        while client.metrics()["log"]["waiting"]:
            time.sleep(0.02)
        log = client.metrics()["log"]
        assert metrics["counts"]["outcomes"]["ok"] == metrics["decisions"]
        assert log["offered"] == metrics["decisions"] == log["written"] + log["failed"] + log["shed"]
    assert not list(tiny_disk.glob(".*.tmp"))
