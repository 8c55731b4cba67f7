"""Build small artifacts by hand, call the application in process, and run the engine as the process it is."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from probatum.core.canonical import sha256_hex
from probatum.core.clock import VirtualClock
from probatum.core.errors import UnknownNameError
from probatum.core.verdict import Provenance
from probatum.features.sets import get_feature_set
from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, FixedModel, LogisticModel, ReferenceBins
from probatum.services.auth import Role, Tokens
from probatum.services.engine.server import Engine, EngineSettings

SEED_WEIGHTS = (-3.0, 0.0004, -0.02, 0.00003, 0.01, 0.0002)
NOW_NS = 1_704_067_200_000_000_000
TOKENS = {"operator": "operate", "viewer": "view"}

# The engine as a process, over a folder of <alias>.json files: `previous.json` beside `champion.json` and so on.
RUNNER = """
import json, sys
from pathlib import Path
from probatum.core.canonical import sha256_hex
from probatum.core.clock import SystemClock
from probatum.core.errors import UnknownNameError
from probatum.services import http
from probatum.services.auth import Role, Tokens
from probatum.services.engine.server import Engine, EngineSettings
from probatum.services.fleet import bind, url_of

folder, model, workers, slow_s, tokens = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
http.SLOW_S = slow_s

def load(reference):
    for path in sorted(folder.glob("*.json")):
        data = path.read_bytes()
        if reference in (path.stem, sha256_hex(data)):
            return sha256_hex(data), data
    raise UnknownNameError("model", reference, [path.stem for path in folder.glob("*.json")])

roles = {sha256_hex(token.encode()): Role[role.upper()] for token, role in json.loads(tokens).items()}
engine = Engine(EngineSettings(model=model, workers=workers), load, Tokens(roles), SystemClock())
sock = bind("127.0.0.1", 0)
print(url_of(sock), flush=True)
sys.exit(engine.run(sock))
"""


def _artifact(name: str, set_name: str, model: LogisticModel | FixedModel) -> Artifact:
    feature_set = get_feature_set(set_name)
    bins = ReferenceBins((-1.0, 0.0, 1.0), (10, 10, 10, 10), 0, 20, ((5, 5, 5, 5, 0), (5, 5, 5, 5, 0)))
    return Artifact(
        name=name,
        model=model,
        features=FeatureSpec(set_name, feature_set.names, feature_set.fingerprint),
        target="direction@60s",
        grid_ns=None,
        reference=dict.fromkeys(feature_set.names, bins),
        data=DataSpec(("TEST",), ("0" * 64,), Provenance.SYNTHETIC, 40, "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"),
        split={"train": 0.6},
        seed=7,
        versions={},
        metrics={},
    )


def seed_artifact() -> Artifact:
    """Return the seed's v1.8-b0."""
    return _artifact("v1.8-b0", "v1.8-b0", FixedModel(SEED_WEIGHTS))


def logistic_artifact(name: str = "m1", set_name: str = "v1.8.1", intercept: float = 0.1) -> Artifact:
    """Return a logistic model; on zeros its score is sigmoid(intercept)."""
    count = len(get_feature_set(set_name).names)
    weights = tuple(0.05 * (i + 1) for i in range(count))
    zeros, ones = (0.0,) * count, (1.0,) * count
    return _artifact(name, set_name, LogisticModel(intercept, weights, (-5.0,) * count, (5.0,) * count, zeros, ones))


def with_features(artifact: Artifact, **changes: Any) -> Artifact:
    """Return the artifact with another feature spec."""
    return msgspec.structs.replace(artifact, features=msgspec.structs.replace(artifact.features, **changes))


def loader(aliases: Mapping[str, Artifact]) -> Callable[[str], tuple[str, bytes]]:
    """Return a loader that knows these aliases, and the digests of their artifacts."""

    def load(reference: str) -> tuple[str, bytes]:
        for alias, artifact in aliases.items():
            if reference in (alias, artifact.digest):
                return artifact.digest, artifact.to_bytes()
        raise UnknownNameError("model", reference, aliases)

    return load


