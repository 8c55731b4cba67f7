"""Wire the adapters of one workspace folder together."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from probatum.adapters.blobs import FileBlobs
from probatum.adapters.evidence_files import EvidenceFiles
from probatum.adapters.ledger import SqliteLedger
from probatum.adapters.store import ParquetStore
from probatum.core.clock import Clock, SystemClock


class Workspace:
    """Open the parts of a workspace when they are first used. Satisfies ``pipeline.ports.Sources``."""

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self.root = root
        self.clock: Clock = clock or SystemClock()

    @cached_property
    def datasets(self) -> ParquetStore:
        return ParquetStore(self.root / "data")

    @cached_property
    def blobs(self) -> FileBlobs:
        return FileBlobs(self.root / "blobs")

    @cached_property
    def ledger(self) -> SqliteLedger:
        return SqliteLedger(self.root / "ledger.db", self.clock)

    @cached_property
    def evidence(self) -> EvidenceFiles:
        return EvidenceFiles(self.root / "evidence" / "ml")
