"""The evidence commands: what they print, where they put it, and how they end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from probatum.cli.evidence import evidence
from probatum.cli.workspace import Workspace
from probatum.core.errors import InconclusiveError, IntegrityError, StorageError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.synth import record_synthetic
from probatum.pipeline.importing import import_recording


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    place = Workspace(root)
    recording = record_synthetic(days=1, seed=7, symbol="SYN")
    import_recording(recording, save=place.datasets.save, ledger=place.ledger, sources=place)
    return root


@pytest.fixture
def root(proven: Path, tmp_path: Path) -> Path:
    shutil.copytree(proven, tmp_path / "w")
    return tmp_path / "w"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(evidence, [str(argument) for argument in arguments])


def test_ls_lists_seq_kind_subject_and_class(root: Path) -> None:
    """One line a record for people, one object for programs; an unknown kind lists the known."""
    shown = run("ls", "-w", root)
    assert shown.exit_code == 0
    assert all(word in shown.stdout for word in ("data_import", "SYN", "SYNTHETIC"))
    listed = json.loads(run("ls", "--kind", "data_import", "-w", root, "-o", "json").stdout)
    assert [(r["seq"], r["provenance"], len(r["hash"])) for r in listed] == [(1, "synthetic", 64)]
    with pytest.raises(UnknownNameError, match=r"unknown evidence kind 'data_imprt'.*did you mean 'data_import'"):
        CliRunner().invoke(evidence, ["ls", "--kind", "data_imprt", "-w", str(root)], catch_exceptions=False)


def test_names_cannot_drive_the_terminal(tmp_path: Path) -> None:
    """An escape sequence in a subject is shown as text in every listing."""
    place = Workspace(tmp_path)
    place.ledger.append("train", "a\x1b[2J\x9b31m\u202e", Provenance.REPLAY, {"inputs": {}, "figures": {}})
    for command in ("ls", "verify"):
        shown = run(command, "-w", tmp_path)
        assert not {"\x1b", "\x9b", "\u202e"} & set(shown.stdout)
    assert r"a\x1b[2J\x9b31m\u202e" in run("ls", "-w", tmp_path).stdout


def test_show_prints_a_record_by_number_or_kind(root: Path) -> None:
    """The record is printed whole; one that is not there is a usage error that says what is."""
    by_number, by_kind = run("show", 1, "-w", root), run("show", "data_import", "-w", root)
    assert by_number.stdout == by_kind.stdout
    assert set(json.loads(by_kind.stdout)["body"]) == {"inputs", "figures"}
    for name, message in (("2", "known: 1 to 1"), ("train", "known: data_import"), ("x", "unknown evidence kind")):
        with pytest.raises(UnknownNameError, match=message):
            CliRunner().invoke(evidence, ["show", name, "-w", str(root)], catch_exceptions=False)


def test_report_writes_the_files_and_prints_the_path(root: Path) -> None:
    """The path on stdout is a page that exists, the seed's files lie beside it, and all of it verifies."""
    path = Path(run("report", "-w", root).stdout.strip())
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (path.parent / "data_quality.json").is_file()
    exported = json.loads(run("export", "-w", root, "-o", "json").stdout)
    assert str(path) in exported
    verified = run("verify", "-w", root)
    assert verified.exit_code == 0
    assert f"verified: head {Workspace(root).ledger.head()}" in verified.stdout


def test_verify_names_the_bad_place_and_fails(root: Path) -> None:
    """The first bad place is the error's, all of them are printed, and -o json is still JSON."""
    partition = next(root.rglob("quotes/*.parquet"))
    partition.write_bytes(partition.read_bytes()[:-1] + b"\0")
    result = run("verify", "-w", root)
    assert isinstance(result.exception, IntegrityError)
    assert result.exception.exit_code == 1
    assert str(partition) in result.exception.message
    assert f"bad: {partition}" in result.stdout
    as_json = run("verify", "-w", root, "-o", "json")
    found = json.loads(as_json.stdout)
    assert as_json.exit_code == 1
    assert (found["ok"], found["findings"][0]["place"]) == (False, str(partition))


def test_an_empty_workspace_has_nothing_to_show_and_proves_nothing(tmp_path: Path) -> None:
    """Reading creates nothing, and a mistyped folder does not verify."""
    assert json.loads(run("ls", "-w", tmp_path / "none", "-o", "json").stdout) == []
    verified = run("verify", "-w", tmp_path / "none")
    assert isinstance(verified.exception, InconclusiveError)
    assert "holds no record" in verified.exception.message
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_is_named(root: Path) -> None:
    """A file where the folder should be is a storage error with its path."""
    (root / "evidence").write_bytes(b"")
    with pytest.raises(StorageError, match="evidence/ml"):
        CliRunner().invoke(evidence, ["export", "-w", str(root)], catch_exceptions=False)
