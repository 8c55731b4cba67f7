"""`probatum engine` over a real workspace."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from probatum.adapters.blobs import FileBlobs
from probatum.adapters.ledger import SqliteLedger
from probatum.cli.main import cli
from probatum.core.canonical import sha256_hex
from probatum.core.clock import SystemClock
from probatum.pipeline.registry import move_alias

# Prints the names of all modules when the command has ended.
COMMAND = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), flush=True))
from probatum.cli.main import main
main()
"""


class Workspace:
    """A workspace of blobs and ledger only."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs, self.ledger = FileBlobs(root / "blobs"), SqliteLedger(root / "ledger.db", SystemClock())
        self.datasets: Any = None

    def point(self, alias: str, artifact: Any) -> None:
        digest = self.blobs.put("artifact", artifact.to_bytes())
        move_alias(self.ledger, self, alias, digest)


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, "engine", "--port", "0", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def served(*arguments: str) -> Iterator[SimpleNamespace]:
    """Run the command until the block ends, then drain it."""
    process = start(*arguments)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "http://" in line, line + process.stderr.read()
    port = int(line.rpartition(":")[2])

    def ask(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        client = HTTPConnection("127.0.0.1", port, timeout=30)
        client.request(method, path, json.dumps(body), {"Content-Type": "application/json", **headers})
        reply = client.getresponse()
        raw = reply.read()
        client.close()
        return reply.status, json.loads(raw) if reply.getheader("content-type") == "application/json" else raw

    engine = SimpleNamespace(process=process, ask=ask, port=port)
    try:
        yield engine
    finally:
        if process.poll() is None:
            process.terminate()
        engine.output = process.communicate(timeout=60)[0]


def ended(*arguments: str) -> tuple[int, str]:
    """Run a command that must fail and return its exit code and message."""
    process = start(*arguments)
    _, message = process.communicate(timeout=60)
    return process.returncode, message


def test_the_seeds_request_over_a_workspace_and_back_to_previous(kit: SimpleNamespace, tmp_path: Path):
    """The champion is served; SIGHUP follows the alias; `previous` is loaded from the start and flips back at once."""
    space = Workspace(tmp_path)
    space.point("champion", kit.logistic_artifact())
    space.point("champion", kit.seed_artifact())
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({sha256_hex(b"tok"): "operate"}))
    snapshot = {"ts": 1, "mid": 45_000, "spreadBp": 2, "vol1m": 1e6, "rsi14": 55}
    with served("-w", str(tmp_path), "--tokens", str(tokens)) as engine:
        status, reply = engine.ask("POST", "/ml/predict", {"symbol": "BTCUSDT", "snapshot": snapshot})
        assert (status, reply["version"]) == (200, "v1.8-b0")
        info = engine.ask("GET", "/ml/model/info")[1]
        assert (info["alias"], info["previous"]) == ("champion", kit.logistic_artifact().digest)
        (tmp_path / "blobs").rename(tmp_path / "away")  # the flip back needs nothing from the disk
        headers = {"Authorization": "Bearer tok"}
        assert engine.ask("POST", "/ml/model/swap", {"to": "previous"}, **headers)[1]["version"] == "m1"
        (tmp_path / "away").rename(tmp_path / "blobs")
        space.point("champion", kit.logistic_artifact("m3"))
        engine.process.send_signal(signal.SIGHUP)
        while engine.ask("GET", "/ml/model/info")[1]["version"] == "m1":
            continue
        assert engine.ask("GET", "/ml/model/info")[1]["version"] == "m3"
    assert engine.process.returncode == 0


def test_the_engine_process_is_small_and_imports_nothing_heavy(kit: SimpleNamespace, tmp_path: Path):
    """No numba, scikit-learn, LightGBM, polars, scipy or numpy in the process after it has served; at most 90 MB."""
    Workspace(tmp_path).point("champion", kit.logistic_artifact())
    with served("-w", str(tmp_path)) as engine:
        for method, path in (("POST", "/ml/predict"), ("GET", "/ml/metrics"), ("GET", "/openapi.json")):
            assert engine.ask(method, path, {"features": [0.1] * 7})[0] == 200
        pages = int(Path(f"/proc/{engine.process.pid}/statm").read_text().split()[1])
    modules = json.loads(engine.output)
    assert "probatum.services.engine.app" in modules
    assert {"numba", "sklearn", "lightgbm", "polars", "scipy", "numpy", "pandas"}.isdisjoint(modules)
    assert pages * os.sysconf("SC_PAGE_SIZE") <= 90e6


def test_what_cannot_be_served_is_one_message_and_an_exit_code(kit: SimpleNamespace, tmp_path: Path):
    """No model, a damaged one, a taken port, a broken token file: said in one line, never a stack trace."""
    space = Workspace(tmp_path)
    code, message = ended("-w", str(tmp_path))
    assert (code, "champion" in message) == (2, True)
    space.point("champion", kit.logistic_artifact())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, message = ended("-w", str(tmp_path), "--port", str(taken.getsockname()[1]))
    assert (code, "127.0.0.1" in message) == (2, True)
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"secret": "operate"}')
    code, message = ended("-w", str(tmp_path), "--tokens", str(tokens))
    assert (code, str(tokens) in message) == (2, True)
    path = next((tmp_path / "blobs" / "artifact").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    code, message = ended("-w", str(tmp_path))
    assert (code, path.name in message) == (1, True)
    code, message = ended("--artifact", str(path))
    assert (code, "not an artifact" in message) == (1, True)
    assert "Traceback" not in message


def test_a_file_is_served_under_no_alias_but_the_one_it_is_given(kit: SimpleNamespace, tmp_path: Path):
    """Nobody promoted a file: neither info nor metrics call it champion, and SIGHUP reads it again."""
    path = tmp_path / "model.json"
    path.write_bytes(kit.seed_artifact().to_bytes())
    with served("--artifact", str(path)) as engine:
        assert engine.ask("GET", "/ml/model/info")[1]["alias"] == ""
        assert b'alias=""' in engine.ask("GET", "/ml/metrics")[1]
        path.write_bytes(kit.logistic_artifact().to_bytes())
        engine.process.send_signal(signal.SIGHUP)
        while engine.ask("GET", "/ml/model/info")[1]["version"] != "m1":
            continue
    with served("--artifact", str(path), "--model", "trial") as engine:
        assert engine.ask("GET", "/ml/model/info")[1]["alias"] == "trial"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("engine", ["--as-of-age", "nan"]),
        ("engine", ["--as-of-age", "inf"]),
        ("engine", ["--as-of-age", "1e12"]),
        ("executor", ["--stale-s", "inf"]),
        ("executor", ["--stale-s", "nan"]),
        ("executor", ["--share", "nan"]),
        ("smoke", ["--rate", "nan"]),
    ],
)
def test_a_number_that_is_none_is_a_usage_error(command: str, option: list[str]):
    """NaN and infinity pass click's own comparisons; here they are usage errors, not tracebacks."""
    result = CliRunner().invoke(cli, [command, *option])
    assert (result.exit_code, "Invalid value for '" + option[0] in result.output) == (2, True)


@pytest.mark.parametrize("role", ["owner", 5])
def test_a_token_file_with_an_unknown_role_is_refused(tmp_path: Path, role: Any):
    """The message names the file and lists the roles, or says what it is that is not a text."""
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"0" * 64: role}))
    code, message = ended("-w", str(tmp_path), "--tokens", str(tokens))
    assert (code, str(tokens) in message) == (2, True)


def test_the_requests_in_the_docs_are_answered(kit: SimpleNamespace):
    """Each JSON request of docs/how-to/serve.md gets a score from the seed's model."""
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    bodies = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    app, _ = kit.application()
    replies = [kit.call(app, "POST", "/ml/predict", body.encode()) for body in bodies]
    assert [reply.status for reply in replies] == [200] * 4
