"""Say what the use cases need of the outside world. Adapters implement these; tests pass fakes of the same shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from probatum.core.verdict import Provenance
from probatum.market.ticks import Notice, Tick

if TYPE_CHECKING:  # a service that only reads the ledger need not load polars
    import polars as pl

    from probatum.market.dataset import Dataset


Key = TypeVar("Key")
Result = TypeVar("Result")


class Record(msgspec.Struct, frozen=True):
    """Hold one row of the ledger.

    ``hash`` = SHA-256 of the canonical JSON of all other fields, ``prev`` (the hash of the row before) among them.
    ``body`` = {"inputs": {...}, "figures": {...}}: figures are a pure function of the inputs and the blobs they name.
    """

    seq: int
    ts: str
    kind: str
    subject: str
    provenance: Provenance
    body: dict[str, Any]
    prev: str
    hash: str


class Entry(msgspec.Struct, frozen=True):
    """Hold what a record is to say, before it has its place in the chain."""

    kind: str
    subject: str
    provenance: Provenance
    body: dict[str, Any]


class Ledger(Protocol):
    """Append-only, hash-chained."""

    def append(self, kind: str, subject: str, provenance: Provenance, body: dict[str, Any]) -> Record:
        """Append one record in one transaction and return it with its place in the chain."""
        ...

    def append_all(
        self, entries: Sequence[Entry], *, epoch: int | None = None, seen: int | None = None
    ) -> tuple[Record, ...]:
        """Append records in one transaction: all or none.

        None, and OvertakenError, when another controller has led since ``epoch`` (of :class:`Leadership`), or when
        the ledger holds a record of the first entry's kind and subject beyond number ``seen``: the caller decided
        on less than there is. Raises StorageError where the database refused, or did not answer.
        """
        ...

    def records(self, *, kind: str | None = None, subject: str | None = None, after: int = 0) -> Iterator[Record]:
        """Yield records in order, those beyond number ``after``."""
        ...

    def head(self) -> str:
        """Return the hash of the last record, or 64 zeros."""
        ...


class Leadership(Protocol):
    """Of several controllers on one ledger one leads; the others wait and take over when it is gone."""

    def lead(self) -> int | None:
        """Take or keep the lead and return its epoch; None while another leads. Call it at least every second.

        An epoch that differs from the last one is a new reign: read the ledger again before deciding anything.
        Raises StorageError when the database cannot say who leads: then nobody does for certain.
        """
        ...

    def resign(self) -> None:
        """Let another lead at once."""
        ...


class Blobs(Protocol):
    """A content-addressed store. Kinds: ``artifact`` (.json), ``predictions`` and ``window`` (.parquet)."""

    def __hash__(self) -> int:
        """Tell stores apart: what was computed from a digest is remembered for the store it lies in."""
        ...

    def put(self, kind: str, data: bytes) -> str:
        """Store bytes (atomically; storing the same twice is one) and return their SHA-256."""
        ...

    def get(self, kind: str, digest: str) -> bytes:
        """Return the bytes, verified against the digest; IntegrityError names the file."""
        ...


class Datasets(Protocol):
    """The Parquet store of imported market data; versions are immutable and named by digest."""

    def load(self, symbol: str, sha256: str | None = None) -> Dataset:
        """Return a dataset at its newest version, or at the one named; UnknownNameError lists the known."""
        ...


class Decisions(Protocol):
    """What executors logged, decision by decision."""

    def read(self, start_ns: int, end_ns: int) -> pl.DataFrame:
        """Return the decisions made in [start, end), by time: fields of ``DecisionRow``, features as ``f_…``, ``fingerprint``, ``provenance``."""
        ...


class Progress(Protocol):
    """Where long work says how far it is."""

    def step(self, description: str, done: int, total: int) -> None:
        """Report ``done`` of ``total`` units."""
        ...


class Mapper(Protocol):
    """Where work that falls into independent pieces is done: in this process, or on other machines."""

    def map(self, function: Callable[[Key], Result], keys: Iterable[Key]) -> Iterator[Result]:
        """Yield ``function(key)`` for each key, in the order of the keys.

        A piece may be computed more than once, where a worker dies: the function is pure, but for blobs it stores by
        digest and files it writes whole. It, the keys and the results can be pickled; an error is raised at its place.
        """
        ...


class OneProcess:
    """Do the work here, piece by piece. Implements :class:`Mapper`."""

    def map(self, function: Callable[[Key], Result], keys: Iterable[Key]) -> Iterator[Result]:
        """Yield ``function(key)`` for each key."""
        return map(function, keys)


class Sources(Protocol):
    """What a figure may be recomputed from."""

    @property
    def blobs(self) -> Blobs: ...

    @property
    def datasets(self) -> Datasets: ...

    @property
    def ledger(self) -> Ledger: ...


class Feed(Protocol):
    """A source of live ticks. Whoever implements it sets the class of its data; no argument does."""

    @property
    def name(self) -> str:
        """Return the venue and its market, e.g. ``binance-spot``; it names a folder."""
        ...

    @property
    def provenance(self) -> Provenance:
        """Return ``live`` only where the venue's own, built-in address is read."""
        ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return what was asked for, in the spelling of the ticks."""
        ...

    async def run(self, take: Callable[[Tick | Notice], None]) -> None:
        """Deliver ticks as they come, and notices of the feed's own state, until cancelled; reconnect by itself."""
        ...

    async def bars(self, symbol: str, minutes: int) -> list[Tick]:
        """Return the last closed one-minute bars, at most so many, as ticks of kind BAR stamped at their close.

        [] where the feed has none. Raises StorageError when the source does not answer.
        """
        ...


class TickSink(Protocol):
    """Where ticks are recorded."""

    def append(self, row: Tick) -> bool:
        """Take a tick at once, to be written later; False, and counted, where there is no room."""
        ...
