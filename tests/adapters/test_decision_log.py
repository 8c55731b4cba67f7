"""The decision log loses nothing that it does not count, and shows no half-written file."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from zlib import crc32

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.adapters.decision_log import ParquetDecisionLog, decisions_parquet
from probatum.adapters.journal import LogSettings, convert_journal
from probatum.core.clock import SystemClock
from probatum.core.errors import StorageError
from probatum.models.artifact import FeatureSpec
from probatum.monitoring.shadow import DecisionRow

SPEC = FeatureSpec("toy", ("x", "y"), "f" * 64)


def row(seq: int, **fields: object) -> DecisionRow:
    made = DecisionRow(seq, 10**18 + seq, 0, f"id-{seq}", "s", "BTCUSDT", "", [seq / 3.0, -0.1 * seq], 0.5, 1_000)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def open_log(folder: Path, **changes: float) -> ParquetDecisionLog:
    return ParquetDecisionLog(folder, SPEC, SystemClock(), LogSettings(**changes))


def read(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]).sort("seq")


def test_rows_come_back_bit_for_bit(tmp_path: Path) -> None:
    """Every field of every row is in the Parquet files after closing; floats keep all their bits, None stays null."""
    log = open_log(tmp_path, rotate_rows=300, flush_s=0.01)
    rows = [row(i, challenger=None if i % 2 else i / 7, outcome="timeout" if i % 2 else "ok") for i in range(1, 1001)]
    for item in rows:
        assert log.append(item)
    log.close()
    frame = read(tmp_path)
    assert frame["seq"].to_list() == list(range(1, 1001))
    assert frame["f_x"].to_list() == [item.features[0] for item in rows]
    assert frame["f_y"].to_list() == [item.features[1] for item in rows]
    assert frame["challenger"].to_list() == [item.challenger for item in rows]
    assert set(frame["outcome"]) == {"ok", "timeout"}
    assert (log.counts.offered, log.counts.written, log.counts.shed, log.counts.failed) == (1000, 1000, 0, 0)
    assert not list(tmp_path.glob("*.journal"))
    assert not list(tmp_path.glob(".*"))
    assert pl.read_parquet_metadata(next(tmp_path.glob("*.parquet")))["fingerprint"] == SPEC.fingerprint


def test_a_full_queue_sheds_and_counts(tmp_path: Path) -> None:
    """Beyond its bound the log drops rows at once, says so, and the gaps in seq name them."""
    log = open_log(tmp_path, queue_rows=10, flush_s=30.0)
    taken = [i for i in range(1, 26) if log.append(row(i))]
    log.close()
    assert taken == list(range(1, 11))
    assert (log.counts.offered, log.counts.written, log.counts.shed) == (25, 10, 15)
    assert read(tmp_path)["seq"].to_list() == taken


def test_text_without_utf8_costs_its_frame_only(tmp_path: Path) -> None:
    """A lone surrogate (a library caller can pass one) is counted as failed, and the thread goes on."""
    log = open_log(tmp_path, flush_s=0.01)
    log.append(row(1, decision_id="\ud800"))
    while log.waiting:
        time.sleep(0.005)
    log.append(row(2))
    log.close()
    assert (log.counts.failed, log.counts.written) == (1, 1)
    assert read(tmp_path)["seq"].to_list() == [2]


WRITER = """
    import sys
    from pathlib import Path
    from tests_log import open_log, row
    log = open_log(Path(sys.argv[1]), flush_s=0.02)
    seq = 0
    while True:
        seq += 1
        log.append(row(seq))
        if seq % 50 == 0:
            print(seq, log.counts.written, flush=True)
            import time; time.sleep(0.01)
"""


def test_a_killed_process_loses_only_its_unwritten_tail(tmp_path: Path) -> None:
    """After kill -9 no Parquet file is visible; the next log recovers every row that was written, as a gapless start."""
    (tmp_path / "tests_log.py").write_text(Path(__file__).read_text())
    folder = tmp_path / "log"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        written = int(line.split()[1])
        if written > 500:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(folder.glob("*.parquet"))
    log = open_log(folder)
    assert log.counts.recovered >= written
    assert read(folder)["seq"].to_list() == list(range(1, log.counts.recovered + 1))
    log.close()


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 4_000), junk=st.binary(max_size=64))
def test_any_torn_tail_is_left_out(tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes) -> None:
    """Wherever a journal is cut, and whatever follows, the whole frames before the cut are recovered, and no other row."""
    folder = tmp_path_factory.mktemp("torn")
    journal = folder / "a.journal"
    journal.write_bytes(journal_bytes(tmp_path_factory)[:-cut] + junk)
    rows, torn = convert_journal(journal, decisions_parquet)
    assert not journal.exists()
    assert rows % 256 == 0 or rows == 600
    assert torn > 0
    if rows:
        assert pl.read_parquet(folder / "a.parquet")["seq"].to_list() == list(range(1, rows + 1))


_CACHE: list[bytes] = []


def journal_bytes(factory: pytest.TempPathFactory) -> bytes:
    if not _CACHE:
        folder = factory.mktemp("whole")
        log = open_log(folder, flush_s=30.0)
        for i in range(1, 601):
            log.append(row(i))
        log._flush()
        _CACHE.append(next(folder.glob("*.journal")).read_bytes())
        log.close()
    return _CACHE[0]


def test_a_journal_in_use_is_left_alone(tmp_path: Path) -> None:
    """A second log in the same folder does not take the first one's journal away; both end with all their rows."""
    first = open_log(tmp_path, flush_s=0.01)
    first.append(row(1))
    while not list(tmp_path.glob("*.journal")):
        time.sleep(0.005)
    second = open_log(tmp_path)
    second.append(row(2))
    second.close()
    assert list(tmp_path.glob("*.journal"))
    first.append(row(3))
    first.close()
    assert read(tmp_path)["seq"].to_list() == [1, 2, 3]


def test_a_journal_of_another_version_is_put_aside(tmp_path: Path) -> None:
    """A whole frame that this version cannot read keeps nobody from starting; it is renamed and counted, not deleted."""
    payloads = [msgspec.msgpack.encode(SPEC), msgspec.msgpack.encode([[1, 2, 3]])]
    frames = b"".join(struct.pack("<II", len(item), crc32(item)) + item for item in payloads)
    (tmp_path / "old.journal").write_bytes(frames)
    log = open_log(tmp_path)
    log.close()
    assert (log.counts.unreadable, log.counts.recovered) == (1, 0)
    assert (tmp_path / "old.unreadable").read_bytes() == frames


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file where the folder should be is a StorageError at the start, not a surprise later."""
    (tmp_path / "log").write_text("")
    with pytest.raises(StorageError, match="log"):
        open_log(tmp_path / "log")


def test_a_full_disk_costs_rows_and_leaves_no_broken_file(tmp_path: Path) -> None:
    """On a disk too small every row is written or counted as failed, and what can be read is whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        log = open_log(disk, flush_s=0.01)
        for i in range(1, 3001):
            log.append(row(i))
        log.close()
        assert log.counts.offered == 3000 == log.counts.written + log.counts.failed
        assert log.counts.failed > 0
        assert log.counts.written > 0
        assert not list(disk.glob(".*.tmp"))
        for path in disk.glob("*.journal"):
            shutil.move(path, tmp_path)
            rows, torn = convert_journal(tmp_path / path.name, decisions_parquet)
            assert (rows, torn) == (log.counts.written, 0)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
