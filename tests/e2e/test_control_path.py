"""Hurt the control path with real processes: no executor ever serves more than the ledger allows, and each recovers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from postgres import PostgresServer
from seed import write_seed_artifact

from probatum.adapters.processes import service
from probatum.cli.workspace import LEDGER_URL, Workspace
from probatum.core.verdict import Provenance
from probatum.pipeline.control import KIND, publish
from probatum.pipeline.verify import verify
from probatum.rollout.choose import Mode
from probatum.rollout.lease import RolloutDocument

SNAPSHOT = {"ts": 0, "mid": 42_000.0, "spreadBp": 1.0, "vol1m": 1e6, "rsi14": 55}


class Client:
    """Keep one connection to an executor."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)

    def decide(self) -> str:
        """Return whose decision it was; anything but an answer fails the test."""
        body = {"snapshot": SNAPSHOT, "as_of": time.time_ns()}
        self._connection.request("POST", "/predict-with-shadow", json.dumps(body), {"content-type": "application/json"})
        response = self._connection.getresponse()
        reply = json.loads(response.read())
        assert response.status == 200, reply
        if reply["route"] == "baseline":
            assert reply["prediction"] == 0.5
        return str(reply["route"])

    def get(self, path: str) -> bytes:
        self._connection.request("GET", path)
        return self._connection.getresponse().read()

    def health(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/health")))

    def wait_for(self, **expected: object) -> None:
        """Decide until the executor shows this; every decision is answered on the way."""
        while {name: self.health()[name] for name in expected} != expected:
            self.decide()
            time.sleep(0.005)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    artifact = write_seed_artifact(tmp_path_factory.mktemp("artifact") / "model.json")
    with service(["engine", "--artifact", str(artifact), "--port", "0"]) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def space(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    if request.param == "postgres":
        monkeypatch.setenv(LEDGER_URL, request.getfixturevalue("postgres_url"))
    return Workspace(tmp_path / "workspace")


@contextmanager
def executor(space: Workspace, engine: str) -> Iterator[Client]:
    """Run an executor that follows the ledger, with the engine as its champion."""
    options = ["--workspace", str(space.root), "--rollout", "--champion", engine, "--engine", engine, "--no-log"]
    with service(["executor", "--port", "0", *options]) as url:
        yield Client(url)


def put(space: Workspace, share: float) -> int:
    document = RolloutDocument(mode=Mode.GATED, share=share, plan="p", run="r#1")
    return publish(space.ledger, document, subject="r", provenance=Provenance.SYNTHETIC)[-1].seq


def test_executors_follow_and_acknowledge(space: Workspace, engine: str) -> None:
    """Nothing is served before the first document; then each is applied and shown, the last one by every executor."""
    with executor(space, engine) as first, executor(space, engine) as second:
        assert first.health() == {"ok": True, "service": "executor", "mode": "off", "share": 0.0, "sequence": 0}
        assert first.decide() == "baseline"
        for share, route in ((1.0, "champion"), (0.0, "baseline"), (1.0, "champion")):
            seq = put(space, share)
            for client in (first, second):
                client.wait_for(sequence=seq)
                assert [client.decide() for _ in range(20)] == [route] * 20
        page = first.get("/metrics").decode()
        assert f"\nml_rollout_sequence {seq}\n" in page
        assert "\nml_rollout_share 1\n" in page
    assert verify(space.ledger, space).ok


@contextmanager
def moved_away(space: Workspace) -> Iterator[None]:
    away = space.root.with_name("elsewhere")
    space.root.rename(away)
    yield
    away.rename(space.root)


@contextmanager
def crashed(server: PostgresServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    server.signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal_all(signal.SIGCONT)


FAULTS: dict[str, Callable[[Workspace, Any], Any]] = {
    "file-gone": lambda space, _: moved_away(space),
    "crashed": lambda _, server: crashed(server),
    "stopped": lambda _, server: stopped(server),
}


@pytest.mark.parametrize(
    ("space", "fault", "gone_s"),
    [("sqlite", "file-gone", 0.0), ("postgres", "crashed", 3.0), ("postgres", "stopped", 1.0)],
    indirect=["space"],
)
def test_database_gone(
    request: pytest.FixtureRequest, space: Workspace, engine: str, fault: str, gone_s: float
) -> None:
    """Without its database an executor goes on answering, serves share 0 once its lease lapsed, and then comes back."""
    server = None if fault == "file-gone" else request.getfixturevalue("postgres_server")
    with executor(space, engine) as client:
        seq = put(space, 1.0)
        client.wait_for(sequence=seq, share=1.0)
        with FAULTS[fault](space, server):
            client.wait_for(share=0.0)
            until = time.monotonic() + gone_s  # how long the fault lasts; nothing is asserted of it
            while True:
                assert client.decide() == "baseline"
                if time.monotonic() >= until:
                    break
                time.sleep(0.01)
        client.wait_for(share=1.0)
        assert client.decide() == "champion"
        client.wait_for(sequence=put(space, 0.0))
        assert client.decide() == "baseline"
    assert verify(space.ledger, space).ok


class Wire:
    """Carry bytes between an executor and the database until it is cut: then nothing arrives, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._target, self._open = port, threading.Event()
        self._open.set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def _accept(self) -> None:
        while True:
            with suppress(OSError):
                near, far = self._server.accept()[0], socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(65536):
                self._open.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def test_one_executor_cut_off(
    postgres_url: str, postgres_server: PostgresServer, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one behind the cut wire serves share 0 and misses what is published; the other goes on; then both agree."""
    wire = Wire(postgres_server.port)
    space = Workspace(tmp_path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(LEDGER_URL, postgres_url.replace(f":{postgres_server.port}/", f":{wire.port}/"))
        behind = executor(space, engine)
        cut_off = behind.__enter__()
    monkeypatch.setenv(LEDGER_URL, postgres_url)
    try:
        with executor(space, engine) as well:
            seq = put(space, 1.0)
            for client in (cut_off, well):
                client.wait_for(sequence=seq, share=1.0)
            wire.cut()
            cut_off.wait_for(share=0.0)
            newer = put(space, 0.75)
            well.wait_for(sequence=newer, share=0.75)
            for _ in range(50):
                assert cut_off.decide() == "baseline"
            assert cut_off.health()["sequence"] == seq
            wire.mend()
            cut_off.wait_for(sequence=newer, share=0.75)
    finally:
        behind.__exit__(None, None, None)


CONTROLLER = """
import sys, time
from pathlib import Path
from probatum.cli.workspace import Workspace
from probatum.core.errors import OvertakenError
from probatum.core.verdict import Provenance
from probatum.pipeline.control import publish
from probatum.rollout.lease import RolloutDocument

space = Workspace(Path(sys.argv[1]))
leadership, step = space.leadership(), 0
epoch = None
while True:
    try:
        if epoch is None:
            epoch = leadership.lead()
        else:
            # decides on the epoch of its last turn: the ledger must refuse when that is over
            document = RolloutDocument(share=0.0, run=f"{epoch}#{step}")
            publish(space.ledger, document, subject=sys.argv[2], provenance=Provenance.SYNTHETIC, epoch=epoch)
            step += 1
            epoch = leadership.lead()
    except OvertakenError:
        print("overtaken", flush=True)
        epoch = None
    time.sleep(0.02)
"""


def documents(space: Workspace) -> list[tuple[str, int]]:
    """Return (controller, epoch) of every document, in order."""
    found = [(r.subject, int(r.body["inputs"]["run"].split("#")[0])) for r in space.ledger.records(kind=KIND)]
    assert all(a[1] <= b[1] for a, b in pairwise(found)), "a deposed leader's document came after its successor's"
    return found


def is_locked(space: Workspace) -> bool:
    """Say whether somebody holds the write lock of a SQLite ledger."""
    with closing(sqlite3.connect(space.root / "ledger.db", timeout=0.5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_leader_gone(space: Workspace, fault: signal.Signals, request: pytest.FixtureRequest) -> None:
    """A second controller waits, takes over from a dead leader, and what a revived one still had to say is refused."""
    on_postgres = "postgres" in request.node.callspec.id
    running = {
        name: subprocess.Popen([sys.executable, "-c", CONTROLLER, str(space.root), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    }  # fmt: skip
    try:
        while not (found := documents(space)) or len(found) < 20:
            time.sleep(0.05)
        leader = found[0][0]
        assert set(found) == {(leader, 1)}
        other = "b" if leader == "a" else "a"
        os.kill(running[leader].pid, fault)
        while fault is signal.SIGSTOP and not on_postgres and is_locked(space):  # stopped in mid-append: let it finish
            os.kill(running[leader].pid, signal.SIGCONT)
            time.sleep(0.01)
            os.kill(running[leader].pid, fault)
        if on_postgres and fault is signal.SIGSTOP:  # its session lives on: an administrator ends it
            import psycopg

            with psycopg.connect(os.environ[LEDGER_URL], autocommit=True) as session:
                session.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        while (other, 2) not in documents(space):
            assert running[other].poll() is None
            time.sleep(0.05)
        if fault is signal.SIGSTOP and not on_postgres:
            os.kill(running[leader].pid, signal.SIGCONT)
            stdout = running[leader].stdout
            assert stdout is not None
            assert stdout.readline() in ("overtaken\n", "")
        count = len(documents(space))
        while len(documents(space)) < count + 10:
            time.sleep(0.05)
        assert [name for name, _ in groupby(name for name, _ in documents(space))] == [leader, other]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert verify(space.ledger, space).ok
