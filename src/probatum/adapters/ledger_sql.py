"""Share what every SQL ledger does: one schema, one way to append, read, check and fence. Databases differ in the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from probatum.core.canonical import canonical_json, parse_json, sha256_hex
from probatum.core.clock import Clock, format_utc
from probatum.core.errors import IntegrityError, OvertakenError, StorageError
from probatum.core.verdict import Provenance
from probatum.pipeline.evidence import GENESIS, preimage, seal
from probatum.pipeline.ports import Entry, Record

# Portable SQL. Each entry leads from version i to version i + 1; the guards of a database go with the first.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE ledger_schema (version INTEGER NOT NULL)",
        "INSERT INTO ledger_schema (version) VALUES (0)",
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, ts TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,"
        " provenance TEXT NOT NULL, body TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL)",
    ),
    (
        "CREATE TABLE leadership (epoch INTEGER NOT NULL, holder TEXT NOT NULL, expires_ns BIGINT NOT NULL)",
        "INSERT INTO leadership (epoch, holder, expires_ns) VALUES (0, '', 0)",
    ),
)
COLUMNS = ("seq", "ts", "kind", "subject", "provenance", "body", "prev", "hash")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM records"
INSERT = f"INSERT INTO records VALUES ({', '.join('?' * len(COLUMNS))})"

Execute = Callable[..., Any]
"""Run one statement, its values after it in place of the question marks, and return the cursor; texts come as bytes."""


class SqlLedger(ABC):
    """Append records under a write lock; read them without one. Implements ``pipeline.ports.Ledger``.

    ``place`` is how messages name the database. Reads check each row's hash. Raises StorageError when the database
    refuses or was written by a newer version, IntegrityError (naming the row) when it is damaged.
    """

    def __init__(self, place: str, clock: Clock) -> None:
        self.place = place
        self._clock = clock

    @abstractmethod
    def writing(self, outcome: str = "nothing was appended") -> AbstractContextManager[Execute]:
        """Hold the one write lock, on a migrated schema; commit at the end. ``outcome`` says what failing means."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[Execute | None]:
        """Read without a lock; None where no ledger is there yet."""

    def append(self, kind: str, subject: str, provenance: Provenance, body: dict[str, Any]) -> Record:
        """Append one record in one transaction, synced to disk before this returns."""
        return self.append_all([Entry(kind, subject, provenance, body)])[0]

    def append_all(
        self, entries: Sequence[Entry], *, epoch: int | None = None, seen: int | None = None
    ) -> tuple[Record, ...]:
        """Append records in one transaction, unless somebody else leads or has acted since (OvertakenError)."""
        with self.writing() as execute:
            if epoch is not None:
                _refuse_deposed(execute, epoch)
            if seen is not None:
                _refuse_unseen(execute, entries[0], seen)
            return tuple(self._append(execute, entry) for entry in entries)

    def _append(self, execute: Execute, entry: Entry) -> Record:
        newest = self._newest(execute)
        seq, prev = (newest.seq + 1, newest.hash) if newest else (1, GENESIS)
        ts = format_utc(self._clock.now_ns())
        record = seal(seq, ts, entry.kind, entry.subject, entry.provenance, entry.body, prev)
        text = canonical_json(record.body).decode()
        execute(INSERT, seq, ts, record.kind, record.subject, record.provenance.value, text, prev, record.hash)
        return record

    def records(self, *, kind: str | None = None, subject: str | None = None, after: int = 0) -> Iterator[Record]:
        """Yield records in order, each checked against its hash. A ledger that is not there yet holds none."""
        wanted = {name: value for name, value in (("kind", kind), ("subject", subject)) if value is not None}
        where = " AND ".join(["seq > ?", *(f"{name} = ?" for name in wanted)])
        with self.reading() as execute:
            if execute is None:
                return
            if not wanted and not after:
                self.check_pages(execute)
            for row in execute(f"{SELECT} WHERE {where} ORDER BY seq", after, *wanted.values()):
                yield self.record(row)

    def head(self) -> str:
        """Return the hash of the last record, or 64 zeros."""
        with self.reading() as execute:
            newest = self._newest(execute) if execute else None
            return newest.hash if newest else GENESIS

    def newest(self, execute: Execute, kind: str, after: int) -> tuple[int, Record | None]:
        """Return the last record's number, and the newest record of a kind beyond ``after``, if there is one."""
        (head,) = execute("SELECT coalesce(max(seq), 0) FROM records").fetchone()
        query = f"{SELECT} WHERE seq > ? AND seq <= ? AND kind = ? ORDER BY seq DESC LIMIT 1"
        row = execute(query, after, head, kind).fetchone() if head > after else None
        return head, self.record(row) if row else None

    def claim(self, holder: str, now_ns: Callable[[], int], lease_ns: int) -> int | None:
        """Give the lead to ``holder`` for a while and return its epoch; None where the lease of another runs.

        A lease that ends further ahead than any lease lasts was written before a restart of the clock, and is over.
        """
        with self.writing("who leads is not known") as execute:
            now = now_ns()  # under the lock: one read while waiting for it would be older than the lease it judges
            epoch, owner, expires_ns = execute("SELECT epoch, holder, expires_ns FROM leadership").fetchone()
            if owner != holder.encode():
                if 0 < expires_ns - now <= lease_ns:
                    return None
                epoch += 1
            execute("UPDATE leadership SET epoch = ?, holder = ?, expires_ns = ?", epoch, holder, now + lease_ns)
            return int(epoch)

    def check_pages(self, execute: Execute) -> None:  # noqa: B027  most databases look after their pages
        """Find what a hash cannot, where a database has a way to: rows that its own bookkeeping has lost."""

    def check_version(self, row: tuple[Any, ...] | None) -> int:
        """Return the schema's version; refuse what this version cannot vouch for."""
        if not row or not isinstance(row[0], int) or row[0] < 1:
            raise IntegrityError(f"{self.place}, table ledger_schema", "holds no version")
        if row[0] > len(MIGRATIONS):
            problem = f"written by a newer Probatum (schema {row[0]}; this one reads {len(MIGRATIONS)})"
            raise StorageError(f"{self.place}: {problem}", file=self.place)
        return row[0]

    def migrate(self, execute: Execute, version: int, guards: Sequence[str]) -> None:
        """Bring the schema from a version to the newest."""
        for number in range(version, len(MIGRATIONS)):
            for statement in (*MIGRATIONS[number], *(guards if number == 0 else ())):
                execute(statement)
            execute("UPDATE ledger_schema SET version = ?", number + 1)

    def _newest(self, execute: Execute) -> Record | None:
        row = execute(f"{SELECT} ORDER BY seq DESC LIMIT 1").fetchone()
        return self.record(row) if row else None

    def record(self, row: tuple[Any, ...]) -> Record:
        """Return a row as a record, or raise IntegrityError where its fields do not give its hash."""
        place = f"{self.place}, record {row[0]}"
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


def _refuse_deposed(execute: Execute, epoch: int) -> None:
    (now,) = execute("SELECT epoch FROM leadership").fetchone()
    if now != epoch:
        raise OvertakenError(
            f"another controller leads: epoch {now}, ours was {epoch}; nothing was appended", epoch=now
        )


def _refuse_unseen(execute: Execute, entry: Entry, seen: int) -> None:
    query = "SELECT max(seq) FROM records WHERE seq > ? AND kind = ? AND subject = ?"
    (newer,) = execute(query, seen, entry.kind, entry.subject).fetchone()
    if newer is not None:
        problem = f"record {newer} of {entry.subject} came after {seen}, the last one seen; nothing was appended"
        raise OvertakenError(problem, seq=newer)
