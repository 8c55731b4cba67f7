"""The PostgreSQL ledger under rivals, editors, restarts and a server that says nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from postgres import PostgresServer

from probatum.adapters.ledger_postgres import GUARDS, PostgresLedger
from probatum.adapters.ledger_sql import MIGRATIONS
from probatum.core.clock import VirtualClock
from probatum.core.errors import IntegrityError, ParameterError, StorageError
from probatum.core.verdict import Provenance
from probatum.pipeline.ports import Record


@pytest.fixture
def ledger(postgres_url: str) -> PostgresLedger:
    return PostgresLedger(postgres_url, VirtualClock())


def fill(ledger: PostgresLedger, count: int = 3) -> list[Record]:
    for number in range(count):
        ledger.append("train", "BTC", Provenance.REPLAY, {"inputs": {}, "figures": {"n": number, "ü": 1.5e-7}})
    return list(ledger.records())


@pytest.fixture
def session(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, autocommit=True) as session:
        yield session


EDITS = ("UPDATE records SET subject = 'ETH' WHERE seq = 2", "DELETE FROM records WHERE seq = 3", "TRUNCATE records")


def test_rows_can_neither_be_updated_nor_deleted(ledger: PostgresLedger, session: psycopg.Connection[Any]) -> None:
    """The database itself refuses what would rewrite history, even in a session that replicates."""
    before = fill(ledger)
    for role in ("origin", "replica"):
        session.execute(f"SET session_replication_role = {role}")
        for statement in EDITS:
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                session.execute(statement)
    assert list(ledger.records()) == before


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize(
    "how",
    [
        "ALTER TABLE records DISABLE TRIGGER {0}",
        "DROP TRIGGER {0} ON records",
        "DROP TRIGGER {0} ON records; CREATE TRIGGER {0} BEFORE INSERT ON records EXECUTE FUNCTION records_refuse()",
        "CREATE OR REPLACE FUNCTION records_refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
    ],
)
def test_a_guard_that_was_touched_is_noticed(
    ledger: PostgresLedger, session: psycopg.Connection[Any], guard: str, how: str
) -> None:
    """Who takes a guard away to edit a row leaves a trace for readers and writers."""
    fill(ledger, 1)
    session.execute(how.format(guard))
    for use in (ledger.head, lambda: fill(ledger)):
        with pytest.raises(IntegrityError, match=r"trigger records_no_\w+: missing or changed"):
            use()


def test_an_edited_row_is_named(ledger: PostgresLedger, session: psycopg.Connection[Any]) -> None:
    """A row that was edited behind the guards' back does not give its hash."""
    fill(ledger)
    session.execute("ALTER TABLE records DISABLE TRIGGER records_no_update")
    session.execute(EDITS[0])
    session.execute("ALTER TABLE records ENABLE ALWAYS TRIGGER records_no_update")
    with pytest.raises(IntegrityError, match="record 2: the row was changed"):
        list(ledger.records())


def test_processes_append_at_once_without_losing_or_forking(postgres_url: str) -> None:
    """Three processes that create the same ledger and race for its head leave one unbroken chain."""
    program = (
        "import sys; from probatum.adapters.ledger_postgres import PostgresLedger;"
        "from probatum.core.clock import SystemClock; from probatum.core.verdict import Provenance;"
        "ledger = PostgresLedger(sys.argv[1], SystemClock(), answer_s=120);"
        "[ledger.append('a', sys.argv[2], Provenance.REPLAY, {'inputs': {}, 'figures': {'n': n}}) for n in range(15)]"
    )
    rivals = [subprocess.Popen([sys.executable, "-c", program, postgres_url, f"rival {n}"]) for n in range(3)]
    assert [rival.wait(timeout=120) for rival in rivals] == [0, 0, 0]
    records = list(PostgresLedger(postgres_url, VirtualClock()).records())
    assert [r.seq for r in records] == list(range(1, 46))
    assert all(r.prev == p.hash for p, r in pairwise(records))
    for n in range(3):
        assert [r.body["figures"]["n"] for r in records if r.subject == f"rival {n}"] == list(range(15))


def test_a_reader_sees_one_moment(ledger: PostgresLedger) -> None:
    """Records appended while a chain is read do not appear in it, and neither waits for the other."""
    before = fill(ledger)
    reading = ledger.records()
    first = next(reading)
    assert len(fill(ledger, 1)) == 4
    assert [first, *reading] == before


def test_an_older_ledger_is_migrated_and_a_newer_one_refused(
    ledger: PostgresLedger, session: psycopg.Connection[Any]
) -> None:
    """Version 1 had no leadership; a version from the future is not half understood."""
    before = fill(ledger)
    session.execute("DROP TABLE leadership")
    session.execute("UPDATE ledger_schema SET version = 1")
    assert list(ledger.records()) == before
    assert ledger.claim("me", lambda: 0, 0) == 1
    session.execute(f"UPDATE ledger_schema SET version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StorageError, match="written by a newer Probatum"):
        ledger.head()


def test_a_server_that_is_gone_is_named_without_the_password(
    ledger: PostgresLedger, postgres_server: PostgresServer
) -> None:
    """The message says which database and why; after a crash and restart the chain goes on where it was."""
    before = fill(ledger)
    postgres_server.stop()
    try:
        secret = PostgresLedger(
            f"postgresql://probatum:hunter2@127.0.0.1:{postgres_server.port}/postgres", VirtualClock()
        )
        for use in (ledger.head, lambda: fill(ledger), secret.head):
            with pytest.raises(StorageError, match=r"postgresql://127\.0\.0\.1:\d+/postgres: no.*refused") as error:
                use()
            assert "hunter2" not in error.value.message
    finally:
        postgres_server.start()
    assert list(ledger.records()) == before
    assert len(fill(ledger, 1)) == 4
    with pytest.raises(ParameterError) as refused:
        PostgresLedger("postgresql://probatum:hunter2@[broken", VirtualClock())
    assert "hunter2" not in refused.value.message


def test_a_stopped_server_is_given_up(postgres_url: str, postgres_server: PostgresServer) -> None:
    """A server that hangs in mid-append costs an error, not a controller, and leaves no half record."""
    ledger = PostgresLedger(postgres_url, VirtualClock(), answer_s=0.5)
    before = fill(ledger)
    started = threading.Event()

    class Hanging(VirtualClock):
        def now_ns(self) -> int:  # asked for in the middle of the transaction
            postgres_server.signal_all(signal.SIGSTOP)
            started.set()
            return 1

    try:
        with pytest.raises(StorageError, match="nothing was appended"):
            fill(PostgresLedger(postgres_url, Hanging(), answer_s=0.5), 1)
        assert started.is_set()
    finally:
        postgres_server.signal_all(signal.SIGCONT)
    assert list(ledger.records()) == before
    assert len(fill(ledger, 1)) == 4
