"""Keep the evidence chain in PostgreSQL: the schema of the SQLite ledger, for controllers and executors on several machines."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from typing import Any, LiteralString

from probatum.adapters.ledger_sql import Execute, SqlLedger
from probatum.core.clock import Clock
from probatum.core.errors import IntegrityError, MissingExtraError, ParameterError, StorageError

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as error:
    raise MissingExtraError(
        "postgres", f"the ledger is in PostgreSQL and psycopg cannot be imported ({error})"
    ) from None

CHANNEL = "probatum_ledger"
"""Notified on each append."""
ANSWER_S = 15.0
# Name, the type bits of pg_trigger (before; row or statement; which verb) and how it is made.
GUARDS = {"records_no_update": (19, "UPDATE", "ROW"), "records_no_delete": (11, "DELETE", "ROW"),
          "records_no_truncate": (34, "TRUNCATE", "STATEMENT")}  # fmt: skip
_REFUSAL = "BEGIN RAISE EXCEPTION 'the ledger is append-only'; END"
_GUARDING = (
    f"CREATE FUNCTION records_refuse() RETURNS trigger LANGUAGE plpgsql AS $${_REFUSAL}$$",
    *(
        f"CREATE TRIGGER {name} BEFORE {verb} ON records FOR EACH {each} EXECUTE FUNCTION records_refuse()"
        for name, (_, verb, each) in GUARDS.items()
    ),
    *(f"ALTER TABLE records ENABLE ALWAYS TRIGGER {name}" for name in GUARDS),
)
_GUARDS_FOUND = (
    "SELECT t.tgname::text, t.tgtype::int FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgenabled = 'A'"
    " AND t.tgrelid = 'records'::regclass AND t.tgqual IS NULL AND t.tgattr::text = '' AND p.prosrc = ?"
)
# Advisory locks are the database's, so each schema takes its own. An append is on disk when it returns.
_LOCK_TO_APPEND = (
    "SELECT pg_advisory_xact_lock(1886544993, hashtext('append ' || current_schema())), set_config('synchronous_commit',"
    " replace(current_setting('synchronous_commit'), 'off', 'on'), true)"
)
TRY_TO_LEAD = "SELECT pg_try_advisory_lock(1886544994, hashtext('lead ' || current_schema()))"
# Either side notices within seconds that the other is dead.
_OPTIONS = " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=5"
_PARAMETERS: dict[str, Any] = {"connect_timeout": 2, "tcp_user_timeout": 2_000, "keepalives_idle": 2, "keepalives_interval": 1,
               "keepalives_count": 2, "client_encoding": "utf8", "application_name": "probatum"}  # fmt: skip


class PostgresLedger(SqlLedger):
    """Keep the chain in the first schema of the search path; each call opens its own connection.

    ``url`` begins with postgresql://. An append that gets no answer within ``answer_s`` is given up.
    """

    def __init__(self, url: str, clock: Clock, *, answer_s: float = ANSWER_S) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.Error:  # its message may hold the password
            raise ParameterError(
                "PROBATUM_LEDGER_URL", "a URL like postgresql://user@host/database", "(not shown)"
            ) from None
        where = f"{given.get('host') or 'localhost'}:{given.get('port') or 5432}/{given.get('dbname') or ''}"
        super().__init__(f"postgresql://{where}", clock)
        options = f"{given.get('options') or ''}{_OPTIONS}"
        parameters = {k: v for k, v in _PARAMETERS.items() if k not in given}
        self._conninfo = make_conninfo(url, **parameters, options=options)
        self._answer_s = answer_s

    @contextmanager
    def writing(self, outcome: str = "nothing was appended") -> Iterator[Execute]:
        with self.translated(outcome), closing(self.connect()) as session, self.bounded(session):
            execute = execute_on(session)
            execute("BEGIN")
            execute(_LOCK_TO_APPEND)
            self.migrate(execute, self.version(execute), _GUARDING)
            yield execute
            execute("SELECT pg_notify(?, '')", CHANNEL)
            with self.translated("whether it was done is not known"):
                execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[Execute | None]:
        with self.translated("not read"), closing(self.connect()) as session:
            with self.bounded(session):
                version = self.version(execute_on(session))
            if not version:
                yield None
                return
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            number = count()

            def stream(statement: str, *values: Any) -> _Rows:  # held by the server: a chain need not fit in memory
                cursor = session.cursor(name=f"rows_{next(number)}")
                return _Rows(cursor.execute(_spelled(statement), values))

            yield stream

    def connect(self) -> psycopg.Connection[Any]:
        """Open a session in which each statement commits by itself."""
        return psycopg.connect(self._conninfo, autocommit=True)

    def version(self, execute: Execute) -> int:
        """Return the schema's version, 0 where there is no ledger; refuse what this version cannot vouch for."""
        if execute("SELECT to_regclass('ledger_schema')::text").fetchone()[0] is None:
            return 0
        version = self.check_version(execute("SELECT version FROM ledger_schema").fetchone())
        found = set(execute(_GUARDS_FOUND, _REFUSAL))
        for name, (bits, _, _) in GUARDS.items():
            if (name.encode(), bits) not in found:
                raise IntegrityError(f"{self.place}, trigger {name}", "missing or changed: rows may have been edited")
        return version

    @contextmanager
    def bounded(self, session: psycopg.Connection[Any]) -> Iterator[None]:
        """Cut the session when its server has not answered in time: a stopped one would be waited for for ever."""
        wire = socket.socket(fileno=os.dup(session.fileno()))

        def cut() -> None:
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self._answer_s, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            wire.close()

    @contextmanager
    def translated(self, outcome: str) -> Iterator[None]:
        """Say what failed as a StorageError that names the database, and never a password."""
        try:
            yield
        except psycopg.Error as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StorageError(f"{self.place}: {outcome}: {reason}", database=self.place) from None


def execute_on(session: psycopg.Connection[Any]) -> Execute:
    """Return what runs statements on a session."""

    def execute(statement: str, *values: Any) -> _Rows:
        return _Rows(session.execute(_spelled(statement), values or None))

    return execute


class _Rows:
    """Give texts as the bytes that were stored, as SQLite does, so that the shared checks see them."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return map(_stored, self._cursor)

    def fetchone(self) -> tuple[Any, ...] | None:
        row = self._cursor.fetchone()
        return None if row is None else _stored(row)


def _stored(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.encode() if isinstance(value, str) else value for value in row)


def _spelled(statement: str) -> LiteralString:
    return statement.replace("?", "%s")
