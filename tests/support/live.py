"""Run a live canary with real processes: engine, two executors, controllers, a ledger, and decisions that keep coming."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
from postgres import PostgresServer
from seed import write_seed_artifact

from probatum.cli.workspace import LEDGER_URL, Workspace
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline import control
from probatum.pipeline.ports import Record
from probatum.pipeline.rollout import KIND, Rollout
from probatum.pipeline.verify import verify
from probatum.rollout.choose import Mode
from probatum.rollout.events import DryRunDone, PreflightDone
from probatum.rollout.machine import State
from probatum.rollout.measurement import RateCriterion
from probatum.rollout.plan import Ladder, Plan, Policy
from probatum.rollout.policy import shipped_policy

COMMAND = [sys.executable, "-m", "probatum.cli.main"]
RATE_PER_S = 120.0
_NUMBERS = count()
LENIENT = msgspec.structs.replace(
    shipped_policy("default"), criteria=(RateCriterion("error_rate", "errors", "below", slo=0.3, abort=0.6),)
)
"""For tests of clocks, databases and commands: how fast a busy machine answers is another's business."""
SNAPSHOT = {"ts": 0, "mid": 42_000.0, "spreadBp": 1.0, "vol1m": 1e6, "rsi14": 55}


def schema(server: PostgresServer) -> str:
    """Return the URL of an empty schema."""
    name = f"live_{next(_NUMBERS)}"
    with psycopg.connect(server.url(), autocommit=True) as session:
        session.execute(f"CREATE SCHEMA {name}")
    return server.url(name)


class Service:
    """One `probatum` process that listens; it can be killed, stopped for a while, and ended."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=env)
        if arguments[0] in ("engine", "executor"):
            with suppress(
                PermissionError
            ):  # what answers decisions has a machine of its own elsewhere; here tests share it
                os.setpriority(os.PRIO_PROCESS, self.process.pid, -10)
        assert self.process.stderr is not None
        self.said: list[str] = []
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"on (http://127\.0\.0\.1:\d+)", line):
                self.url = found[1]
                break
        else:
            raise AssertionError(f"{arguments} ended: {self.said}")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return json.loads(reply.read())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        self.process.wait(timeout=60)


class StandIn:
    """An engine that misbehaves as told: ``answer(rows)`` gives status and body."""

    def __init__(self) -> None:
        self.answer: Callable[[int], tuple[int, str]] = good
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, text = outer.answer(len(body["rows"]))
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

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def good(rows: int) -> tuple[int, str]:
    return 200, json.dumps({"scores": [0.52] * rows, "version": "stand-in", "latency_ms": 0.1})


class Traffic:
    """Ask both executors for decisions at a steady rate until stopped; unless ``exposed`` every reply must be the baseline's."""

    def __init__(self, executors: Sequence[Service]) -> None:
        self.failures: list[object] = []
        self.exposed, self.by_champion = False, 0
        self._sent = 0
        self.on = threading.Event()
        self.on.set()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(item,), daemon=True) for item in executors]
        for thread in self._threads:
            thread.start()

    def _ask(self, executor: Service) -> None:
        connection = http.client.HTTPConnection(urlsplit(executor.url).netloc, timeout=60)
        due = time.monotonic()
        while not self._end.is_set():
            due = max(due + 2 / RATE_PER_S, time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))
            if not self.on.is_set():
                continue
            self._sent += 1
            body = {"snapshot": SNAPSHOT, "as_of": time.time_ns(), "session": str(self._sent % 200)}
            connection.request("POST", "/predict-with-shadow", json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            reply = json.loads(response.read())
            if self.exposed and (response.status, reply.get("route")) == (200, "champion"):
                self.by_champion += 1
            elif (response.status, reply.get("prediction"), reply.get("route")) != (200, 0.5, "baseline"):
                self.failures.append(reply)

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)
        assert not self.failures