def application(artifact: Artifact | None = None, **aliases: Artifact) -> Any:
    """Return (app, swapper) of an engine that serves the artifact as champion at NOW_NS."""
    tokens = Tokens({sha256_hex(token.encode()): Role[role.upper()] for token, role in TOKENS.items()})
    known = {"champion": artifact or seed_artifact(), **aliases}
    return Engine(EngineSettings(model="champion"), loader(known), tokens, VirtualClock(NOW_NS)).application()


def call(app: Any, method: str, path: str, body: bytes = b"", **headers: str) -> SimpleNamespace:
    """Send one request to an ASGI application and return status, headers and body."""
    return asyncio.run(exchange(app, method, path, [body], headers or {"content-type": "application/json"}))


async def exchange(
    app: Any, method: str, path: str, parts: list[bytes], headers: Mapping[str, str], leave: bool = False
) -> SimpleNamespace:
    """Send a request in parts; with ``leave`` the client disconnects after the last of them."""
    raw = [(k.lower().replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": raw,
        "server": ("test", 80), "client": ("test", 1), "state": {},
    }  # fmt: skip
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = leave
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return SimpleNamespace(status=None, headers={}, body=b"")
    return SimpleNamespace(
        status=sent[0]["status"],
        headers={k.decode(): v.decode("latin-1") for k, v in sent[0]["headers"]},
        body=b"".join(message.get("body", b"") for message in sent[1:]),
    )


class Running:
    """An engine process and the simplest of clients."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self.host, self.port = urlsplit(url).hostname or "", urlsplit(url).port or 0

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=30)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Send one request over a connection of its own; return status and decoded body."""
        connection = self.connect()
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json", **headers})
        reply = connection.getresponse()
        raw = reply.read()
        connection.close()
        json_like = reply.getheader("content-type", "").startswith("application/json")
        return reply.status, json.loads(raw) if json_like else raw

    def metric(self, line: str) -> float:
        """Return the value of one series, written as the exposition writes it."""
        text = self.ask("GET", "/ml/metrics")[1].decode()
        return float(next(x.rpartition(" ")[2] for x in text.splitlines() if x.startswith(line + " ")))

    def workers(self) -> list[int]:
        """Return the process ids of the forked workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def rss_mb(self, pid: int | None = None) -> float:
        statm = Path(f"/proc/{pid or self.process.pid}/statm").read_text()
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; the test fails when it never is."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "never came true"
            time.sleep(0.02)


@contextmanager
def running(
    folder: Path, aliases: Mapping[str, Artifact], *, model: str = "champion", workers: int = 1, slow_s: float = 10.0
) -> Iterator[Running]:
    """Run the engine over a folder of artifacts."""
    for alias, artifact in aliases.items():
        (folder / f"{alias}.json").write_bytes(artifact.to_bytes())
    command = [sys.executable, "-c", RUNNER, str(folder), model, str(workers), str(slow_s), json.dumps(TOKENS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        engine = Running(process, process.stdout.readline().strip())
        engine.wait(lambda: _answers(engine, workers))
        yield engine
    finally:
        process.send_signal(signal.SIGKILL if process.poll() is None and workers == 1 else signal.SIGTERM)
        process.wait(timeout=60)
        process.stdout.close()


def _answers(engine: Running, workers: int) -> bool:
    try:
        return engine.metric("ml_engine_workers") == workers
    except OSError:
        return False


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Return the helpers of this folder."""
    names = (
        "seed_artifact", "logistic_artifact", "with_features", "loader", "application", "call", "exchange", "running",
        "NOW_NS", "SEED_WEIGHTS",
    )  # fmt: skip
    return SimpleNamespace(**{name: globals()[name] for name in names})
