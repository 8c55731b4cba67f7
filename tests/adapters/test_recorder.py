"""What was recorded survives kills and full disks; what was not is counted; segments and captures end in the same rows."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exchange import Exchange, Script, captured, kind_of
from live import COMMAND

from probatum.adapters.journal import LogSettings, convert_journal
from probatum.adapters.recorder import FindingsFile, TickLog, read_recorded, recorded_symbols, ticks_parquet
from probatum.cli.workspace import Workspace
from probatum.core.clock import SystemClock
from probatum.core.errors import DataError
from probatum.core.verdict import Provenance
from probatum.market.events import BAR, QUOTE, TRADE
from probatum.market.quality import screen
from probatum.market.ticks import Tick
from probatum.monitoring.feed import Finding
from probatum.pipeline.verify import verify

T0 = 1_723_161_255_000_000_000


def tick(i: int, **changes: Any) -> Tick:
    fields = {
        "kind": TRADE,
        "symbol": "X",
        "ts_recv": T0 + i,
        "ts_event": T0,
        "number": i,
        "a": 1.5,
        "b": 0.1 * i,
        "c": 1.0,
    }
    return Tick(**fields | changes)  # type: ignore[arg-type]


def open_log(folder: Path, provenance: Provenance = Provenance.SYNTHETIC, **changes: float) -> TickLog:
    return TickLog(folder, "f", provenance, SystemClock(), LogSettings(**{"queue_rows": 10_000} | changes))  # type: ignore[arg-type]


def test_segments_come_back_as_a_recording(tmp_path: Path) -> None:
    """Ticks of two symbols in several segments: each symbol's own rows, sources that say their rows, bars left out."""
    log = open_log(tmp_path, Provenance.LIVE, rotate_rows=100, flush_s=0.01)
    for i in range(300):
        log.append(tick(i, symbol="XY"[i % 2]))
        time.sleep(0.0002)
    log.append(tick(0, kind=BAR, number=None, c=5.0))
    log.close()
    assert log.folder == tmp_path / "live" / "f"
    assert len(list(log.folder.glob("*.parquet"))) >= 2
    assert recorded_symbols(log.folder) == ["X", "Y"]
    recording = read_recorded(log.folder, "X")
    assert (recording.rows_in, recording.ignored, recording.provenance) == (
        151,
        {"bar of the warm-up": 1},
        Provenance.LIVE,
    )
    rows = screen(recording).dataset.frames["trades"]
    assert rows["size"].to_list() == [0.1 * i for i in range(0, 300, 2)]
    assert "numbers: 149 trades are missing, in 149 places" in recording.decisions
    with pytest.raises(DataError, match="nothing was recorded of this symbol"):
        read_recorded(log.folder, "Z")


def test_one_synthetic_segment_makes_a_recording_synthetic(tmp_path: Path) -> None:
    """A recording is as live as its least live segment."""
    for provenance in (Provenance.LIVE, Provenance.SYNTHETIC):
        log = open_log(tmp_path, provenance)
        log.append(tick(1 + (provenance is Provenance.LIVE)))
        log.close()
    live = tmp_path / "live" / "f"
    assert read_recorded(live, "X").provenance is Provenance.LIVE
    shutil.copy(next((tmp_path / "synthetic" / "f").glob("*.parquet")), live / "zzz.parquet")
    assert read_recorded(live, "X").provenance is Provenance.SYNTHETIC


def test_bad_ticks_are_kept_and_quarantined(tmp_path: Path) -> None:
    """Crossed quotes, no numbers and numbers used twice are recorded as they came; the screen puts them apart. A copy is one."""
    log = open_log(tmp_path)
    for i in range(1, 100):
        log.append(tick(i))
    bad = [
        tick(200, a=float("nan")),
        tick(6, number=5),
        tick(5),
        tick(201, b=-1.0),
        tick(202, a=9.0, b=2.0, kind=QUOTE),
    ]
    for item in bad:
        log.append(item)
    log.close()
    recording = read_recorded(log.folder, "X")
    reasons = sorted(screen(recording).quarantine["reason"])
    assert reasons == ["another row with the same id", "crossed", "price is not a number", "size is negative"]
    assert recording.merged == 1


def test_two_recorders_of_one_feed_make_one_dataset(tmp_path: Path) -> None:
    """Each tick came to both, at times of its own: the dataset has it once, at the earlier, and no row is refused."""
    for late in (3, 0):
        log = open_log(tmp_path)
        for i in range(1, 500):
            log.append(tick(i, ts_recv=T0 + 10 * i + late))
        log.close()
    recording = read_recorded(log.folder, "X")
    screened = screen(recording)
    assert (recording.rows_in, recording.merged, screened.quarantine.height) == (998, 499, 0)
    assert screened.dataset.frames["trades"]["ts_recv"].to_list() == [T0 + 10 * i for i in range(1, 500)]