class Stack:
    """What a live canary needs, on one ledger. Rollouts follow one another on it, each under its own name."""

    def __init__(self, root: Path, engine: Service | StandIn | None = None) -> None:
        self.space, self.environ = Workspace(root / "workspace"), dict(os.environ)
        self.space.ledger.head()  # opened by the address that stands in the environment now
        artifact = write_seed_artifact(root / "model.json")
        self.model = self.space.blobs.put("artifact", artifact.read_bytes())
        self.engine = engine or Service("engine", "--artifact", str(artifact), "--port", "0")
        url = self.engine.url
        options = ("--workspace", str(self.space.root), "--rollout", "--engine", url, "--champion", url, "--port", "0")
        with ThreadPoolExecutor(2) as pool:
            self.executors = list(pool.map(lambda _: Service("executor", *options, env=self.environ), range(2)))
        self.traffic = Traffic(self.executors)
        self.controllers: list[Service] = []

    def controller(self, prometheus: str | None = None, *more: str, **environ: str) -> Service:
        """Start a controller that scrapes, or reads Prometheus."""
        options = ["--prometheus", prometheus] if prometheus else [
            *(part for item in self.executors for part in ("--executor", item.url)), "--engine", self.engine.url,
        ]  # fmt: skip
        place = ("--workspace", str(self.space.root), "--port", "0")
        found = Service("controller", *place, *options, *more, env=self.environ | environ)
        self.controllers.append(found)
        return found

    def prepare(self, name: str, ladder: Ladder, policy: Policy | None = None, units: int | None = None) -> Rollout:
        """Open a rollout that awaits its confirmation; what precedes is another test's business. With units: an exposure."""
        policy = msgspec.structs.replace(policy or shipped_policy("default"), canary=ladder, exposure=ladder)
        mode = Mode.GATED if units else Mode.OBSERVE
        plan = Plan(name=name, mode=mode, policy=policy, model=self.model, rate_per_s=RATE_PER_S, units=units)
        rollout = Rollout(self.space.ledger, self.space, name, controls=True)
        now = time.time_ns()
        rollout.open(plan, now)
        rollout.apply(PreflightDone(now, Verdict.PASS, "e" * 64, Provenance.SYNTHETIC))
        rollout.apply(DryRunDone(now, Verdict.PASS, "d" * 64, plan.digest, now))
        return rollout

    def start(self, name: str) -> None:
        """Confirm by the command line, with the phrase that it asks for."""
        asked = self.command("start", name, "-o", "json", code=5)
        self.command("start", name, "--approver", "demo", "--phrase", json.loads(asked)["phrase"])

    def command(self, verb: str, name: str, *options: str, code: int = 0) -> str:
        return self.run("canary", verb, name, *options, code=code)

    def run(self, *words: str, code: int = 0) -> str:
        """Run any command on the workspace and return what it printed."""
        command = [*COMMAND, *words, "--workspace", str(self.space.root)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environ)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout

    def wait(self, rollout: Rollout, wanted: Callable[[State], bool], seconds: float = 90.0) -> State:
        """Follow the ledger until the state is so."""
        for _ in range(int(seconds / 0.05)):
            with suppress(Exception):  # a database that is being restarted answers later
                rollout.refresh()
            if wanted(rollout.state):
                return rollout.state
            time.sleep(0.05)
        raise AssertionError(
            (rollout.state, [item.get("/status") for item in self.controllers if item.process.poll() is None])
        )

    def wait_for_record(self, kind: str, name: str) -> Record:
        """Return the newest record, once there is one."""
        for _ in range(600):
            found = [r for r in self.space.ledger.records(kind=kind) if r.body["inputs"]["rollout"] == name]
            if found:
                return found[-1]
            time.sleep(0.05)
        raise AssertionError((kind, name, [item.said for item in self.controllers]))

    def shares(self) -> list[float]:
        return [item.get("/health")["share"] for item in self.executors]

    def check(self, name: str) -> None:
        """Hold the rollout's records to what no history may show, and the chain to itself."""
        records = list(self.space.ledger.records(kind=KIND, subject=name))
        states = [record.body["figures"]["state"] for record in records]
        links = [record.body["inputs"]["previous"] for record in records]
        assert [link["seq"] for link in links if link] == [record.seq for record in records[:-1]]
        phases = [state["phase"] for state in states]
        assert all(after - before in (0, 1) for before, after in pairwise(phases)), phases
        given = [
            record.body["inputs"]["share"] for record in self.space.ledger.records(kind=control.KIND, subject=name)
        ]
        steps = [step / 100 for step in Rollout(self.space.ledger, self.space, name).plan.ladder.shares_percent]
        rising = [share for share in given if share]
        assert rising == steps[: len(rising)], given  # each share once, in order
        assert given == [*rising, *[0.0] * (len(given) - len(rising))], given  # and nothing after 0

    def verify(self) -> None:
        """Recompute every figure in the ledger."""
        found = verify(self.space.ledger, self.space)
        assert found.ok, found.findings

    def stop(self) -> None:
        self.traffic.stop()
        for item in (*self.controllers, *self.executors, self.engine):
            item.stop()


@contextmanager
def stack(root: Path, ledger_url: str | None, engine: StandIn | None = None) -> Iterator[Stack]:
    """Yield running processes on a PostgreSQL ledger (None: the workspace's own), and end them whatever happens."""
    before = os.environ.pop(LEDGER_URL, None)
    if ledger_url:
        os.environ[LEDGER_URL] = ledger_url
    try:
        found = Stack(root, engine)
        try:
            yield found
        finally:
            found.stop()
    finally:
        os.environ.pop(LEDGER_URL, None)
        if before is not None:
            os.environ[LEDGER_URL] = before


def quick(*steps: int, **options: int) -> Ladder:
    return Ladder(
        steps, **{"phase_s": 2, "poll_s": 1, "stale_s": 5, "hold_factor": 100, "source_deadline_s": 60, **options}
    )


@contextmanager
def watched(live: Stack) -> Iterator[None]:
    """Hold every share that an executor shows to the document whose number it shows with it."""
    end, seen = threading.Event(), []

    def look() -> None:
        while not end.is_set():
            for item in live.executors:
                with suppress(OSError):  # a stopped one does not answer
                    health = item.get("/health")
                    seen.append((health["sequence"], health["share"]))
            time.sleep(0.05)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield
    end.set()
    thread.join(30)
    given = {record.seq: record.body["inputs"]["share"] for record in live.space.ledger.records(kind=control.KIND)}
    assert seen
    assert all(share <= given.get(sequence, 0.0) for sequence, share in seen)


def judged(count: int) -> Callable[[State], bool]:
    return lambda state: "errors" in state.streams and state.streams["errors"].n > count


def until_role(controller: Service, role: str) -> None:
    while controller.get("/status")["role"] != role:
        time.sleep(0.05)
