"""Keep imported market data in immutable versions: ``<SYMBOL>/<kind>/<date>-<digest>.parquet`` and one manifest each."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import polars as pl

from probatum.adapters.atomic import write_atomic
from probatum.core.canonical import canonical_json, sha256_hex
from probatum.core.clock import NS_PER_DAY, utc_day
from probatum.core.errors import IntegrityError, ParameterError, StorageError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.calendar import Calendar
from probatum.market.dataset import Dataset, check_symbol

SCHEMA = "probatum.dataset/1"
PROVENANCE_KEY = "probatum.provenance"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Partition(msgspec.Struct, frozen=True):
    """Name one Parquet file: the rows of one kind in (date 00:00, next date 00:00] UTC."""

    kind: str
    date: str
    sha256: str
    rows: int

    @property
    def path(self) -> str:
        """Return the file's place inside its symbol's folder."""
        return f"{self.kind}/{self.date}-{self.sha256[:8]}.parquet"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """List what one version of a dataset consists of; the digest of its canonical JSON names the version."""

    schema: str = SCHEMA
    symbol: str
    provenance: Provenance
    calendar: Calendar
    tick_size: float | None
    partitions: tuple[Partition, ...]

    @property
    def rows(self) -> dict[str, int]:
        """Return the rows of each kind."""
        kinds = dict.fromkeys((part.kind for part in self.partitions), 0)
        return {kind: sum(part.rows for part in self.partitions if part.kind == kind) for kind in kinds}


class ParquetStore:
    """Save and load datasets below one folder. Implements ``pipeline.ports.Datasets``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, dataset: Dataset) -> Dataset:
        """Store a dataset as a new version, move ``latest`` to it and return it with its digest.

        Saving the same rows twice gives the same version. Raises StorageError when the disk refuses: what was written
        of the new version is removed then, and the old one still loads.
        """
        folder = self.root / dataset.symbol
        written: list[Path] = []
        partitions: list[Partition] = []
        try:
            for kind, date, frame in _split(dataset):
                data = _parquet(frame, dataset.provenance)
                partitions.append(Partition(kind, date, sha256_hex(data), frame.height))
                _write_new(folder / partitions[-1].path, data, written)
            manifest = Manifest(
                symbol=dataset.symbol,
                provenance=dataset.provenance,
                calendar=dataset.calendar,
                tick_size=dataset.tick_size,
                partitions=tuple(partitions),
            )
            data = canonical_json(msgspec.to_builtins(manifest))
            _write_new(folder / "manifests" / f"{sha256_hex(data)}.json", data, written)
            write_atomic(folder / "latest", sha256_hex(data).encode())
        except StorageError:
            for path in written:
                path.unlink(missing_ok=True)
            raise
        return replace(dataset, sha256=sha256_hex(data))

    def load(self, symbol: str, sha256: str | None = None) -> Dataset:
        """Return a dataset at its newest version, or at the one named, after verifying every byte of it.

        Raises UnknownNameError when there is none, IntegrityError naming the first file that was changed.
        """
        digest, manifest = self.manifest(symbol, sha256)
        frames: dict[str, list[pl.DataFrame]] = {}
        for part in manifest.partitions:
            path = self.root / symbol / part.path
            data = _read(path)
            if sha256_hex(data) != part.sha256:
                raise IntegrityError(str(path), "the bytes were changed since they were stored")
            frames.setdefault(part.kind, []).append(pl.read_parquet(io.BytesIO(data)))
        return Dataset(
            symbol=manifest.symbol,
            provenance=manifest.provenance,
            sha256=digest,
            calendar=manifest.calendar,
            tick_size=manifest.tick_size,
            **{kind: pl.concat(parts) for kind, parts in frames.items()},
        )

    def manifest(self, symbol: str, sha256: str | None = None) -> tuple[str, Manifest]:
        """Return a version's digest and its manifest, without reading the rows."""
        folder = self.root / check_symbol(symbol)
        if not (folder / "latest").is_file():
            raise UnknownNameError("dataset", symbol, self.symbols())
        digest = sha256 or _read(folder / "latest").decode("ascii", "replace")
        if not _DIGEST.fullmatch(digest):
            raise ParameterError("sha256", "64 lower-case hex digits", digest)
        path = folder / "manifests" / f"{digest}.json"
        if not path.is_file():
            raise UnknownNameError(f"version of {symbol}", digest, self.versions(symbol))
        data = _read(path)
        if sha256_hex(data) != digest:
            raise IntegrityError(str(path), "the bytes were changed since they were stored")
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except msgspec.DecodeError as error:
            raise IntegrityError(str(path), f"not a manifest: {error}") from None
        if manifest.schema != SCHEMA or manifest.symbol != symbol:
            raise IntegrityError(str(path), f"not a manifest of {symbol} in the form {SCHEMA}")
        return digest, manifest

    def symbols(self) -> list[str]:
        """Return the symbols that have a dataset, sorted."""
        return sorted(path.parent.name for path in self.root.glob("*/latest"))

    def versions(self, symbol: str) -> list[str]:
        """Return the digests of a symbol's versions, sorted."""
        return sorted(path.stem for path in (self.root / check_symbol(symbol) / "manifests").glob("*.json"))


def _split(dataset: Dataset) -> Iterator[tuple[str, str, pl.DataFrame]]:
    # A bar that closes at midnight belongs to the day that ends there, so that a day's dump is one file.
    for kind, frame in dataset.frames.items():
        days = (pl.col("ts_event") - 1) // NS_PER_DAY
        for (day,), part in frame.group_by(days, maintain_order=True):
            assert isinstance(day, int)
            yield kind, utc_day(day * NS_PER_DAY), part


def _parquet(frame: pl.DataFrame, provenance: Provenance) -> bytes:
    # Parquet files of ours say where their rows came from: a synthetic file that is imported again stays synthetic.
    buffer = io.BytesIO()
    frame.write_parquet(buffer, metadata={PROVENANCE_KEY: provenance.value})
    return buffer.getvalue()


def _write_new(path: Path, data: bytes, written: list[Path]) -> None:
    # A file of the same name holds the same bytes unless it was damaged: then it is written anew.
    if path.is_file() and path.read_bytes() == data:
        return
    fresh = not path.exists()
    write_atomic(path, data)
    if fresh:
        written.append(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(str(path), "the file is missing") from None
    except OSError as error:
        raise StorageError(f"{path}: not read: {error.strerror or error}", file=str(path)) from None
