"""The drift commands: exit codes, JSON, the page, and what they say to a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from probatum.cli.main import cli
from probatum.core.errors import DataError, ParameterError, UnknownNameError


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a workspace with a synthetic market and one model."""
    root = tmp_path_factory.mktemp("drift")
    for command in (
        ["data", "synth", "--symbol", "SYN", "--days", "10"],
        ["train", "SYN", "--set", "robust", "--grid", "1m", "--name", "m"],
    ):
        result = CliRunner().invoke(cli, [*command, "-w", str(root)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return root


def test_snapshot_prints_and_exits_by_its_verdict(workspace: Path) -> None:
    """The exit code follows the verdict, JSON is one document, and the evidence files are written."""
    result = CliRunner().invoke(cli, ["drift", "snapshot", "m", "--window", "test", "-o", "json", "-w", str(workspace)])
    figures = json.loads(result.stdout)
    assert result.exit_code == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[figures["verdict"]]
    written = json.loads((workspace / "evidence" / "ml" / "psi_snapshot.json").read_text())
    assert written["overall_psi"] == figures["overall_psi"]
    assert written["evidence"]["provenance"] == "synthetic"
    series = (workspace / "evidence" / "ml" / "psi_series.csv").read_text().splitlines()
    assert any(f",overall,{figures['overall_psi']}," in line for line in series)


def test_short_window_is_inconclusive(workspace: Path) -> None:
    """Twelve hours of minutes are too few rows: exit 3, and the table says how many are missing."""
    result = CliRunner().invoke(cli, ["drift", "snapshot", "m", "SYN", "--window", "12h", "-w", str(workspace)])
    assert result.exit_code == 3
    assert "SYNTHETIC" in result.stdout
    assert "280 more rows" in result.stdout


def test_report_is_one_file_without_requests(workspace: Path, tmp_path: Path) -> None:
    """The page is written where asked, and names no other host."""
    CliRunner().invoke(cli, ["drift", "snapshot", "m", "--window", "test", "-w", str(workspace)])
    out = tmp_path / "deep" / "drift.html"
    result = CliRunner().invoke(cli, ["drift", "report", "m", "--out", str(out), "-w", str(workspace)])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    html = out.read_text()
    assert "SYNTHETIC" in html
    assert "src=" not in html
    assert '<link rel="stylesheet"' not in html
    default = CliRunner().invoke(cli, ["drift", "report", "m", "-w", str(workspace)])
    assert Path(default.stdout.strip()).read_text() == html


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["snapshot", "nobody"], UnknownNameError),
        (["snapshot", "m", "NOPE"], UnknownNameError),
        (["snapshot", "m", "--window", "7x"], ParameterError),
        (["report", "nobody"], UnknownNameError),
    ],
)
def test_mistakes_are_named(workspace: Path, arguments: list[str], error: type[DataError]) -> None:
    """A wrong model, symbol or window raises an error of ours, which main prints."""
    result = CliRunner().invoke(cli, ["drift", *arguments, "-w", str(workspace)])
    assert isinstance(result.exception, error)


def test_model_without_snapshot_is_named(workspace: Path, tmp_path: Path) -> None:
    """A report of a model that was never snapshot says so."""
    CliRunner().invoke(
        cli, ["train", "SYN", "--set", "v1.8.1", "--grid", "1m", "--name", "other", "-w", str(workspace)]
    )
    result = CliRunner().invoke(cli, ["drift", "report", "other", "--out", str(tmp_path / "x"), "-w", str(workspace)])
    assert isinstance(result.exception, UnknownNameError)
    assert "drift snapshot of" in str(result.exception)
    assert not (tmp_path / "x").exists()
