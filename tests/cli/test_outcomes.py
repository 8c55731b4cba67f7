"""The commands outcomes and skew: what they print, their exit codes, and what they say to a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result
from decisions import forged, replay

from probatum.cli.main import cli
from probatum.cli.workspace import Workspace
from probatum.core.clock import NS_PER_DAY
from probatum.core.errors import InconclusiveError, ParameterError, UnknownNameError
from probatum.pipeline.registry import artifact_of


def call(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "-w", str(root)])


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace with a synthetic market, a model, and two days of its decisions."""
    root = tmp_path_factory.mktemp("space")
    for command in (
        ["data", "synth", "--symbol", "SYN", "--days", "10"],
        ["train", "SYN", "--set", "robust", "--grid", "1m", "--name", "m"],
    ):
        result = call(root, *command)
        assert result.exit_code == 0, result.output
    place = Workspace(root)
    dataset = place.datasets.load("SYN")
    first = int(dataset.frames[dataset.spine]["ts_event"][0])
    artifact = artifact_of(place, place.ledger.records(), "m")[1]
    replay(artifact, dataset.between(0, first + 2 * NS_PER_DAY), root / "decisions", grid_ns=artifact.grid_ns)
    return root


def test_outcomes_prints_one_record(space: Path) -> None:
    """JSON is the record's figures, the exit code its verdict's; the table names both scorers and what was not joined."""
    result = call(space, "outcomes", "m", "-o", "json")
    found = json.loads(result.stdout)
    assert result.exit_code == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[found["verdict"]]
    assert found["joined"] > 1_000
    written = json.loads((space / "evidence" / "ml" / "outcomes.json").read_text())
    assert written["losses"] == found["losses"]
    text = call(space, "outcomes", "m").stdout
    assert all(word in text for word in ("model", "baseline", "not joined", "SYNTHETIC"))


def test_skew_proves_and_names(space: Path, tmp_path: Path) -> None:
    """All equal is exit 0; one altered value is exit 1, and the sentence holds symbol, feature and both values."""
    result = call(space, "skew", "--grid", "1m")
    assert result.exit_code == 0, result.output
    frame = Workspace(space).decisions.read(0, 1 << 62)
    value = frame["f_tod_sin"][10]
    said = {"fingerprint": frame["fingerprint"][0]}
    forged(frame, 10, "f_tod_sin", 0.125).drop("fingerprint", "provenance").write_parquet(
        tmp_path / "decisions-x.parquet", metadata=said
    )
    result = call(space, "skew", "--grid", "1m", "--log", str(tmp_path))
    assert result.exit_code == 1
    assert all(word in " ".join(result.stdout.split()) for word in ("SYN at", "tod_sin", "logged 0.125", repr(value)))
    nameless = frame.with_columns(symbol=pl.lit("")).drop("fingerprint", "provenance")
    nameless.write_parquet(tmp_path / "decisions-x.parquet", metadata=said)
    for command in (["skew"], ["outcomes", "m"]):
        assert isinstance(call(space, *command, "--log", str(tmp_path)).exception, InconclusiveError)
    assert call(space, "skew", "--log", str(tmp_path), "--dataset", "SYN", "--grid", "1m").exit_code == 0
    few = call(space, "skew", "--until", "1970-01-02T00:00:00Z")
    assert isinstance(few.exception, InconclusiveError)


@pytest.mark.parametrize("command", [["skew"], ["outcomes", "m"]], ids=["skew", "outcomes"])
def test_mistakes_are_named(space: Path, command: list[str]) -> None:
    """A time without a zone, an end before its start, an unknown model, dataset or grid: refused by name, nothing recorded."""
    before = len(list(Workspace(space).ledger.records()))
    wrong: list[tuple[list[str], type[Exception], str]] = [
        (["--since", "yesterday"], ParameterError, "yesterday"),
        (["--since", "2024-01-02T00:00:00Z", "--until", "2024-01-01T00:00:00Z"], ParameterError, "until"),
        (["--dataset", "NOTHING"], UnknownNameError, "SYN"),
        (["--grid", "0s"], ParameterError, "grid") if command == ["skew"] else (["--champion", "x"], UnknownNameError, "m"),
    ]  # fmt: skip
    for options, kind, word in wrong:
        result = call(space, *command, *options)
        assert isinstance(result.exception, kind), (options, result.output)
        assert word in str(result.exception)
    assert isinstance(call(space, "outcomes", "nobody").exception, UnknownNameError)
    assert len(list(Workspace(space).ledger.records())) == before
