"""Wire the adapters of one workspace folder together."""

from __future__ import annotations

import os
import socket
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from probatum.adapters.blobs import FileBlobs
from probatum.adapters.control import LedgerFollower, PostgresFollower, PostgresLeadership, SqliteLeadership
from probatum.adapters.evidence_files import EvidenceFiles
from probatum.adapters.ledger import SqliteLedger
from probatum.core.clock import Clock, SystemClock
from probatum.core.errors import ParameterError
from probatum.pipeline.ports import Leadership
from probatum.rollout.lease import PacedSource

if TYPE_CHECKING:  # the engine opens a workspace without loading polars
    from probatum.adapters.decisions import ParquetDecisions
    from probatum.adapters.ledger_postgres import PostgresLedger
    from probatum.adapters.store import ParquetStore

LEDGER_URL = "PROBATUM_LEDGER_URL"


class Workspace:
    """Open the parts of a workspace when they are first used. Satisfies ``pipeline.ports.Sources``.

    The ledger is the folder's own, or the PostgreSQL database that ``PROBATUM_LEDGER_URL`` names.
    """

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self.root = root
        self.clock: Clock = clock or SystemClock()

    def __reduce__(self) -> tuple[type[Workspace], tuple[Path, Clock]]:
        """Travel to a worker as the folder's name, which must mean the same folder there; connections stay behind."""
        return Workspace, (self.root.absolute(), self.clock)

    @cached_property
    def datasets(self) -> ParquetStore:
        from probatum.adapters.store import ParquetStore

        return ParquetStore(self.root / "data")

    @cached_property
    def decisions(self) -> ParquetDecisions:
        from probatum.adapters.decisions import ParquetDecisions

        return ParquetDecisions(self.root / "decisions")

    @cached_property
    def blobs(self) -> FileBlobs:
        return FileBlobs(self.root / "blobs")

    @cached_property
    def ledger(self) -> SqliteLedger | PostgresLedger:
        url = os.environ.get(LEDGER_URL)
        if not url:
            return SqliteLedger(self.root / "ledger.db", self.clock)
        if not url.startswith(("postgresql://", "postgres://")):
            raise ParameterError(LEDGER_URL, "a URL that begins with postgresql://", "(not shown)")
        from probatum.adapters.ledger_postgres import PostgresLedger

        return PostgresLedger(url, self.clock)

    def leadership(self) -> Leadership:
        """Return this process's candidacy among the controllers of the ledger."""
        holder = f"{socket.gethostname()}:{os.getpid()}:{time.monotonic_ns()}"
        if isinstance(self.ledger, SqliteLedger):
            return SqliteLeadership(self.ledger, holder, time.monotonic_ns)
        return PostgresLeadership(self.ledger, holder)

    def follower(self) -> PacedSource:
        """Return what reads the rollout document for one executor."""
        return LedgerFollower(self.ledger) if isinstance(self.ledger, SqliteLedger) else PostgresFollower(self.ledger)

    @cached_property
    def evidence(self) -> EvidenceFiles:
        return EvidenceFiles(self.root / "evidence" / "ml")
