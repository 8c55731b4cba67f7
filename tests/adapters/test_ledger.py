"""The SQLite ledger under rivals, damage, full disks and other people's files."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probatum.adapters.blobs import FileBlobs
from probatum.adapters.evidence_files import EvidenceFiles
from probatum.adapters.ledger import GUARDS, SqliteLedger
from probatum.adapters.ledger_sql import MIGRATIONS
from probatum.core.clock import VirtualClock
from probatum.core.errors import IntegrityError, ParameterError, ProbatumError, StorageError
from probatum.core.verdict import Provenance
from probatum.pipeline.evidence import record_hash
from probatum.pipeline.ports import Record


@pytest.fixture
def ledger(tmp_path: Path) -> SqliteLedger:
    return SqliteLedger(tmp_path / "ledger.db", VirtualClock(), busy_s=0.2)


def fill(ledger: SqliteLedger, count: int = 3, text: str = "") -> list[Record]:
    for number in range(count):
        body = {"inputs": {"note": text}, "figures": {"n": number, "small": 1.5e-7}}
        ledger.append("train", "BTC", Provenance.REPLAY, body)
    return list(ledger.records())


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_rows_can_neither_be_updated_nor_deleted(ledger: SqliteLedger) -> None:
    """The database itself refuses what would rewrite history."""
    fill(ledger)
    for statement in ("UPDATE records SET subject = 'ETH'", "DELETE FROM records WHERE seq = 3"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            execute(ledger.path, statement)
    assert len(list(ledger.records())) == 3


def test_dropping_the_guard_is_noticed(ledger: SqliteLedger) -> None:
    """Who removes the trigger to edit a row leaves a trace, and the edited row another."""
    fill(ledger)
    execute(ledger.path, "DROP TRIGGER records_no_update", "UPDATE records SET subject = 'ETH' WHERE seq = 2")
    with pytest.raises(IntegrityError, match="trigger records_no_update: missing or changed"):
        list(ledger.records())
    execute(ledger.path, GUARDS["records_no_update"])
    with pytest.raises(IntegrityError, match="record 2: the row was changed") as error:
        list(ledger.records())
    assert str(ledger.path) in error.value.place
    execute(
        ledger.path, "DROP TRIGGER records_no_delete", "DELETE FROM records WHERE seq = 3", GUARDS["records_no_delete"]
    )
    with pytest.raises(IntegrityError, match="record 2"):
        fill(ledger)


def test_processes_append_at_once_without_losing_or_forking(tmp_path: Path) -> None:
    """Four processes that create the same ledger and race for its head leave one unbroken chain."""
    path = tmp_path / "new" / "ledger.db"
    program = (
        "import sys; from pathlib import Path; from probatum.adapters.ledger import SqliteLedger;"
        "from probatum.core.clock import SystemClock; from probatum.core.verdict import Provenance;"
        "ledger = SqliteLedger(Path(sys.argv[1]), SystemClock(), busy_s=60);"
        "[ledger.append('a', sys.argv[2], Provenance.REPLAY, {'inputs': {}, 'figures': {'n': n}}) for n in range(15)]"
    )
    rivals = [subprocess.Popen([sys.executable, "-c", program, str(path), f"rival {n}"]) for n in range(4)]
    assert [rival.wait(timeout=120) for rival in rivals] == [0, 0, 0, 0]
    records = list(SqliteLedger(path, VirtualClock()).records())
    assert [r.seq for r in records] == list(range(1, 61))
    assert all(r.prev == p.hash for p, r in pairwise(records))
    for n in range(4):
        assert [r.body["figures"]["n"] for r in records if r.subject == f"rival {n}"] == list(range(15))


def test_a_locked_ledger_says_who_to_wait_for(ledger: SqliteLedger) -> None:
    """Another writer that does not let go is named as the reason; readers are not held up."""
    before = fill(ledger)
    with closing(sqlite3.connect(ledger.path, isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            StorageError, match=r"ledger\.db: nothing was appended: locked by another process for 0\.2 s"
        ):
            fill(ledger)
        assert list(ledger.records()) == before
    assert len(fill(ledger, 1)) == 4


def test_other_peoples_files_are_refused(ledger: SqliteLedger, tmp_path: Path) -> None:
    """A newer schema, another database and a text file each get their own message, and stay untouched."""
    fill(ledger)
    execute(ledger.path, f"UPDATE ledger_schema SET version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StorageError, match="written by a newer Probatum"):
        list(ledger.records())
    other = SqliteLedger(tmp_path / "other.db", VirtualClock())
    execute(other.path, "CREATE TABLE t (x)")
    text = SqliteLedger(tmp_path / "notes.db", VirtualClock())
    text.path.write_text("dear diary " * 1000)
    for stranger, error, message in (
        (other, StorageError, "not a ledger"),
        (text, IntegrityError, "damaged: file is not"),
    ):
        before = stranger.path.read_bytes()
        for use in (stranger.head, lambda s=stranger: fill(s)):
            with pytest.raises(error, match=message):
                use()
        assert stranger.path.read_bytes() == before or stranger is other
    assert ledger.path.is_file()


def test_a_folder_in_place_of_the_file_is_a_storage_error(tmp_path: Path) -> None:
    """What cannot be opened is said with its path."""
    (tmp_path / "ledger.db").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "ledger.db", tmp_path / "file" / "ledger.db"):
        with pytest.raises(StorageError, match=str(path)):
            fill(SqliteLedger(path, VirtualClock()))


def test_names_from_outside_are_data(tmp_path: Path) -> None:
    """A path with URI syntax in it is a path, and quotes in a subject are a subject."""
    ledger = SqliteLedger(tmp_path / "a?mode=ro&#%41" / "ledger.db", VirtualClock())
    record = ledger.append("a", "'); DROP TABLE records; --", Provenance.REPLAY, {"inputs": {}, "figures": {}})
    assert list(ledger.records()) == [record]
    assert ledger.path.is_file()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, list[Record]]:
    ledger = SqliteLedger(tmp_path_factory.mktemp("flip") / "ledger.db", VirtualClock())
    records = fill(ledger, 12, text="x" * 700)
    return ledger.path, ledger.path.read_bytes(), records


def read_damaged(path: Path, data: bytes, where: int, flip: int) -> list[Record] | str:
    """Return the records that a damaged copy yields, or the message of the refusal."""
    damaged = bytearray(data)
    damaged[where % len(data)] ^= flip
    path.write_bytes(damaged)
    try:
        return list(SqliteLedger(path, VirtualClock()).records())
    except ProbatumError as error:
        return error.message
    finally:
        for file in path.parent.iterdir():
            file.unlink()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 10**9), flip=st.integers(1, 255))
def test_a_flipped_byte_anywhere_in_the_file_is_named_or_harmless(
    sample: tuple[Path, bytes, list[Record]], where: int, flip: int
) -> None:
    """Either the reader refuses, or it reads exactly the records that were written (bytes that SQLite does not use)."""
    path, data, records = sample
    read = read_damaged(path, data, where, flip)
    assert read == records or str(path) in read


def test_no_flip_in_the_pages_bookkeeping_loses_a_row_unseen(sample: tuple[Path, bytes, list[Record]]) -> None:
    """Row counts and page pointers are no payload; a flip there must not shorten the chain in silence."""
    path, data, records = sample
    headers = [*range(16, 140), *(page + offset for page in range(4096, len(data), 4096) for offset in range(24))]
    for where in headers:
        read = read_damaged(path, data, where, 1)
        assert read == records or str(path) in read, where


def test_every_flipped_payload_byte_names_its_record(sample: tuple[Path, bytes, list[Record]]) -> None:
    """In the stored rows themselves no flip goes unseen, and the record is named."""
    path, data, records = sample
    start = data.index(b'{"figures":{"n":5')
    for offset in range(60):
        damaged = bytearray(data)
        damaged[start + offset] ^= 0x20
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match="record 6: the row was changed"):
            list(SqliteLedger(path, VirtualClock()).records())
    assert all(record.hash == record_hash(record) for record in records)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a tmpfs of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small tmpfs needs root and the right to mount")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_leaves_the_chain_whole(small_disk: Path) -> None:
    """An append that finds no room says so by file name; what was there can be read, and appended to once there is room."""
    ledger = SqliteLedger(small_disk / "ledger.db", VirtualClock())
    before = fill(ledger, 2)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(b"x" * 300_000)
    with pytest.raises(StorageError, match=r"ledger\.db: nothing was appended: .*(full|disk)"):
        fill(ledger, 1)
    assert list(ledger.records()) == before
    assert ledger.head() == before[-1].hash
    ballast.unlink()
    assert len(fill(ledger, 1)) == 3


def test_a_ledger_that_outgrows_its_disk_stops_at_a_whole_record(small_disk: Path) -> None:
    """However the last append fails, the records before it stand."""
    ledger = SqliteLedger(small_disk / "ledger.db", VirtualClock())
    appended = [1]
    with pytest.raises(StorageError, match=r"ledger\.db"):
        fill_forever(ledger, appended)
    records = list(ledger.records())
    assert [r.seq for r in records] == appended[:-1]
    assert len(records) > 3


def fill_forever(ledger: SqliteLedger, tried: list[int]) -> None:
    while True:
        body = {"inputs": {"note": "x" * 9_000}, "figures": {}}
        ledger.append("train", "BTC", Provenance.REPLAY, body)
        tried.append(tried[-1] + 1)


def test_files_on_a_full_disk_are_old_or_new_never_half(small_disk: Path) -> None:
    """The message names the file, the old content stays, and no temporary file is left."""
    files, blobs = EvidenceFiles(small_disk / "ml"), FileBlobs(small_disk / "blobs")
    files.write({"a.json": b"old"})
    for attempt in (lambda: files.write({"a.json": b"n" * 300_000}), lambda: blobs.put("artifact", b"n" * 300_000)):
        with pytest.raises(StorageError, match=r"(a|[0-9a-f]{64})\.json: not written: No space left"):
            attempt()
    assert files.read("a.json") == b"old"
    assert [path.name for path in small_disk.rglob("*") if path.is_file()] == ["a.json"]


def test_read_only_media_can_be_read_and_say_so_when_written(small_disk: Path) -> None:
    """An auditor mounts the evidence read-only: reading works, appending names the file."""
    ledger = SqliteLedger(small_disk / "ledger.db", VirtualClock())
    before = fill(ledger)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert list(ledger.records()) == before
    with pytest.raises(StorageError, match=r"ledger\.db: nothing was appended: .*read-?only"):
        fill(ledger)
    with pytest.raises(StorageError, match="Read-only"):
        EvidenceFiles(small_disk / "ml").write({"a.txt": b""})


def test_evidence_files_stay_in_their_folder(tmp_path: Path) -> None:
    """A name that climbs out, is absolute or empty is refused."""
    files = EvidenceFiles(tmp_path / "ml")
    for name in ("../x", "a/../../x", "/etc/x", "", "a//b", "a\\..\\b", "a/\0"):
        with pytest.raises(ParameterError):
            files.write({name: b""})
    assert list(tmp_path.rglob("*")) == []


def test_a_changed_blob_is_named_by_its_file(tmp_path: Path) -> None:
    """Reading verifies; storing the true bytes again repairs."""
    blobs = FileBlobs(tmp_path)
    digest = blobs.put("predictions", b"true")
    path = tmp_path / "predictions" / f"{digest}.parquet"
    path.write_bytes(b"truf")
    with pytest.raises(IntegrityError, match=rf"{path}: the bytes were changed"):
        blobs.get("predictions", digest)
    blobs.put("predictions", b"true")
    assert blobs.get("predictions", digest) == b"true"
    with pytest.raises(ParameterError, match="64 lower-case hex digits"):
        blobs.get("predictions", "../../etc/passwd")
