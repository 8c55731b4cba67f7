"""Stand in for a workspace in memory. The same contract tests hold these to the real adapters' behaviour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from probatum.core.canonical import sha256_hex
from probatum.core.clock import Clock, VirtualClock, format_utc
from probatum.core.errors import IntegrityError, OvertakenError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.dataset import Dataset
from probatum.pipeline.evidence import GENESIS, seal
from probatum.pipeline.kinds import BLOB_KINDS
from probatum.pipeline.ports import Entry, Record


class MemoryLedger:
    """Keep the chain in a list. Implements ``pipeline.ports.Ledger``."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or VirtualClock()
        self._records: list[Record] = []
        self.epoch, self.leader = 0, ""

    def append(self, kind: str, subject: str, provenance: Provenance, body: dict[str, Any]) -> Record:
        return self.append_all([Entry(kind, subject, provenance, body)])[0]

    def append_all(
        self, entries: Sequence[Entry], *, epoch: int | None = None, seen: int | None = None
    ) -> tuple[Record, ...]:
        first = entries[0]
        newer = [] if seen is None else list(self.records(kind=first.kind, subject=first.subject, after=seen))
        if newer or epoch not in (None, self.epoch):
            raise OvertakenError("somebody else leads or has acted since; nothing was appended")
        records, prev = list[Record](), self.head()
        for seq, entry in enumerate(entries, len(self._records) + 1):
            ts = format_utc(self._clock.now_ns())
            records.append(seal(seq, ts, entry.kind, entry.subject, entry.provenance, entry.body, prev))
            prev = records[-1].hash
        self._records += records
        return tuple(records)

    def records(self, *, kind: str | None = None, subject: str | None = None, after: int = 0) -> Iterator[Record]:
        for record in self._records[after:]:
            if kind in (None, record.kind) and subject in (None, record.subject):
                yield record

    def head(self) -> str:
        return self._records[-1].hash if self._records else GENESIS


class MemoryLeadership:
    """Lead a :class:`MemoryLedger` until one resigns. Implements ``pipeline.ports.Leadership``."""

    def __init__(self, ledger: MemoryLedger, holder: str) -> None:
        self._ledger, self._holder = ledger, holder

    def lead(self) -> int | None:
        if not self._ledger.leader:
            self._ledger.epoch, self._ledger.leader = self._ledger.epoch + 1, self._holder
        return self._ledger.epoch if self._ledger.leader == self._holder else None

    def resign(self) -> None:
        if self._ledger.leader == self._holder:
            self._ledger.leader = ""


class MemoryBlobs:
    """Keep blobs in a dictionary. Implements ``pipeline.ports.Blobs``."""

    def __init__(self) -> None:
        self._data: dict[tuple[str, str], bytes] = {}

    def put(self, kind: str, data: bytes) -> str:
        if kind not in BLOB_KINDS:
            raise UnknownNameError("kind of blob", kind, BLOB_KINDS)
        digest = sha256_hex(data)
        self._data[kind, digest] = data
        return digest

    def get(self, kind: str, digest: str) -> bytes:
        if (kind, digest) not in self._data:
            raise IntegrityError(f"{kind} {digest}", "the blob is missing")
        return self._data[kind, digest]


class MemoryDatasets:
    """Keep datasets by symbol; of two versions the later one is the newest. Implements ``pipeline.ports.Datasets``."""

    def __init__(self, datasets: Iterable[Dataset] = ()) -> None:
        self._data = list(datasets)

    def load(self, symbol: str, sha256: str | None = None) -> Dataset:
        for dataset in reversed(self._data):
            if dataset.symbol == symbol and sha256 in (None, dataset.sha256):
                return dataset
        raise UnknownNameError("dataset", symbol, {dataset.symbol for dataset in self._data})


class MemorySources:
    """Hold what figures are recomputed from. Implements ``pipeline.ports.Sources``."""

    def __init__(self, datasets: Iterable[Dataset] = ()) -> None:
        self.blobs = MemoryBlobs()
        self.datasets = MemoryDatasets(datasets)
        self.ledger = MemoryLedger()


class MemoryDecisions:
    """Keep logged decisions in one table. Implements ``pipeline.ports.Decisions``; ``reads`` counts how often it was asked."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame, self.reads = frame.sort("ts"), 0

    def read(self, start_ns: int, end_ns: int) -> pl.DataFrame:
        self.reads += 1
        return self.frame.filter(pl.col("ts").is_between(start_ns, end_ns, closed="left"))
