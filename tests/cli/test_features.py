"""The features commands: what they print, what they write, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from probatum.adapters.store import ParquetStore
from probatum.cli.main import main
from probatum.core.verdict import Provenance
from probatum.features.check import Check
from probatum.features.sets import FEATURE_SETS
from probatum.market.calendar import CALENDARS
from probatum.market.dataset import BAR_SCHEMA, Dataset

Run = Callable[..., tuple[int, str, str]]
START, MINUTE = 1_704_067_200_000_000_000, 60_000_000_000


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that calls ``probatum features …`` on a workspace with one small market, SYN."""
    rng, n = np.random.default_rng(7), 500
    ts = START + MINUTE * np.arange(1, n + 1)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, n)))
    columns = dict.fromkeys(("open", "high", "low", "close"), close)
    data = {"ts_event": ts, "ts_recv": ts, **columns, "volume": rng.lognormal(2, 1, n), "spread": [None] * n}
    frame = pl.DataFrame(data, schema=BAR_SCHEMA)
    ParquetStore(tmp_path / "w" / "data").save(
        Dataset("SYN", Provenance.SYNTHETIC, "0" * 64, CALENDARS["24x7"], None, bars=frame)
    )

    def call(*arguments: object, workspace: bool = True) -> tuple[int, str, str]:
        place = ["-w", str(tmp_path / "w")] if workspace else []
        monkeypatch.setattr(sys, "argv", ["probatum", "features", *map(str, arguments), *place])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(str(end.value.code or 0)), out, err

    return call


def test_ls_names_every_set_and_column(run: Run) -> None:
    """People see every column with its definition; programs get fingerprints, needs and warm-up."""
    code, out, _ = run("ls", workspace=False)
    assert code == 0
    assert all(item.fingerprint[:12] in out for item in FEATURE_SETS.values())
    assert all(name in out for item in FEATURE_SETS.values() for name in item.names)
    code, out, _ = run("ls", "-o", "json", workspace=False)
    found = {item["set"]: item for item in json.loads(out)}
    assert code == 0
    assert found["book"]["requires"] == ["sizes"]
    assert found["v1.8-b0"]["level"] == ["mid", "vol1m"]
    assert {n: f["fingerprint"] for n, f in found.items()} == {n: s.fingerprint for n, s in FEATURE_SETS.items()}


def test_build_writes_the_variant_that_the_data_support(run: Run, tmp_path: Path) -> None:
    """Bars without spread give the set without it; the file holds every row, the ready ones without NaN."""
    out_file = tmp_path / "out" / "f.parquet"
    code, out, err = run("build", "SYN", "--set", "v1.8.1", "--out", out_file, "-o", "json")
    assert (code, err) == (0, "")
    result, table = json.loads(out), pl.read_parquet(out_file)
    assert "spread_bp" not in result["columns"]
    assert table.columns == ["ts", "ready", "mid", *[f"f_{name}" for name in result["columns"]]]
    assert (result["rows"], result["ready"]) == (table.height, int(table["ready"].sum())) == (500, 141)
    assert np.isfinite(table.filter("ready").drop("ready").to_numpy()).all()


def test_build_warns_of_levels(run: Run) -> None:
    """v1.8-b0 comes with the linter's lines on stderr."""
    code, out, err = run("build", "SYN", "--set", "v1.8-b0")
    assert code == 0
    assert "rsi14" in out
    assert [line.split()[:2] for line in err.splitlines()] == [["warning:", "mid"], ["warning:", "vol1m"]]


def test_check_passes_and_fails_by_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 0 when every promise is kept, 1 when one is not, and JSON says which."""
    code, out, _ = run("check", "SYN", "--set", "robust", "-o", "json")
    assert code == 0
    assert [item["verdict"] for item in json.loads(out)] == ["PASS"] * 4
    broken = [Check("ready", True, 5), Check("no look ahead", False, 3, "row 1, mid: 1.0 against 2.0")]
    monkeypatch.setattr("probatum.features.check.check_features", lambda *_: broken)
    code, out, _ = run("check", "SYN", "--set", "robust")
    assert code == 1
    assert "row 1, mid" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("build", "SYN", "--set", "robus"), "did you mean 'robust'"),
        (("build", "SIN", "--set", "robust"), "known: SYN"),
        (("build", "SYN", "--set", "book"), "needs sizes"),
        (("build", "SYN", "--set", "robust", "--grid", "1s"), "one-minute bars"),
        (("check", "SYN", "--set", "robust", "--grid", "1 week"), "grid must be"),
        (("build", "../SYN", "--set", "robust"), "SYN"),
        (("build", "SYN"), "--set"),
    ],
)
def test_a_mistake_is_named(run: Run, arguments: tuple[str, ...], word: str) -> None:
    """An unknown set, symbol or grid, or data that cannot carry the set: exit 2, and a line that says what is wrong."""
    code, _, err = run(*arguments)
    assert code == 2
    assert word in err
    assert "Traceback" not in err


def test_an_unwritable_place_is_named(run: Run, tmp_path: Path) -> None:
    """Where the file cannot be written the message names it, and nothing is left."""
    (tmp_path / "file").write_text("")
    code, _, err = run("build", "SYN", "--set", "robust", "--out", tmp_path / "file" / "f.parquet")
    assert code == 1
    assert "f.parquet" in err