def test_a_full_disk_costs_ticks_that_are_counted(tmp_path: Path) -> None:
    """On a disk too small every tick is written or counted, the journal is whole, and findings do not raise."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        log, file = open_log(disk, flush_s=0.01), FindingsFile(disk / "synthetic" / "f")
        for i in range(5_000):
            log.append(tick(i))
        log.close()
        for i in range(3_000):
            file.append(Finding("lost", i, "", 1, "x" * 100))
        assert log.counts.offered == 5_000 == log.counts.written + log.counts.failed
        assert log.counts.failed > 0
        assert log.counts.written > 0
        assert file.failed > 0
        for path in log.folder.glob("*.journal"):
            shutil.move(path, tmp_path / "kept.journal")
            assert convert_journal(tmp_path / "kept.journal", ticks_parquet) == (log.counts.written, 0)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def recorder(space: Path, url: str, *options: str) -> subprocess.Popen[str]:
    command = [
        *COMMAND,
        "data",
        "record",
        "--feed",
        "binance",
        "--symbols",
        "btcusdt",
        "--url",
        url,
        "-w",
        str(space),
        "-o",
        "json",
    ]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.real_data
def test_a_killed_recorder_loses_only_its_unwritten_tail(shared_data: Path, tmp_path: Path) -> None:
    """kill -9 in the middle, then a second recorder: what both wrote becomes one verified dataset, and what is missing is told.

    The first one's journal holds a gapless start of what the exchange had sent; nothing of it is lost.
    """
    messages = captured(shared_data / "binance_ws" / "spot_btcusdt_20240808.gz")[:12_000]
    exchange = Exchange(Script(messages))
    exchange.batch, exchange.pause_s = 20, 0.004
    with exchange.in_thread():
        first = recorder(tmp_path, exchange.url)
        while exchange.place < 5_000:
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        reached, folder = exchange.place, tmp_path / "recorded" / "synthetic" / "binance-spot"
        (journal,) = folder.glob("*.journal")
        shutil.copy(journal, tmp_path / "copy.journal")
        written, _ = convert_journal(tmp_path / "copy.journal", ticks_parquet)
        second = recorder(tmp_path, exchange.url)
        while not exchange.finished.is_set():
            time.sleep(0.02)
        time.sleep(0.5)
        second.send_signal(signal.SIGTERM)
        said, words = second.communicate(timeout=60)
    assert second.returncode == 0, words
    found = json.loads(said)
    ticks = [item for item in messages if kind_of(json.loads(item))]
    early = pl.read_parquet(tmp_path / "copy.parquet")["number"].to_list()
    assert early == [_number(item) for item in ticks[: len(early)]]
    kept_share = len(early) / sum(bool(kind_of(json.loads(item))) for item in messages[:reached])
    assert kept_share > 0.8, (written, reached)
    (dataset,) = found["datasets"]
    assert dataset["rows_in"] == written + found["recorded"] == sum(dataset["rows"].values())
    assert dataset["provenance"] == "synthetic"
    assert found["not_recorded"] == {"no room": 0, "disk": 0, "another symbol": 0}
    space = Workspace(tmp_path)
    assert space.datasets.load("BTCUSDT").sha256 == dataset["sha256"]
    assert verify(space.ledger, space).ok
    assert (folder / "findings.jsonl").read_text().count('"name":"lost"') >= 1


def _number(message: bytes) -> int:
    data = json.loads(message)["data"]
    return int(data.get("u", data.get("t")))


def test_a_recorder_that_gets_nothing_says_so(tmp_path: Path) -> None:
    """No exchange: exit 1 after its time, with what was tried; `seal` of an empty workspace too."""
    process = recorder(tmp_path, "ws://127.0.0.1:9", "--duration", "0.6")
    said, words = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "nothing was recorded" in words
    assert "not connected" in words
    assert json.loads(said[: said.index("\n}") + 2])["connections_lost"] >= 1
    sealed = subprocess.run([*COMMAND, "data", "seal", "-w", str(tmp_path)], capture_output=True, text=True)
    assert sealed.returncode == 1


def test_seal_takes_up_what_a_killed_recorder_left(tmp_path: Path) -> None:
    """A journal that nobody writes any more, torn at its end: its whole frames are in the dataset, with the segments' rows."""
    log = open_log(tmp_path / "recorded", flush_s=0.01)
    for i in range(1, 601):
        log.append(tick(i))
    while log.waiting or log.counts.written < 600:
        time.sleep(0.01)
    (journal,) = log.folder.glob("*.journal")
    left = journal.read_bytes()
    log.close()
    for path in log.folder.glob("*.parquet"):
        path.unlink()
    (log.folder / "ticks-left.journal").write_bytes(left + b"torn")
    sealed = subprocess.run(
        [*COMMAND, "data", "seal", "-w", str(tmp_path), "-o", "json"], capture_output=True, text=True, check=True
    )
    assert [item["rows"] for item in json.loads(sealed.stdout)["datasets"]] == [{"trades": 600}]
    wrong = subprocess.run(
        [*COMMAND, "data", "seal", "-w", str(tmp_path), "--feed", "/etc"], capture_output=True, text=True
    )
    assert (wrong.returncode, "symbol must be" in wrong.stderr) == (2, True)


def test_what_no_column_holds_is_put_aside(tmp_path: Path) -> None:
    """A time beyond 64 bits in a journal costs that journal, renamed and counted; the recorder starts."""
    log = open_log(tmp_path, flush_s=0.01)
    log.append(tick(1, ts_event=2**63 + 5))
    log.close()
    assert log.counts.unreadable == 1
    assert len(list(log.folder.glob("*.unreadable"))) == 1
