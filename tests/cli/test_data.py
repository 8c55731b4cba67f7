"""The data commands: what they print, what they leave, and how they end."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from probatum.cli.main import main
from probatum.core.clock import parse_utc

START_MS = parse_utc("2024-01-01T00:00:00Z") // 1_000_000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that calls ``probatum data …`` in a fresh workspace: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        words = ["probatum", "data", *map(str, arguments), "-w", str(tmp_path / "w")]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return int(str(code)), out, err

    return call


def klines(folder: Path, *, without: range = range(0), name: str = "BTCUSDT-1m.csv") -> Path:
    opens = [START_MS + m * 60_000 for m in range(100) if m not in without]
    path = folder / name
    path.write_text("".join(f"{t},100,101,99,100.5,1,{t + 59_999},1,1,1,1,0\n" for t in opens))
    return path


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_import_list_and_check(run: Run, tmp_path: Path) -> None:
    """A clean file is imported, listed with its class and passes the check, all with exit 0."""
    code, out, _ = run("import", klines(tmp_path), "--format", "binance-klines")
    assert code == 0
    assert "stored: 100 bars" in out
    assert "decided: open_time: whole numbers of ms since 1970 UTC, detected by magnitude" in out
    code, out, _ = run("ls")
    assert (code, "REPLAY" in out, "100 bars" in out) == (0, True, True)
    code, out, _ = run("ls", "-o", "json")
    assert [(item["symbol"], item["provenance"], item["rows"]) for item in json.loads(out)] == [("BTCUSDT", "replay", {"bars": 100})]  # fmt: skip
    code, out, _ = run("check", "BTCUSDT")
    assert (code, "PASS" in out) == (0, True)


def test_a_gap_fails_the_check_until_it_is_explained(run: Run, tmp_path: Path) -> None:
    """Exit 1 with the span; imported again with that span and a reason, exit 0."""
    path = klines(tmp_path, without=range(20, 40))
    assert run("import", path, "--format", "binance-klines")[0] == 0
    code, out, err = run("check", "BTCUSDT")
    assert (code, "FAIL" in out) == (1, True)
    assert "unexplained gaps: 1" in err
    code, out, _ = run("check", "BTCUSDT", "-o", "json")
    (gap,) = json.loads(out)["gaps_largest"]
    assert (code, gap["minutes"]) == (1, 20.0)
    span = f"{gap['start']}..{gap['end']}=exchange maintenance"
    assert run("import", path, "--format", "binance-klines", "--explain-gap", span)[0] == 0
    code, out, _ = run("check", "BTCUSDT")
    assert (code, "exchange maintenance" in out) == (0, True)


def test_a_generic_table_with_everything_told(run: Run, tmp_path: Path) -> None:
    """Map, symbol, calendar, tick size, unit: all reach the dataset."""
    path = tmp_path / "t.csv"
    path.write_text("when,px,qty\n" + "".join(f"{START_MS + m},100,1\n" for m in range(9)))
    options = "--map ts=when,price=px --map size=qty --symbol X --calendar us-equity --tick-size 0.5 --time-unit ms"
    code, out, _ = run("import", path, "--format", "csv", *options.split(), "-o", "json")
    found = json.loads(out)
    assert (code, found["symbol"], found["rows"]) == (0, "X", {"trades": 9})
    assert found["rows_outside_sessions"] == 9  # New Year's Day, at night


def test_synth_is_marked_synthetic_and_can_drift(run: Run) -> None:
    """The class is printed; with a drift the version differs; a drift without a day is refused."""
    code, out, _ = run("synth", "--days", 1, "--seed", 5)
    assert (code, "SYNTHETIC" in out, "86,400 quotes" in out) == (0, True, True)
    versions = []
    for extra in ([], ["--drift-day", "0", "--drift", "volatility=2"]):
        code, out, _ = run("synth", "--days", 1, "--seed", 5, "-o", "json", *extra)
        versions.append(json.loads(out)["sha256"])
    assert versions[0] != versions[1]
    for wrong in (["--drift", "volatility=2"], ["--drift-day", "1"], ["--drift-day", "0", "--drift", "x=2"], ["--drift-day", "0", "--drift", "price=much"]):  # fmt: skip
        code, _, err = run("synth", "--days", 1, *wrong)
        assert (code, err.startswith("error: drift")) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "{missing}", "--format", "binance-klines"], "cannot be read"),
        (["import", "{good}", "--format", "cvs"], "is not one of"),
        (["import", "{good}", "--format", "lean"], "the name of a Lean tick file"),
        (["import", "{good}", "--format", "binance-klines", "--symbol", "../x"], "symbol must be"),
        (["import", "{good}", "--format", "binance-klines", "--calendar", "moon"], "calendar must be"),
        (["import", "{good}", "--format", "binance-klines", "--tick-size", "-1"], "tick size must be"),
        (["import", "{good}", "--format", "binance-klines", "--explain-gap", "monday"], "must be"),
        (["import", "{good}", "--format", "csv", "--map", "price"], "map must be"),
        (["import", "{good}", "--format", "csv", "--map", "ts=a,ts=b"], "given once for each NAME"),
        (["fetch", "binance", "--symbol", "BTCUSDT", "--base-url", "ftp://x"], "base url must be"),
        (["check", "NONE"], "unknown dataset 'NONE'"),
        (["fetch", "binance", "--symbol", "btc/usdt"], "symbol must be"),
        (["fetch", "binance", "--symbol", "BTCUSDT", "--days", "0"], "days must be"),
    ],
)
def test_a_users_mistake_ends_with_2_and_leaves_nothing(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """One line that says what is wrong, exit 2, no file in the workspace."""
    places = {"{good}": str(klines(tmp_path)), "{missing}": str(tmp_path / "none.csv")}
    code, _, err = run(*[places.get(word, word) for word in arguments])
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert files(tmp_path / "w") == []


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_fetch_imports_what_it_verified(run: Run, tmp_path: Path) -> None:
    """From a server with the dumps' layout: one day of replayed bars, the zip kept in the workspace."""
    folder = tmp_path / "www/data/spot/daily/klines/BTCUSDT/1m"
    folder.mkdir(parents=True)
    for back in (1, 2):  # midnight may pass while the test runs
        day = datetime.now(UTC).date() - timedelta(days=back)
        start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
        opens = range(start, start + 86_400_000, 60_000)
        name = f"BTCUSDT-1m-{day}.zip"
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("a.csv", "".join(f"{t},100,101,99,100.5,1,{t + 59_999},1,1,1,1,0\n" for t in opens))
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / f"{name}.CHECKSUM").write_text(f"{digest}  {name}\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    code, out, _ = run("fetch", "binance", "--symbol", "BTCUSDT", "--days", 1, "--base-url", url, "-o", "json")
    server.shutdown()
    server.server_close()
    found = json.loads(out)
    assert (code, found["rows"], found["provenance"]) == (0, {"bars": 1440}, "replay")
    assert len(list((tmp_path / "w/downloads/binance").glob("*.zip"))) == 1


def test_a_cut_file_names_file_and_row(run: Run, tmp_path: Path) -> None:
    """Truncation is reported with its place, as JSON too."""
    path = klines(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    code, out, err = run("import", path, "--format", "binance-klines", "-o", "json")
    assert code == 2
    assert "row 100: the line ends early" in err
    assert json.loads(out)["row"] == 100


def test_help_imports_nothing_heavy() -> None:
    """The help of the data commands loads neither polars, numpy nor an HTTP client."""
    code = "import sys, click; from probatum.cli.data import data\ntry: data(['import', '--help'])\nexcept SystemExit: pass\nassert not {'polars', 'numpy', 'httpx', 'scipy'} & set(sys.modules)"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, capture_output=True)
