"""Keep the evidence chain in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from probatum.adapters.ledger_sql import Execute, SqlLedger
from probatum.core.clock import Clock
from probatum.core.errors import IntegrityError, StorageError

# SQLite's own words for "append only".
GUARDS = {
    f"records_no_{verb.lower()}": f"CREATE TRIGGER records_no_{verb.lower()} BEFORE {verb} ON records"
    " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for verb in ("UPDATE", "DELETE")
}
BUSY_S = 15.0


class SqliteLedger(SqlLedger):
    """Keep the chain in a file; each call opens its own connection, so threads and processes may share it."""

    def __init__(self, path: Path, clock: Clock, *, busy_s: float = BUSY_S) -> None:
        super().__init__(str(path), clock)
        self.path = path
        self._busy_s = busy_s

    @contextmanager
    def writing(self, outcome: str = "nothing was appended") -> Iterator[Execute]:
        with self._translated(outcome), closing(self._open_to_write()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            execute = _execute(connection)
            self.migrate(execute, self._version(connection), tuple(GUARDS.values()))
            yield execute
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[Execute | None]:
        if not self.path.exists():
            yield None
            return
        with self._translated("not read"), closing(self._connect_to_read()) as connection:
            version = self._version(connection)
            yield _execute(connection) if version else None

    def check_pages(self, execute: Execute) -> None:
        """Find pages that no longer lead to all their rows."""
        (found,) = execute("PRAGMA quick_check(1)").fetchone()
        if found != b"ok":
            raise IntegrityError(self.place, f"damaged: {found.decode(errors='replace')}")

    def _open_to_write(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect("rwc")
        with suppress(
            sqlite3.OperationalError
        ):  # a rival may be switching it at this moment; the append itself will tell
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _connect_to_read(self) -> sqlite3.Connection:
        connection = self._connect("ro")
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            connection.close()
            log = self.path.with_name(self.path.name + "-wal")
            blocked = isinstance(error, sqlite3.OperationalError) and _code(error) != "SQLITE_BUSY"
            if not blocked or (log.exists() and log.stat().st_size):
                raise
            # On read-only media or a full disk there is no room for the index of the (empty) log: read the file alone.
            return self._connect("ro&immutable=1")
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        address = f"file:{quote(str(self.path.resolve()))}?mode={mode}"
        connection = sqlite3.connect(address, uri=True, timeout=self._busy_s, isolation_level=None)
        connection.text_factory = bytes
        return connection

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return the schema's version, 0 for an empty file; refuse what this version cannot vouch for."""
        found = {name.decode(): sql for name, sql in connection.execute("SELECT name, sql FROM sqlite_master")}
        if not found:
            return 0
        if "ledger_schema" not in found:
            raise StorageError(f"{self.path}: not a ledger: a database of something else", file=str(self.path))
        version = self.check_version(connection.execute("SELECT version FROM ledger_schema").fetchone())
        for name, sql in GUARDS.items():
            if found.get(name) != sql.encode():
                raise IntegrityError(f"{self.path}, trigger {name}", "missing or changed: rows may have been edited")
        return version

    @contextmanager
    def _translated(self, outcome: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if _code(error) in ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"):
                raise IntegrityError(str(self.path), f"damaged: {error}") from None
            reason = (
                f"locked by another process for {self._busy_s:g} s" if _code(error) == "SQLITE_BUSY" else str(error)
            )
            raise StorageError(f"{self.path}: {outcome}: {reason}", file=str(self.path)) from None
        except UnicodeDecodeError as error:  # Python's words for a damaged name of a table or column
            raise IntegrityError(str(self.path), f"damaged: {error}") from None
        except OSError as error:
            raise StorageError(f"{self.path}: {outcome}: {error.strerror or error}", file=str(self.path)) from None


def _execute(connection: sqlite3.Connection) -> Execute:
    def execute(statement: str, *values: Any) -> sqlite3.Cursor:
        return connection.execute(statement, values)

    return execute


def _code(error: sqlite3.Error) -> str:
    """Return SQLite's primary name of an error: SQLITE_IOERR for SQLITE_IOERR_WRITE."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return "_".join(name.split("_")[:2])
