"""Where the ledger is, is said once; what cannot be opened is said in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from probatum.adapters.ledger_postgres import PostgresLedger
from probatum.cli.workspace import LEDGER_URL, Workspace
from probatum.core.errors import ParameterError


def test_commands_use_the_database_that_is_named(postgres_url: str, tmp_path: Path) -> None:
    """With PROBATUM_LEDGER_URL the records of a workspace are in PostgreSQL, and its folder holds no ledger."""
    environment = {**os.environ, LEDGER_URL: postgres_url}

    def probatum(*arguments: str) -> str:
        command = [sys.executable, "-m", "probatum.cli.main", *arguments, "--workspace", str(tmp_path)]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    probatum("data", "synth", "--days", "1", "--symbol", "X")
    assert '"kind": "data_import"' in probatum("evidence", "ls", "-o", "json")
    assert '"ok": true' in probatum("evidence", "verify", "-o", "json")
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize("url", ["mysql://root:hunter2@db/x", "ledger.db", "hunter2"])
def test_other_urls_are_refused_without_being_shown(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only postgresql:// is understood; what was given may hold a password, so it is not repeated."""
    monkeypatch.setenv(LEDGER_URL, url)
    with pytest.raises(ParameterError, match="begins with postgresql://") as error:
        Workspace(tmp_path).ledger  # noqa: B018
    assert "hunter2" not in error.value.message


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path) -> None:
    """Without psycopg the message says how to get it, and what asked for it; the exit code is 2."""
    program = "import sys; sys.modules['psycopg'] = None; from probatum.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "evidence", "ls", "--workspace", str(tmp_path)]
    environment = {**os.environ, LEDGER_URL: "postgresql://localhost/x"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert "pip install 'probatum[postgres]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable nothing of PostgreSQL is touched."""
    monkeypatch.delenv(LEDGER_URL, raising=False)
    assert not isinstance(Workspace(tmp_path).ledger, PostgresLedger)
