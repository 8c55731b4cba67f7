"""Append rows to Parquet from a thread of its own: it can lose rows, and then says how many; it cannot delay its caller.

Rows go to an append-only journal (``*.journal``: frames of length, CRC-32 and msgpack) every tenth of a second, and a
full journal becomes one Parquet file by way of a temporary file and a rename. A process that is killed loses at most the
rows of the last tenth of a second: the journal's readable part is converted when the next log opens in the same folder,
by the same function that a rotation calls.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar
from zlib import crc32

import msgspec

from probatum.adapters.atomic import write_atomic
from probatum.core.clock import Clock, format_utc
from probatum.core.errors import ParameterError, StorageError

FRAME_ROWS = 256
_HEAD = struct.Struct("<II")
_FRAME_BYTES_MAX = 64 << 20
_PAUSE_S = 0.002

Row = TypeVar("Row")
ToParquet = Callable[[bytes, Sequence[bytes], float], tuple[int, bytes]]
"""Turn a journal's head and its frames of rows into (rows, the bytes of a Parquet file), sleeping so long between slices."""


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Declare the bounds of the log: rows waiting in memory, rows and age of a file, and how often it is written."""

    queue_rows: int = 20_000
    rotate_rows: int = 50_000
    rotate_s: float = 300.0
    flush_s: float = 0.1

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) > 0:
                raise ParameterError(name, "greater than 0", getattr(self, name))


class LogCounts(msgspec.Struct):
    """Count rows by what became of them: offered = written + shed + failed + those still waiting."""

    offered: int = 0
    written: int = 0
    shed: int = 0
    failed: int = 0
    recovered: int = 0
    torn_bytes: int = 0
    unreadable: int = 0


class ParquetLog(Generic[Row]):
    """Write rows to ``folder``; :meth:`append` never blocks, never raises, and sheds when full.

    ``head`` describes the rows and begins each journal. Opening converts what a killed process left behind. Several
    processes may share a folder: each locks its journal. Raises StorageError when the folder cannot be made.
    """

    def __init__(
        self, folder: Path, prefix: str, head: bytes, to_parquet: ToParquet, clock: Clock, settings: LogSettings
    ) -> None:
        self.folder, self.settings = folder, settings
        self.counts = LogCounts()
        self._prefix, self._head, self._to_parquet, self._clock = prefix, head, to_parquet, clock
        self._queue: deque[Row] = deque()
        self._limit = self.settings.queue_rows
        self._journal: _Journal | None = None
        self._stop = threading.Event()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror or error}", file=str(folder)) from None
        import polars  # noqa: F401  here, so that the thread never imports it while replies are due

        self.counts.recovered = self._convert_leftovers(pause_s=0.0)
        self._thread = threading.Thread(target=self._run, name=f"{prefix}-log", daemon=True)
        self._thread.start()

    def append(self, row: Row) -> bool:
        """Take a row to be written later; False (and counted) when too many wait already."""
        self.counts.offered += 1
        if len(self._queue) >= self._limit:
            self.counts.shed += 1
            return False
        self._queue.append(row)
        return True

    @property
    def waiting(self) -> int:
        """Return how many rows are in memory only: what a kill would lose now."""
        return len(self._queue)

    def close(self) -> None:
        """Write what waits, convert the journal to Parquet, and stop the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.settings.flush_s):
            self._flush()
            if self._journal and self._journal.is_due(self.settings, time.monotonic()):
                self._rotate(_PAUSE_S)
        self._flush()
        self._rotate(0.0)

    def _flush(self) -> None:
        while self._queue:
            rows = [self._queue.popleft() for _ in range(min(FRAME_ROWS, len(self._queue)))]
            try:
                self._journal = self._journal or _Journal.create(self._new_path(), self._head)
                self._journal.write(msgspec.msgpack.encode(rows), len(rows))
            except Exception:
                self.counts.failed += len(rows)  # a full disk, or text that has no UTF-8: it costs rows, never a reply
            else:
                self.counts.written += len(rows)

    def _rotate(self, pause_s: float) -> None:
        if self._journal:
            self._journal.close()
            self._journal = None
        self._convert_leftovers(pause_s)

    def _convert_leftovers(self, pause_s: float) -> int:
        converted = 0
        for path in sorted(self.folder.glob("*.journal")):
            with suppress(OSError, StorageError):  # in use, or the disk is full: the journal stays for the next time
                try:
                    rows, torn = convert_journal(path, self._to_parquet, pause_s)
                except (ValueError, TypeError, msgspec.MsgspecError):  # another version's: kept for it, out of the way
                    self.counts.unreadable += 1
                    path.rename(path.with_suffix(".unreadable"))
                    continue
                self.counts.torn_bytes += torn
                converted += rows
        return converted

    def _new_path(self) -> Path:
        stamp = format_utc(self._clock.now_ns()).replace(":", "").replace("-", "")
        return self.folder / f"{self._prefix}-{stamp}-{os.getpid()}-{time.monotonic_ns():x}.journal"


class _Journal:
    """Append frames to a locked file; a frame that did not fit is cut off again, so that the next one is readable."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = 0
        self._rows = 0
        self._opened_s = time.monotonic()

    @staticmethod
    def create(path: Path, head: bytes) -> _Journal:
        file = path.open("xb", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        journal = _Journal(file)
        try:
            journal._append(head)
        except OSError:
            journal.close()
            path.unlink(missing_ok=True)
            raise
        return journal

    def write(self, payload: bytes, rows: int) -> None:
        self._append(payload)
        self._rows += rows

    def _append(self, payload: bytes) -> None:
        frame = _HEAD.pack(len(payload), crc32(payload)) + payload
        try:
            written = self._file.write(frame)
        except OSError:
            self._file.truncate(self._end)
            raise
        if written != len(frame):
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise OSError("journal: short write")
        self._end += len(frame)

    def is_due(self, settings: LogSettings, now_s: float) -> bool:
        return self._rows >= settings.rotate_rows or now_s - self._opened_s >= settings.rotate_s

    def close(self) -> None:
        self._file.close()


def convert_journal(path: Path, to_parquet: ToParquet, pause_s: float = 0.0) -> tuple[int, int]:
    """Turn a journal that nobody writes any more into the Parquet file beside it; return (rows, torn bytes left out).

    The Parquet file's name follows from the journal's, so doing it twice is doing it once. ``pause_s`` sleeps between
    slices, for a process that has replies to give. Raises BlockingIOError when the journal is in use, and StorageError
    when Parquet cannot be written; the journal is kept in both cases.
    """
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists():
            return 0, 0  # another process has just done it
        frames = list(frames_of(file))
        torn = path.stat().st_size - sum(_HEAD.size + len(payload) for payload in frames)
        rows = 0
        if len(frames) > 1:
            rows, data = to_parquet(frames[0], frames[1:], pause_s)
            write_atomic(path.with_suffix(".parquet"), data)
        path.unlink()
    return rows, torn


def frames_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield the frames of a journal that are whole, in order."""
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        if length > _FRAME_BYTES_MAX:
            return
        payload = file.read(length)
        if len(payload) != length or crc32(payload) != checksum:
            return
        yield payload
