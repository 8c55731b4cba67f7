"""An import is proven: its counts are recomputed from what was stored, and nothing is stored of what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from msgspec import structs

from probatum.adapters.importers import Options, read_files
from probatum.cli.workspace import Workspace
from probatum.core.clock import NS_PER_MINUTE, VirtualClock, parse_utc
from probatum.core.errors import DataError, IntegrityError, StorageError
from probatum.core.verdict import Provenance
from probatum.market.calendar import CALENDARS, Explained
from probatum.market.dataset import Dataset
from probatum.market.quality import Recording
from probatum.market.synth import record_synthetic
from probatum.pipeline.importing import Imported, figures, import_recording, read_quarantine
from probatum.pipeline.kinds import get_kind
from probatum.pipeline.verify import verify


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w", VirtualClock(parse_utc("2024-06-01T00:00:00Z")))


def store(space: Workspace, recording: Recording) -> Imported:
    return import_recording(recording, save=space.datasets.save, ledger=space.ledger, sources=space)


def recording(folder: Path, *, missing: range = range(0), bad: int = 0) -> Recording:
    """Return bars of 100 minutes without those in ``missing``, the first ``bad`` of them with a negative close."""
    start = parse_utc("2024-01-01T00:00:00Z") // 1_000_000
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{start + m * 60_000},100,101,99,{-1 if m < bad else 100.5},1,{start + m * 60_000 + 59_999},1,1,1,1,0\n"
        for m in range(100)
        if m not in missing
    ]
    path = folder / "BTCUSDT-1m.csv"
    path.write_text("".join(lines))
    return read_files("binance-klines", [path])


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_counts_add_up_and_can_be_recomputed(space: Workspace, tmp_path: Path) -> None:
    """Rows in is stored plus quarantined, reasons are counted, and a second derivation gives the same figures."""
    imported = store(space, recording(tmp_path, bad=3))
    body = imported.record.body
    found = body["figures"]
    assert (found["rows_in"], found["rows_stored"], found["rows_quarantined"]) == (100, 97, 3)
    assert found["quarantined"] == {"close is not positive": 3}
    assert figures(body["inputs"], space) == found
    assert imported.record.kind == "data_import"
    assert imported.record.provenance is Provenance.REPLAY
    ((total, parts),) = get_kind("data_import").sums
    assert found[total] == sum(found[part] for part in parts)


def test_the_quarantine_shows_what_the_source_said(space: Workspace, tmp_path: Path) -> None:
    """File, row, reason and the values of every rejected row."""
    imported = store(space, recording(tmp_path, bad=2))
    rows = read_quarantine(space.blobs.get("quarantine", imported.record.body["inputs"]["quarantine"]))
    assert rows.select("file", "row", "close").rows() == [("BTCUSDT-1m.csv", 1, -1.0), ("BTCUSDT-1m.csv", 2, -1.0)]


def test_a_verifier_recomputes_it_and_finds_a_changed_byte(space: Workspace, tmp_path: Path) -> None:
    """verify passes; after one byte of the quarantine or a partition is changed it names the file."""
    store(space, recording(tmp_path, bad=2))
    assert verify(space.ledger, space).findings == ()
    for path in [p for p in files(space.root) if p.suffix == ".parquet"]:
        data = path.read_bytes()
        path.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
        assert path.name in str(verify(space.ledger, space).findings)
        path.write_bytes(data)


def test_a_count_that_does_not_add_up_is_an_error(space: Workspace, tmp_path: Path) -> None:
    """A source that claims one more row than was stored or kept apart is found."""
    inputs: dict[str, Any] = store(space, recording(tmp_path)).record.body["inputs"]
    inputs["sources"][0]["rows"] += 1
    with pytest.raises(IntegrityError, match="101 rows came in, 100 are accounted for"):
        figures(inputs, space)


def test_the_same_import_gives_the_same_digests(space: Workspace, tmp_path: Path) -> None:
    """From another folder and again: dataset and quarantine are the same bytes."""
    first = store(space, recording(tmp_path / "a", bad=2)).record.body["inputs"]
    assert store(space, recording(tmp_path / "b", bad=2)).record.body["inputs"] == first


def test_a_refused_recording_leaves_nothing(space: Workspace, tmp_path: Path) -> None:
    """Too many bad rows: DataError, no file of data, no blob, no record."""
    with pytest.raises(DataError, match="10 of 100 rows are bad"):
        store(space, recording(tmp_path, bad=10))
    assert files(space.root) == []


def test_a_failed_save_leaves_the_chain_as_it_was(space: Workspace, tmp_path: Path) -> None:
    """When the store cannot write there is no record of an import."""

    def full(dataset: Dataset) -> Dataset:
        raise StorageError(f"{dataset.symbol}: no space left")

    with pytest.raises(StorageError):
        import_recording(recording(tmp_path), save=full, ledger=space.ledger, sources=space)
    assert list(space.ledger.records()) == []


def test_gaps_are_listed_and_an_explanation_travels_with_the_data(space: Workspace, tmp_path: Path) -> None:
    """An unexplained gap makes the data unfit; the reason stands in the record and in the stored calendar."""
    holed = recording(tmp_path, missing=range(10, 30))
    found = store(space, holed).record.body["figures"]
    gap = {"start": "2024-01-01T00:10:00Z", "end": "2024-01-01T00:30:00Z", "minutes": 20, "explained": None}
    assert (found["gaps"], found["gaps_unexplained"], found["trainable"]) == (1, 1, False)
    assert found["gaps_largest"] == [gap]
    assert (found["minutes_with_data"], found["minutes_in_sessions"]) == (80, 100)
    explained = Explained(str(gap["start"]), str(gap["end"]), "exchange maintenance")
    calendar = structs.replace(holed.calendar, explained=(explained,))
    again = store(space, replace(holed, calendar=calendar))
    assert again.record.body["figures"]["trainable"] is True
    assert again.record.body["figures"]["gaps_largest"][0]["explained"] == "exchange maintenance"
    assert space.datasets.load("BTCUSDT").calendar.explained == (explained,)


def test_a_synthetic_market_is_recorded_as_such(space: Workspace) -> None:
    """Class, seed and drift stand in the record."""
    imported = store(space, record_synthetic(days=1, seed=3))
    body = imported.record.body
    assert imported.record.provenance is Provenance.SYNTHETIC
    assert body["figures"]["provenance"] == "synthetic"
    assert body["inputs"]["sources"][0]["name"] == "synth --days 1 --seed 3"
    assert "nobody traded here" in body["inputs"]["decisions"][0]
    assert msgspec.json.encode(body)


def test_rows_outside_sessions_locked_and_repeated_are_counted(space: Workspace, tmp_path: Path) -> None:
    """A quote before the bell, a locked one, and two equal ones in one instant."""
    start = parse_utc("2024-01-02T14:30:00Z")
    times = [start - NS_PER_MINUTE, start, start + 1, start + 1, start + 2]
    quotes = {
        "ts": times,
        "bid": [1.0, 2.0, 1.0, 1.0, 1.0],
        "ask": [2.0] * 5,
        "bid_size": [1.0] * 5,
        "ask_size": [1.0] * 5,
    }
    pl.DataFrame(quotes).write_parquet(tmp_path / "Q_1.parquet")

    options = Options(calendar=CALENDARS["us-equity"], symbol="Q")
    found = store(space, read_files("parquet", [tmp_path / "Q_1.parquet"], options)).record.body["figures"]
    assert (found["rows_outside_sessions"], found["locked"], found["repeated"]) == (1, 1, {"quotes": 1})
