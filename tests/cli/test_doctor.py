"""The doctor names what is missing, and fails only for what is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from probatum.cli import doctor as module
from probatum.cli.doctor import doctor
from probatum.core.errors import BlockedError


def found(workspace: Path) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(doctor, ["-w", str(workspace), "-o", "json"])
    return {item["name"]: item for item in json.loads(done.stdout)}


def test_a_fresh_folder_is_fit(tmp_path: Path) -> None:
    """On a machine that runs these tests nothing needed is missing, and a folder that is not there yet is no fault."""
    items = found(tmp_path / "new")
    assert {items[name]["verdict"] for name in ("python", "probatum", "disk", "workspace")} == {"PASS"}
    assert items["ledger"]["verdict"] is None
    assert not (tmp_path / "new").exists()


def test_an_absent_library_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extra whose library is not installed is shown with the command that brings it, and fails nothing."""
    lines = ["click>=8.1", "no-such-library>=1; extra == 'dask'"]
    monkeypatch.setattr(module, "requires", lambda _: lines)
    item = found(tmp_path)["extra dask"]
    assert item == {
        "name": "extra dask", "verdict": None, "found": "no no-such-library", "mend": "pip install 'probatum[dask]'",
    }  # fmt: skip


def test_a_ledger_that_cannot_be_read_fails(tmp_path: Path) -> None:
    """A file that is no ledger is named, and the exit code says that nothing should be started on it."""
    (tmp_path / "ledger.db").write_bytes(b"not a database, whatever its name says" * 40)
    done = CliRunner().invoke(doctor, ["-w", str(tmp_path)])
    assert isinstance(done.exception, BlockedError)
    assert done.exception.exit_code == 1
    assert "ledger" in done.exception.message
