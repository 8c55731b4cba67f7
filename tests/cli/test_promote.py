"""The commands around a promotion refuse in words, with the right exit code, before anything is written."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from probatum.cli.main import cli
from probatum.core.errors import BlockedError, DataError, IntegrityError, ParameterError, UnknownNameError

POLICIES = resources.files("probatum.rollout") / "policies"


def call(*arguments: object) -> str:
    return (
        CliRunner().invoke(cli, [str(item) for item in arguments], catch_exceptions=False, standalone_mode=False).output
    )


@pytest.mark.parametrize("name", ["default", "seed-v1.8"])
def test_shipped_policies_keep_their_promises(name: str, tmp_path: Path) -> None:
    """`probatum lint` finds no error in what is shipped."""
    path = tmp_path / "policy.toml"
    path.write_text((POLICIES / f"{name}.toml").read_text())
    assert all(item["severity"] == "warning" for item in json.loads(call("lint", path, "-o", "json")))


def test_a_policy_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    """A deadline before staleness, a misspelt key, bytes that are no text: each is found or refused."""
    text = (POLICIES / "default.toml").read_text()
    path = tmp_path / "policy.toml"
    path.write_text(text.replace("phase_s = 1800", "phase_s = 1800\nsource_deadline_s = 10", 1))
    with pytest.raises(BlockedError, match="source_deadline_s"):
        call("lint", path)
    path.write_text(text.replace("slo = 0.01", "sloo = 0.01"))
    with pytest.raises(BlockedError, match="sloo"):
        call("lint", path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        call("lint", path)


def test_a_foreign_report_is_read_for_what_cannot_be(tmp_path: Path) -> None:
    """An impossible rate is named with its line; a consistent report is not."""
    path = tmp_path / "report.json"
    path.write_text('{"total_requests": 50, "error_rate": 0.0035}')
    with pytest.raises(IntegrityError, match="no whole number"):
        call("evidence", "lint", path)
    path.write_text('{"total_requests": 50, "error_rate": 0.02}')
    assert json.loads(call("evidence", "lint", path, "-o", "json")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("blockers", "robust"),
        ("canary", "plan", "robust"),
        ("canary", "dry-run", "robust"),
        ("promote", "--by", "ada"),
        ("rollback", "--by", "ada"),
        ("waive", "robust", "drill", "--by", "ada", "--reason", "r"),
        ("review", "robust", "--by", "ada"),
        ("confirm",),
    ],
)
def test_an_empty_workspace_is_refused_by_name(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing is created for a model or rollout that is not there."""
    with pytest.raises(UnknownNameError):
        call(*arguments, "-w", tmp_path / "none")
    assert not (tmp_path / "none" / "ledger.db").exists()


def test_a_policy_is_a_shipped_name_or_a_file(tmp_path: Path) -> None:
    """A misspelt name lists the known."""
    with pytest.raises((UnknownNameError, ParameterError), match="default"):
        call("canary", "plan", "robust", "--policy", "defualt", "-w", tmp_path)
