"""The tutorial and the README run as they are written."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from probatum.cli.main import main

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```text\n(.*?)```", re.DOTALL)


def _lines(page: str) -> list[str]:
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [
        line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("probatum ")
    ]


def _call(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.real_data
def test_tutorial_commands_do_what_they_say(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the tutorial exits 0 on the recorded file that it names; the two services are started elsewhere."""
    shutil.copy(shared_data / "binance_klines" / "BTCUSDT_1min_sample.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = [line for line in _lines("docs/tutorial/first-hour.md") if not line.endswith("&") and " smoke" not in line]
    assert len(lines) > 12
    for line in lines:
        assert _call(line, monkeypatch) == 0, f"{line}\n{capsys.readouterr().err}"
    assert (tmp_path / "drift.html").exists()
    assert (tmp_path / "mymodel" / "pyproject.toml").exists()


@pytest.mark.real_data
def test_readme_shows_a_real_output(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table and the reasons in the README are what `probatum run` prints on the recorded file today.

    Up to the last model's reasons, which hang on how busy this machine is.
    """
    monkeypatch.chdir(tmp_path)
    data = shared_data / "binance_klines" / "BTCUSDT_1min_sample.csv"
    assert _call(f"probatum run --data {data} --format binance-klines", monkeypatch) == 0
    said = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("<!-- output: run on BTCUSDT -->\n```text\n")[1].split("```")[0]
    shown = [line.rstrip() for line in block.splitlines() if line.strip()]
    assert _measured(shown) == _measured(said[: len(shown)])
    assert len(shown) > 15


def _measured(lines: list[str]) -> list[str]:
    """Return the lines without the canary's column: it replays this machine's latencies, so it may differ."""
    end = next(line for line in lines if " promote" in line).find("canary")
    rows = next(n for n, line in enumerate(lines) if line == "v1.8-b0")
    return [line[:end].rstrip() if n < rows else line for n, line in enumerate(lines)]
