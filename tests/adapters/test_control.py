"""Followers and leaders over one database: nothing stale is followed, and a dead leader is replaced."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from postgres import PostgresServer

from probatum.adapters.control import (
    LEAD_NS,
    LedgerFollower,
    PostgresFollower,
    PostgresLeadership,
    SqliteLeadership,
)
from probatum.adapters.ledger import SqliteLedger
from probatum.adapters.ledger_postgres import PostgresLedger
from probatum.adapters.ledger_sql import Execute
from probatum.core.clock import VirtualClock
from probatum.core.errors import IntegrityError, OvertakenError, ProbatumError, StorageError
from probatum.core.verdict import Provenance
from probatum.pipeline.control import KIND, publish
from probatum.pipeline.ports import Entry, Ledger
from probatum.rollout.choose import Mode
from probatum.rollout.lease import RolloutDocument


@pytest.fixture(params=["sqlite", "postgres"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Ledger, LedgerFollower]:
    """Return a ledger and what follows it."""
    if request.param == "sqlite":
        sqlite = SqliteLedger(tmp_path / "ledger.db", VirtualClock())
        return sqlite, LedgerFollower(sqlite)
    postgres = PostgresLedger(request.getfixturevalue("postgres_url"), VirtualClock())
    return postgres, PostgresFollower(postgres)


def put(ledger: Ledger, share: float) -> int:
    document = RolloutDocument(mode=Mode.GATED, share=share)
    return publish(ledger, document, subject="r", provenance=Provenance.REPLAY)[-1].seq


def test_the_newest_document_is_followed(pair: tuple[Ledger, LedgerFollower]) -> None:
    """Before there is a ledger, and before it holds a document, nothing may be served; other records change nothing."""
    ledger, follower = pair
    nothing = RolloutDocument(mode=Mode.OFF, share=0.0)
    assert follower.current() == nothing
    ledger.append("train", "x", Provenance.REPLAY, {"inputs": {}, "figures": {}})
    assert follower.current() == nothing
    for share in (0.1, 0.5, 0.0):
        seq = put(ledger, share)
        for _ in range(2):
            assert (follower.current().share, follower.current().sequence) == (share, seq)
        ledger.append("train", "x", Provenance.REPLAY, {"inputs": {}, "figures": {}})
    assert follower.current().sequence == seq


def test_what_is_no_document_renews_nothing(pair: tuple[Ledger, LedgerFollower]) -> None:
    """A record of this kind that cannot be read is not passed over in favour of an older, perhaps larger share."""
    ledger, follower = pair
    put(ledger, 0.5)
    follower.current()
    ledger.append(KIND, "r", Provenance.REPLAY, {"inputs": {"share": 2}, "figures": {}})
    for _ in range(2):
        with pytest.raises(IntegrityError, match="record 2"):
            follower.current()
    put(ledger, 0.1)
    assert follower.current().share == 0.1


def test_a_notification_ends_the_wait(postgres_url: str) -> None:
    """A follower that waits is woken by the append of another: order of events, not time, shows it."""
    ledger = PostgresLedger(postgres_url, VirtualClock())
    put(ledger, 0.5)
    follower = PostgresFollower(ledger)
    follower.current()
    woken = threading.Event()

    def wait() -> None:
        while follower.current().share:
            follower.wait()
        woken.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    put(ledger, 0.0)
    waiting.join(30)
    assert woken.is_set()


def test_a_shorter_ledger_is_not_followed(tmp_path: Path) -> None:
    """A file put back from a backup would bring an older share back: it renews no lease."""
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path, VirtualClock())
    put(ledger, 1.0)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = path.read_bytes()
    put(ledger, 0.0)
    follower = LedgerFollower(ledger)
    assert follower.current().share == 0.0
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(IntegrityError, match="holds 0 records, and held 2"):
        follower.current()
    path.write_bytes(backup)
    with pytest.raises(IntegrityError, match="holds 1 records, and held 2"):
        follower.current()


def test_a_follower_survives_a_restart(postgres_url: str, postgres_server: PostgresServer) -> None:
    """While the server is away reads fail; once it is back the same follower reads on."""
    ledger = PostgresLedger(postgres_url, VirtualClock())
    follower = PostgresFollower(ledger)
    put(ledger, 0.5)
    assert follower.current().share == 0.5
    postgres_server.stop()
    try:
        for _ in range(2):
            follower.wait()
            with pytest.raises(StorageError, match="not read"):
                follower.current()
    finally:
        postgres_server.start()
    assert follower.current().share == 0.5
    put(ledger, 0.25)
    assert follower.current().share == 0.25


def test_a_lease_is_taken_over_when_it_ends_and_not_before(tmp_path: Path) -> None:
    """On SQLite a leader that stops renewing is replaced after its lease, and is refused from then on."""
    ledger, clock = SqliteLedger(tmp_path / "ledger.db", VirtualClock()), VirtualClock(10**12)
    first, second = (SqliteLeadership(ledger, name, clock.now_ns) for name in ("first", "second"))
    assert [first.lead(), second.lead()] == [1, None]
    clock.advance(LEAD_NS - 1)
    assert second.lead() is None
    assert first.lead() == 1  # renewed
    clock.advance(LEAD_NS - 1)
    assert second.lead() is None
    clock.advance(1)
    assert [second.lead(), first.lead()] == [2, None]
    entry = Entry("a", "x", Provenance.REPLAY, {"inputs": {}, "figures": {}})
    with pytest.raises(OvertakenError, match="epoch 2, ours was 1"):
        ledger.append_all([entry], epoch=1)


def test_a_lease_renewed_while_a_rival_waits_for_the_lock_stands(tmp_path: Path) -> None:
    """The rival reads its clock once it has the lock: it never judges a lease by an older time than it was written at."""
    clock = VirtualClock(10**12)

    class Slow(SqliteLedger):
        @contextmanager
        def writing(self, outcome: str = "nothing was appended") -> Iterator[Execute]:
            clock.advance(10)  # others held the lock, and one of them renewed
            assert SqliteLeadership(ledger, "first", clock.now_ns).lead() == 1
            with super().writing(outcome) as execute:
                yield execute

    ledger = SqliteLedger(tmp_path / "ledger.db", VirtualClock())
    slow = Slow(ledger.path, VirtualClock())
    assert SqliteLeadership(slow, "second", clock.now_ns).lead() is None


def test_a_lease_from_before_a_reboot_holds_nobody_up(tmp_path: Path) -> None:
    """The monotonic clock starts again at zero: a lease that ends further ahead than any lasts is over."""
    ledger = SqliteLedger(tmp_path / "ledger.db", VirtualClock())
    assert SqliteLeadership(ledger, "first", lambda: 10**15).lead() == 1
    assert SqliteLeadership(ledger, "second", lambda: 5).lead() == 2


def test_a_leader_that_lost_its_session_is_replaced_and_refused(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    """On PostgreSQL leading ends with the session: by restart or by an administrator; the epoch tells the reigns apart."""
    ledger = PostgresLedger(postgres_url, VirtualClock())
    first, second = PostgresLeadership(ledger, "first"), PostgresLeadership(ledger, "second")
    try:
        assert [first.lead(), second.lead()] == [1, None]
        with psycopg.connect(postgres_url, autocommit=True) as session:
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        while (epoch := second.lead()) is None:  # the server ends the session a little later
            pass
        assert epoch == 2
        with pytest.raises(StorageError, match="who leads is not known"):
            first.lead()
        assert first.lead() is None
        with pytest.raises(OvertakenError):
            publish(ledger, RolloutDocument(), subject="r", provenance=Provenance.REPLAY, epoch=1)
        postgres_server.stop()
        try:
            for candidate in (first, second):
                with pytest.raises(ProbatumError):
                    candidate.lead()
        finally:
            postgres_server.start()
        assert [first.lead(), second.lead()] == [3, None]
    finally:
        first.resign()
        second.resign()
