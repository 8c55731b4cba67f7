"""Versions are immutable and verified to the byte; a full disk leaves the old one whole."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from probatum.adapters.store import PROVENANCE_KEY, ParquetStore
from probatum.core.errors import IntegrityError, ParameterError, StorageError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.calendar import Calendar, Explained
from probatum.market.dataset import Dataset
from probatum.market.synth import synthesise


@pytest.fixture(scope="module")
def market() -> Dataset:
    return synthesise(days=2, seed=1)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_what_is_loaded_is_what_was_saved(tmp_path: Path, market: Dataset) -> None:
    """Rows, order, calendar, tick and class survive, and the digest is that of the manifest."""
    calendar = Calendar(explained=(Explained("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", "holiday"),))
    saved = ParquetStore(tmp_path).save(replace(market, calendar=calendar))
    loaded = ParquetStore(tmp_path).load("SYN")
    assert loaded.sha256 == saved.sha256
    assert (loaded.calendar, loaded.tick_size, loaded.provenance) == (calendar, market.tick_size, Provenance.SYNTHETIC)
    assert all(loaded.frames[kind].equals(frame) for kind, frame in market.frames.items())


def test_the_same_rows_are_the_same_version(tmp_path: Path, market: Dataset) -> None:
    """Saving twice adds no file; a changed row adds a version, and the old one still loads by digest."""
    store = ParquetStore(tmp_path)
    first = store.save(market)
    before = files(tmp_path)
    assert store.save(market).sha256 == first.sha256
    assert files(tmp_path) == before
    second = store.save(replace(market, quotes=market.quotes[:-1] if market.quotes is not None else None))
    assert store.load("SYN").sha256 == second.sha256 != first.sha256
    assert store.load("SYN", first.sha256).frames["quotes"].equals(market.frames["quotes"])
    assert store.versions("SYN") == sorted([first.sha256, second.sha256])
    assert store.symbols() == ["SYN"]


def test_one_file_a_day_and_its_class_inside(tmp_path: Path, market: Dataset) -> None:
    """The row stamped at midnight ends its day, and each file says that it is synthetic."""
    ParquetStore(tmp_path).save(market)
    paths = sorted(files(tmp_path / "SYN" / "quotes"))
    assert [path.name[:10] for path in paths] == ["2024-01-01", "2024-01-02"]
    assert {pl.read_parquet_metadata(path)[PROVENANCE_KEY] for path in paths} == {"synthetic"}


def test_every_changed_byte_is_found(tmp_path: Path, market: Dataset) -> None:
    """A flipped byte in any file of a version raises IntegrityError that names the file."""
    store = ParquetStore(tmp_path)
    store.save(market)
    for path in sorted(files(tmp_path / "SYN") - {tmp_path / "SYN" / "latest"}):
        data = path.read_bytes()
        path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
        with pytest.raises(IntegrityError, match=path.name):
            store.load("SYN")
        path.unlink()
        with pytest.raises((IntegrityError, UnknownNameError)):
            store.load("SYN")
        path.write_bytes(data)
    store.load("SYN")


def test_saving_again_repairs_a_damaged_file(tmp_path: Path, market: Dataset) -> None:
    """The same import writes a damaged partition anew."""
    store = ParquetStore(tmp_path)
    store.save(market)
    next(iter(files(tmp_path / "SYN" / "quotes"))).write_bytes(b"damaged")
    store.save(market)
    assert store.load("SYN").frames["quotes"].height == 2 * 86_400


def test_unknown_names_list_the_known(tmp_path: Path, market: Dataset) -> None:
    """A symbol or version that is not there names those that are; a path is no symbol."""
    store = ParquetStore(tmp_path)
    store.save(market)
    with pytest.raises(UnknownNameError, match="known: SYN"):
        store.load("BTC")
    with pytest.raises(UnknownNameError, match="version of SYN"):
        store.load("SYN", "0" * 64)
    for sha256 in ("x", "../../etc/passwd"):
        with pytest.raises(ParameterError):
            store.load("SYN", sha256)
    with pytest.raises(ParameterError):
        store.load("../SYN")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MB, or skip where the test may not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_the_old_version_and_no_part_of_the_new(small_disk: Path, market: Dataset) -> None:
    """StorageError, no file more than before, and the version of before loads."""
    store = ParquetStore(small_disk)
    small = replace(market, quotes=market.frames["quotes"][:1000], trades=None)
    first = store.save(small)
    before = files(small_disk)
    with pytest.raises(StorageError, match=r"\.parquet: not written"):
        store.save(market)
    assert files(small_disk) == before
    assert store.load("SYN").sha256 == first.sha256
