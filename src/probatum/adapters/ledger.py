"""Keep the evidence chain in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from probatum.core.canonical import canonical_json, parse_json, sha256_hex
from probatum.core.clock import Clock, format_utc
from probatum.core.errors import IntegrityError, StorageError
from probatum.core.verdict import Provenance
from probatum.pipeline.evidence import GENESIS, preimage, seal
from probatum.pipeline.ports import Record

# Portable SQL: PostgreSQL takes the same statements. Each entry leads from version i to version i + 1.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE ledger_schema (version INTEGER NOT NULL)",
        "INSERT INTO ledger_schema (version) VALUES (0)",
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, ts TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,"
        " provenance TEXT NOT NULL, body TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL)",
    ),
)
# SQLite's own words for "append only".
GUARDS = {
    f"records_no_{verb.lower()}": f"CREATE TRIGGER records_no_{verb.lower()} BEFORE {verb} ON records"
    " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for verb in ("UPDATE", "DELETE")
}
COLUMNS = ("seq", "ts", "kind", "subject", "provenance", "body", "prev", "hash")
BUSY_S = 15.0


class SqliteLedger:
    """Append records under a write lock; read them without one. Implements ``pipeline.ports.Ledger``.

    Each call opens its own connection, so threads and processes may share the file. Reads check each row's hash.
    Raises StorageError when the file is locked, read-only, full or written by a newer version, IntegrityError (naming
    the row) when it is damaged.
    """

    def __init__(self, path: Path, clock: Clock, *, busy_s: float = BUSY_S) -> None:
        self.path = path
        self._clock = clock
        self._busy_s = busy_s

    def append(self, kind: str, subject: str, provenance: Provenance, body: dict[str, Any]) -> Record:
        """Append one record in one transaction, synced to disk before this returns."""
        with self._translated("nothing was appended"), closing(self._open_to_write()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._migrate(connection)
            newest = self._newest(connection)
            seq, prev = (newest.seq + 1, newest.hash) if newest else (1, GENESIS)
            record = seal(seq, format_utc(self._clock.now_ns()), kind, subject, provenance, body, prev)
            text = canonical_json(record.body).decode()
            row = (seq, record.ts, kind, subject, provenance.value, text, prev, record.hash)
            connection.execute(f"INSERT INTO records VALUES ({', '.join('?' * len(COLUMNS))})", row)
            connection.execute("COMMIT")
            return record

    def records(self, *, kind: str | None = None, subject: str | None = None, after: int = 0) -> Iterator[Record]:
        """Yield records in order, each checked against its hash. A ledger that is not there yet holds none."""
        wanted = {"kind": kind, "subject": subject}
        filters = [f"{name} = ?" for name, value in wanted.items() if value is not None]
        where = " AND ".join(["seq > ?", *filters])
        with self._translated("not read"), self._open_to_read() as connection:
            if connection and not filters and not after:
                self._check_pages(connection)
            query = f"SELECT {', '.join(COLUMNS)} FROM records WHERE {where} ORDER BY seq"
            values = [after, *(value for value in wanted.values() if value is not None)]
            for row in connection.execute(query, values) if connection else ():
                yield self._record(row)

    def head(self) -> str:
        """Return the hash of the last record, or 64 zeros."""
        with self._translated("not read"), self._open_to_read() as connection:
            newest = self._newest(connection) if connection else None
            return newest.hash if newest else GENESIS

    def _check_pages(self, connection: sqlite3.Connection) -> None:
        """Find what a hash cannot: pages that no longer lead to all their rows."""
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != b"ok":
            raise IntegrityError(str(self.path), f"damaged: {found.decode(errors='replace')}")

    def _newest(self, connection: sqlite3.Connection) -> Record | None:
        row = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM records ORDER BY seq DESC LIMIT 1").fetchone()
        return self._record(row) if row else None

    def _record(self, row: tuple[Any, ...]) -> Record:
        place = f"{self.path}, record {row[0]}"
        for name, value in zip(COLUMNS, row, strict=True):
            if not isinstance(value, int if name == "seq" else bytes):
                raise IntegrityError(f"{place}, field {name}", "not of the type that was written")
        try:
            ts, kind, subject, provenance, _, prev, digest = (value.decode() for value in row[1:])
            if sha256_hex(preimage(row[0], ts, kind, subject, provenance, row[5], prev)) != digest:
                raise IntegrityError(place, "the row was changed: its fields do not give its hash")
            return Record(row[0], ts, kind, subject, Provenance(provenance), parse_json(row[5]), prev, digest)
        except ValueError as error:
            raise IntegrityError(place, f"the row was changed: {error}") from None

    def _open_to_write(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect("rwc")
        with suppress(
            sqlite3.OperationalError
        ):  # a rival may be switching it at this moment; the append itself will tell
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    @contextmanager
    def _open_to_read(self) -> Iterator[sqlite3.Connection | None]:
        if not self.path.exists():
            yield None
            return
        with closing(self._connect_to_read()) as connection:
            version = self._version(connection)
            yield connection if version else None

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
        version = connection.execute("SELECT version FROM ledger_schema").fetchone()
        if not version or not isinstance(version[0], int) or version[0] < 1:
            raise IntegrityError(f"{self.path}, table ledger_schema", "holds no version")
        if version[0] > len(MIGRATIONS):
            problem = f"written by a newer Probatum (schema {version[0]}; this one reads {len(MIGRATIONS)})"
            raise StorageError(f"{self.path}: {problem}", file=str(self.path))
        for name, sql in GUARDS.items():
            if found.get(name) != sql.encode():
                raise IntegrityError(f"{self.path}, trigger {name}", "missing or changed: rows may have been edited")
        return int(version[0])

    def _migrate(self, connection: sqlite3.Connection) -> None:
        for version in range(self._version(connection), len(MIGRATIONS)):
            for statement in (*MIGRATIONS[version], *(GUARDS.values() if version == 0 else ())):
                connection.execute(statement)
            connection.execute("UPDATE ledger_schema SET version = ?", (version + 1,))

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


def _code(error: sqlite3.Error) -> str:
    """Return SQLite's primary name of an error: SQLITE_IOERR for SQLITE_IOERR_WRITE."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return "_".join(name.split("_")[:2])
