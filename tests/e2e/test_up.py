"""`probatum up` on an exchange of our own: ready right after the backfill, deciding, recording, and never live."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exchange import Exchange, Klines, Script, captured
from live import COMMAND, Service
from seed import write_seed_artifact

from probatum.adapters.decisions import ParquetDecisions
from probatum.cli.workspace import Workspace

pytestmark = pytest.mark.real_data


def restamped(message: bytes) -> bytes:
    """Return a captured message as if it were sent now."""
    found = json.loads(message)
    for name in ("T", "E"):
        if name in found.get("data", {}):
            found["data"][name] = time.time_ns() // 1_000_000
    return json.dumps(found).encode()


@contextmanager
def market(shared_data: Path) -> Iterator[tuple[Exchange, Klines]]:
    """Send the spot capture as of now, a few hundred messages a second, and serve its bars."""
    exchange = Exchange(Script(captured(shared_data / "binance_ws" / "spot_btcusdt_20240808.gz")))
    exchange.each, exchange.batch, exchange.pause_s = restamped, 4, 0.02
    klines = Klines(lambda minute: 61_800.0 + minute % 11)
    with exchange.in_thread():
        try:
            yield exchange, klines
        finally:
            klines.stop()


def wait_for(wanted: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError, AttributeError, ValueError):
            if found := wanted():
                return found
        time.sleep(0.1)
    raise AssertionError(wanted)


def page(url: str) -> str:
    with urllib.request.urlopen(url + "/metrics", timeout=5) as reply:
        return str(reply.read().decode())


def value(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_up_decides_on_a_feed_and_survives_the_death_of_a_service(shared_data: Path, tmp_path: Path) -> None:
    """Three services from one command; the executor is killed and comes back; SIGTERM ends all, and what was recorded stays.

    The data came from an address that we named, so what was recorded is synthetic, and nothing is live.
    """
    space, artifact = tmp_path / "workspace", write_seed_artifact(tmp_path / "model.json")
    with market(shared_data) as (exchange, klines):
        options = ["--artifact", str(artifact), "-w", str(space), "--engine-port", "0", "--executor-port", "0",
                   "--controller-port", "0", "--feed", "binance", "--symbols", "BTCUSDT", "--url", exchange.url,
                   "--rest-url", klines.url, "--grid", "1s"]  # fmt: skip
        with (tmp_path / "words").open("w") as words:
            process = subprocess.Popen([*COMMAND, "up", *options], stderr=words)
        try:
            said = (tmp_path / "words").read_text
            urls = {name: wait_for(lambda name=name: re.search(rf"{name}.* on (http://\S+)", said()))[1]
                    for name in ("engine", "executor", "controller")}  # fmt: skip
            wait_for(lambda: value(page(urls["executor"]), 'ml_executor_decisions_total{route="baseline"}') >= 3)
            text = page(urls["executor"])
            assert value(text, 'ml_feed_messages_total{symbol="BTCUSDT"}') > 0
            assert abs(value(text, 'ml_feed_last_event_time_seconds{symbol="BTCUSDT"}') - time.time()) < 10
            (pid,) = children(process.pid, "executor")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: said().count("executor on http") == 2)
            wait_for(lambda: value(page(urls["executor"]), 'ml_executor_decisions_total{route="baseline"}') >= 3)
            with urllib.request.urlopen(urls["controller"] + "/status", timeout=5) as reply:
                assert reply.status == 200
        finally:
            started = [pid for name in ("engine", "executor", "controller") for pid in children(process.pid, name)]
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert process.returncode == 0
    assert [path.name for path in (space / "recorded").iterdir()] == ["synthetic"]
    assert len(started) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    rows = ParquetDecisions(space / "decisions").read(0, 1 << 62)
    assert rows.height >= 6
    assert set(rows["strategy"]) == {"feed"}
    assert rows["as_of"].is_sorted()
    assert (rows["as_of"] % 1_000_000_000 == 0).all()
    sealed = subprocess.run(
        [*COMMAND, "data", "seal", "-w", str(space), "-o", "json"], capture_output=True, text=True, check=True
    )
    (dataset,) = json.loads(sealed.stdout)["datasets"]
    assert dataset["provenance"] == "synthetic"
    quotes = Workspace(space).datasets.load("BTCUSDT").quotes
    assert quotes is not None
    decided = rows.join_asof(quotes.rename({"ts_event": "as_of"}), on="as_of")
    assert (decided["f_mid"] == (decided["bid"] + decided["ask"]) * 0.5).all()  # decided on exactly what was recorded


def children(pid: int, name: str) -> list[int]:
    found = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if f"probatum.cli.main {name} " in line + " "]


def test_day_long_features_are_ready_in_seconds(shared_data: Path, tmp_path: Path) -> None:
    """v1.8.1 needs 24 hours of minutes: with the backfill its first decision comes within seconds of the first tick."""
    with market(shared_data) as (exchange, klines):
        service = Service(
            "executor", "--port", "0", "-w", str(tmp_path), "--mode", "off", "--feature-set", "v1.8.1", "--feed", "binance",
            "--symbols", "BTCUSDT", "--url", exchange.url, "--rest-url", klines.url, "--grid", "1s",
        )  # fmt: skip
        try:
            began = time.monotonic()
            wait_for(lambda: service.get("/shadow/metrics")["decisions"] >= 2, 30)
            assert time.monotonic() - began < 20
        finally:
            service.stop()
    assert sum(int(item["limit"]) for item in klines.asked) >= 1_680
    rows = pl.concat([pl.read_parquet(path) for path in (tmp_path / "decisions").glob("*.parquet")])
    assert rows.select(pl.col("^f_.*$").is_finite().all()).row(0) == (True,) * 7
    segments = pl.concat([pl.read_parquet(path) for path in (tmp_path / "recorded").rglob("*.parquet")])
    assert segments.filter(pl.col("kind") == 2).height >= 1_680  # what they were warmed up with is kept


def test_logged_features_equal_those_of_the_recorded_data(shared_data: Path, tmp_path: Path) -> None:
    """`skew` over the data that the executor recorded itself: every logged row is the batch path's, bit by bit."""
    with market(shared_data) as (exchange, _):
        service = Service(
            "executor", "--port", "0", "-w", str(tmp_path), "--mode", "off", "--feature-set", "book", "--target", "next_move",
            "--has", "sizes", "--has", "trades", "--feed", "binance", "--symbols", "BTCUSDT", "--url", exchange.url,
            "--grid", "100ms",
        )  # fmt: skip
        try:
            wait_for(lambda: service.get("/shadow/metrics")["decisions"] >= 60, 90)
        finally:
            service.stop()
    subprocess.run([*COMMAND, "data", "seal", "-w", str(tmp_path)], check=True, capture_output=True)
    done = subprocess.run(
        [*COMMAND, "skew", "--grid", "100ms", "-w", str(tmp_path), "-o", "json"], capture_output=True, text=True
    )
    found = json.loads(done.stdout[: done.stdout.index("\n}") + 2])
    assert (found["unequal"], found["first_mismatch"]) == (0, None)
    assert found["equal"] == found["rows"] >= 60


def test_up_says_what_is_wrong_and_stays_down(tmp_path: Path) -> None:
    """A workspace without a champion, and a feed that is none: one message each, no endless restarts."""
    command = [
        *COMMAND,
        "up",
        "-w",
        str(tmp_path),
        "--engine-port",
        "0",
        "--executor-port",
        "0",
        "--controller-port",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "unknown model 'champion'" in done.stderr
    done = subprocess.run(
        [*command, "--feed", "binance", "--symbols", "BTC/USDT"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "symbol must be" in done.stderr) == (2, True)
