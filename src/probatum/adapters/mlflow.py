"""Publish artifacts in an MLflow model registry and read them back. The artifact's own bytes travel; nothing is pickled."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from probatum.core.canonical import canonical_json, sha256_hex
from probatum.core.errors import IntegrityError, MissingExtraError, ParameterError, ProbatumError
from probatum.models.artifact import Artifact, parse_artifact
from probatum.pipeline.registry import ALIASES

# Read when MLflow is imported: it would report its use to its makers, and try a server that is not there for minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
try:
    _client: Any = import_module("mlflow.tracking.client")
    _exceptions: Any = import_module("mlflow.exceptions")
except ImportError as error:
    raise MissingExtraError("mlflow", f"MLflow cannot be imported ({error})") from None

EXPERIMENT = "probatum"
DIGEST = "probatum.digest"
FILE = "artifact.json"
FOLDER = "model"


class Published(msgspec.Struct, frozen=True):
    """Name a version in the registry, the artifact in it, and which aliases stand where after publishing."""

    name: str
    version: str
    digest: str
    aliases: dict[str, str]


class MlflowRegistry:
    """One MLflow server, named by its http or https URL."""

    def __init__(self, url: str) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ParameterError("mlflow", "the http or https URL of an MLflow server", url)
        self._mlflow = _client.MlflowClient(url, url)

    def publish(self, data: bytes, aliases: Mapping[str, str], name: str = "") -> Published:
        """Register an artifact's bytes under ``name`` (its own when left out), and let our aliases point where they do here.

        ``aliases`` is {alias: digest}. Publishing the same bytes again makes no new version. An alias whose model is
        not in the registry is taken off there: better none than another model.
        """
        artifact, digest = parse_artifact(data, expected_digest=None, place="artifact"), sha256_hex(data)
        name = name or artifact.name
        with _told(name):
            with suppress(_exceptions.MlflowException):  # it is there already, or the next call says what is wrong
                self._mlflow.create_registered_model(name)
            self._mlflow.get_registered_model(name)
            if digest not in self._versions(name):
                self._register(name, artifact, data, digest)
            where = self._move(name, aliases)
            return Published(name, self._versions(name)[digest], digest, where)

    def fetch(self, reference: str) -> tuple[str, bytes]:
        """Return (digest, bytes) of NAME@ALIAS or NAME/VERSION, verified against the digest it was published with.

        Raises IntegrityError when the bytes are others, or the version is not one that was published from here.
        """
        name, at, alias = reference.rpartition("@")
        if not at:
            name, _, alias = reference.rpartition("/")
        if not (name and alias):
            raise ParameterError("model", "NAME@ALIAS or NAME/VERSION", reference)
        with _told(reference):
            find = self._mlflow.get_model_version_by_alias if at else self._mlflow.get_model_version
            found = find(name, alias)
            digest = found.tags.get(DIGEST)
            if not (digest and found.run_id):
                raise IntegrityError(reference, "not an artifact that probatum published: it has no digest")
            data = self._download(found.run_id)
        parse_artifact(data, expected_digest=digest, place=reference)
        return digest, data

    def _versions(self, name: str) -> dict[str, str]:
        """Return {digest: version} of what was published under a name, the newest where a digest was twice."""
        found = self._mlflow.search_model_versions(f"name = '{name}'")
        in_order = sorted(found, key=lambda item: int(item.version))
        return {item.tags[DIGEST]: str(item.version) for item in in_order if DIGEST in item.tags}

    def _register(self, name: str, artifact: Artifact, data: bytes, digest: str) -> None:
        experiment = self._mlflow.get_experiment_by_name(EXPERIMENT)
        place = experiment.experiment_id if experiment else self._mlflow.create_experiment(EXPERIMENT)
        tags = {
            DIGEST: digest,
            "probatum.target": artifact.target,
            "probatum.provenance": artifact.data.provenance.value,
        }
        run = self._mlflow.create_run(place, run_name=name, tags=tags)
        for metric, value in artifact.metrics.items():
            self._mlflow.log_metric(run.info.run_id, metric, value)
        flavors = {"probatum": {"artifact": FILE, "digest": digest, "features": artifact.features.fingerprint}}
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / FILE).write_bytes(data)
            (Path(folder) / "MLmodel").write_bytes(canonical_json({"flavors": flavors, "run_id": run.info.run_id}))
            self._mlflow.log_artifacts(run.info.run_id, folder, FOLDER)
        self._mlflow.set_terminated(run.info.run_id)
        source = f"{run.info.artifact_uri}/{FOLDER}"
        self._mlflow.create_model_version(name, source, run.info.run_id, tags=tags, await_creation_for=0)

    def _move(self, name: str, aliases: Mapping[str, str]) -> dict[str, str]:
        versions, there = self._versions(name), self._mlflow.get_registered_model(name).aliases
        where = {alias: versions[aliases[alias]] for alias in ALIASES if aliases.get(alias) in versions}
        for alias in ALIASES:
            if alias in where:
                self._mlflow.set_registered_model_alias(name, alias, where[alias])
            elif alias in there:
                self._mlflow.delete_registered_model_alias(name, alias)
        return where

    def _download(self, run_id: str) -> bytes:
        """Read the file through the run: a version's own source could name any place, on this machine too."""
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._mlflow.download_artifacts(run_id, f"{FOLDER}/{FILE}", folder)).read_bytes()


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except _exceptions.MlflowException as error:
        raise ProbatumError(f"MLflow: {what}: {error.message}") from None
    except OSError as error:  # requests' errors are among them
        raise ProbatumError(f"MLflow: {what}: {error}") from None
