"""Publish in a real MLflow server and read back: the same bytes under the same aliases, and nothing else is believed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from probatum.adapters.mlflow import DIGEST, FILE, FOLDER, MlflowRegistry, _client
from probatum.cli.engine import workspace_source
from probatum.cli.main import cli
from probatum.cli.workspace import Workspace
from probatum.core.errors import IntegrityError, ParameterError, ProbatumError
from probatum.pipeline.registry import move_alias
from probatum.pipeline.training import TrainingPlan, train
from probatum.testing.models import toy_dataset


class Server:
    """`mlflow server` on a free port of loopback, with SQLite and files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.artifacts = folder / "artifacts"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                   "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(self.artifacts)]  # fmt: skip
        with (folder / "log").open("wb") as log:
            # a registry needs no job runners: they are seven more processes that poll
            environment = os.environ | {
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            }
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        for _ in range(2400):  # it imports for half a minute where much else runs
            assert self._process.poll() is None, (folder / "log").read_text()
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2):
                return
            time.sleep(0.1)
        raise AssertionError((folder / "log").read_text())

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the server's workers are in its session
        self._process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("mlflow"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with two models; the first is champion."""
    found = Workspace(tmp_path_factory.mktemp("workspace"))
    found.datasets.save(toy_dataset(days=3))
    for name in ("one", "two"):
        plan = TrainingPlan(symbols=("TOY",), set="v1.8-b0", target="direction@60s", model="fixed", name=name)
        train(found.ledger, found, plan)
    move_alias(found.ledger, found, "champion", digest_of(found, "one"))
    return found


def digest_of(space: Workspace, name: str) -> str:
    found: str = list(space.ledger.records(kind="train", subject=name))[-1].body["figures"]["artifact"]
    return found


def call(space: Workspace, *arguments: str) -> Any:
    result = CliRunner().invoke(cli, ["models", *arguments, "-o", "json", "-w", str(space.root)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def test_a_model_comes_back_as_it_was_under_its_alias(server: Server, space: Workspace, tmp_path: Path) -> None:
    """Publish, fetch into an empty workspace: the same bytes, which an engine there finds by digest; nothing is a pickle."""
    done = call(space, "publish", "champion", "--mlflow", server.url, "--as", "trip")
    assert done == {"name": "trip", "version": "1", "digest": digest_of(space, "one"), "aliases": {"champion": "1"}}
    there = Workspace(tmp_path)
    assert call(there, "fetch", "trip@champion", "--mlflow", server.url)["digest"] == done["digest"]
    assert call(there, "fetch", "trip/1", "--mlflow", server.url)["digest"] == done["digest"]
    data = space.blobs.get("artifact", done["digest"])
    assert workspace_source(tmp_path)(done["digest"]) == (done["digest"], data)
    mlflow = _client.MlflowClient(server.url, server.url)
    run = mlflow.get_model_version("trip", "1").run_id
    assert {item.path for item in mlflow.list_artifacts(run, FOLDER)} == {f"{FOLDER}/{FILE}", f"{FOLDER}/MLmodel"}
    assert mlflow.get_run(run).data.metrics == {
        name: pytest.approx(value) for name, value in call(space, "show", "one")["metrics"].items()
    }


def test_aliases_there_follow_those_here(server: Server, space: Workspace) -> None:
    """The same bytes are one version; when champion moves, previous follows, and an alias of an unpublished model is taken off."""
    registry, one, two = MlflowRegistry(server.url), digest_of(space, "one"), digest_of(space, "two")
    data = {digest: space.blobs.get("artifact", digest) for digest in (one, two)}
    assert registry.publish(data[one], {"champion": one}, "moves").version == "1"
    assert registry.publish(data[one], {"champion": one}, "moves").version == "1"
    assert registry.publish(data[two], {"champion": two, "previous": one}, "moves").aliases == {
        "champion": "2", "previous": "1",
    }  # fmt: skip
    assert (registry.fetch("moves@champion")[0], registry.fetch("moves@previous")[0]) == (two, one)
    assert registry.publish(data[one], {"champion": "f" * 64}, "moves").aliases == {}
    with pytest.raises(ProbatumError, match="champion"):
        registry.fetch("moves@champion")


def test_changed_bytes_are_refused(server: Server, space: Workspace) -> None:
    """One byte changed in MLflow's own store is found by the digest, and the reference is named."""
    registry, one = MlflowRegistry(server.url), digest_of(space, "one")
    registry.publish(space.blobs.get("artifact", one), {}, "changed")
    run = _client.MlflowClient(server.url, server.url).get_model_version("changed", "1").run_id
    stored = next(path for path in server.artifacts.rglob(FILE) if run in path.parts)
    stored.write_bytes(stored.read_bytes().replace(b'"seed":7', b'"seed":8'))
    with pytest.raises(IntegrityError, match=r"changed/1: digest is .*the record says"):
        registry.fetch("changed/1")
    stored.unlink()
    with pytest.raises(ProbatumError, match="MLflow: changed/1"):
        registry.fetch("changed/1")


def test_a_strangers_model_is_refused(server: Server, tmp_path: Path) -> None:
    """A version without a digest, or with one of bytes that are no artifact, is not taken."""
    mlflow = _client.MlflowClient(server.url, server.url)
    run = mlflow.create_run("0")
    (tmp_path / FILE).write_bytes(b"\x80\x04pickle")
    mlflow.log_artifact(run.info.run_id, str(tmp_path / FILE), FOLDER)
    mlflow.create_registered_model("strange")
    source, digest = f"{run.info.artifact_uri}/{FOLDER}", "f3" * 32
    mlflow.create_model_version("strange", source, run.info.run_id)
    mlflow.create_model_version("strange", source, run.info.run_id, tags={DIGEST: digest})
    for version, problem in (("1", "it has no digest"), ("2", "digest is")):
        with pytest.raises(IntegrityError, match=problem):
            MlflowRegistry(server.url).fetch(f"strange/{version}")


@pytest.mark.parametrize(
    ("url", "reference", "error", "message"),
    [
        ("file:///tmp/x", "m@champion", ParameterError, "http or https URL"),
        ("http://", "m@champion", ParameterError, "http or https URL"),
        ("", "m", ParameterError, "NAME@ALIAS or NAME/VERSION"),
        ("", "@champion", ParameterError, "NAME@ALIAS or NAME/VERSION"),
        ("", "nobody@champion", ProbatumError, r"MLflow: nobody@champion: .*not found"),
        ("http://127.0.0.1:1", "m@champion", ProbatumError, "MLflow: m@champion"),
    ],
)
def test_mistakes_are_told_in_words(
    server: Server, tmp_path: Path, url: str, reference: str, error: type[Exception], message: str
) -> None:
    """A wrong URL, reference or name, and a server that is not there, end in one line."""
    with pytest.raises(error, match=message):
        call(Workspace(tmp_path), "fetch", reference, "--mlflow", url or server.url)


def test_a_name_that_mlflow_refuses_is_told(server: Server, space: Workspace) -> None:
    """MLflow's own word on a name is passed on."""
    with pytest.raises(ProbatumError, match=r"MLflow: a/b: .*Names cannot contain"):
        call(space, "publish", "one", "--mlflow", server.url, "--as", "a/b")
