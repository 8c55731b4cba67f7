"""Lead and follow over the ledger's database: one controller leads, and executors do what its newest document says."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from probatum.adapters.ledger_sql import Execute, SqlLedger
from probatum.core.clock import NS_PER_S
from probatum.core.errors import IntegrityError
from probatum.pipeline.control import KIND, read_document
from probatum.rollout.choose import Mode
from probatum.rollout.lease import RolloutDocument

if TYPE_CHECKING:
    from probatum.adapters.ledger_postgres import PostgresLedger

POLL_S = 0.1
NOTIFIED_POLL_S = 0.2
LEAD_NS = 5 * NS_PER_S


class LedgerFollower:
    """Read the newest rollout document of a ledger that is polled. Implements ``rollout.lease.PacedSource``.

    Before the first document there is nothing to serve: mode off, share 0. A ledger that has become shorter, or whose
    document does not give its hash, renews no lease. For one thread.
    """

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger
        self._document = RolloutDocument(mode=Mode.OFF, share=0.0)
        self._head = 0

    def current(self) -> RolloutDocument:
        with self._ledger.reading() as execute:
            return self._read(execute)

    def wait(self) -> None:
        time.sleep(POLL_S)

    def _read(self, execute: Execute | None) -> RolloutDocument:
        head, record = self._ledger.newest(execute, KIND, self._head) if execute else (0, None)
        if head < self._head:
            raise IntegrityError(self._ledger.place, f"holds {head} records, and held {self._head}")
        if record is not None:
            self._document = read_document(record)
        self._head = head
        return self._document


class PostgresFollower(LedgerFollower):
    """Keep one session that is notified of each append, and read on each notification or after a while."""

    def __init__(self, ledger: PostgresLedger) -> None:
        super().__init__(ledger)
        self._postgres = ledger
        self._session: Any = None
        self._is_there = False

    def current(self) -> RolloutDocument:
        from probatum.adapters.ledger_postgres import CHANNEL, execute_on

        try:
            with self._postgres.translated("not read"):
                if self._session is None:
                    self._session = self._postgres.connect()
                    self._session.execute(f"LISTEN {CHANNEL}")
                    self._is_there = False
                with self._postgres.bounded(self._session):
                    execute = execute_on(self._session)
                    self._is_there = self._is_there or self._postgres.version(execute) > 0
                    return self._read(execute if self._is_there else None)
        except Exception:
            self._drop()
            raise

    def wait(self) -> None:
        if self._session is None:
            time.sleep(POLL_S)
            return
        try:
            for _ in self._session.notifies(timeout=NOTIFIED_POLL_S, stop_after=1):
                pass
        except Exception:
            self._drop()  # the next read connects again

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


class SqliteLeadership:
    """Lead by a lease in the ledger's file, renewed by each call. Implements ``pipeline.ports.Leadership``.

    ``holder`` is a name that no other controller has; ``now_ns`` is a monotonic clock that all processes of the machine
    share, so that a jump of the wall clock neither ends nor prolongs a lease.
    """

    def __init__(self, ledger: SqlLedger, holder: str, now_ns: Callable[[], int], *, lease_ns: int = LEAD_NS) -> None:
        self._ledger, self._holder, self._now_ns, self._lease_ns = ledger, holder, now_ns, lease_ns

    def lead(self) -> int | None:
        return self._ledger.claim(self._holder, self._now_ns, self._lease_ns)

    def resign(self) -> None:
        with self._ledger.writing("who leads is not known") as execute:
            execute("UPDATE leadership SET expires_ns = 0 WHERE holder = ?", self._holder)


class PostgresLeadership:
    """Lead by an advisory lock, which ends with the session that holds it. Implements ``pipeline.ports.Leadership``."""

    def __init__(self, ledger: PostgresLedger, holder: str) -> None:
        self._ledger, self._holder = ledger, holder
        self._session: Any = None
        self._epoch: int | None = None

    def lead(self) -> int | None:
        from probatum.adapters.ledger_postgres import TRY_TO_LEAD

        try:
            with self._ledger.translated("who leads is not known"):
                if self._session is None:
                    self._session = self._ledger.connect()
                with self._ledger.bounded(self._session):
                    held = self._session.execute("SELECT true" if self._epoch else TRY_TO_LEAD).fetchone()[0]
            if held and self._epoch is None:
                self._epoch = self._ledger.claim(self._holder, lambda: 0, 0)
        except Exception:
            self.resign()
            raise
        return self._epoch

    def resign(self) -> None:
        session, self._session, self._epoch = self._session, None, None
        if session is not None:
            with suppress(Exception), self._ledger.bounded(session):  # closing alone would free the lock a little later
                session.execute("SELECT pg_advisory_unlock_all()")
            session.close()
