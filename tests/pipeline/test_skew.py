"""Logged features are what batch computes from the raw data, bit by bit; one that is not is named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from canary import Bench, bench
from decisions import Replayed, forged, replay

from probatum.core.clock import NS_PER_DAY, format_utc
from probatum.core.errors import InconclusiveError, UnknownNameError
from probatum.features.sets import get_feature_set
from probatum.pipeline.registry import load_artifact
from probatum.pipeline.skew import KIND, REASONS, prove_skew
from probatum.pipeline.verify import verify
from probatum.testing.fakes import MemorySources

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Replayed]:
    """Return five days of bars, decided on one by one by one executor, and from the third day by another one too."""
    place = bench()
    artifact, first = load_artifact(place.sources, place.model), int(place.dataset.bars["ts_event"][0])
    folder = tmp_path_factory.mktemp("log")
    week = place.dataset.between(0, first + 5 * NS_PER_DAY)
    replay(artifact, week, folder)
    return place, replay(artifact, week.between(first + 2 * NS_PER_DAY + 7 * 60 * SECOND, 1 << 62), folder, late_ms=9)


def prove(place: Bench, frame: pl.DataFrame, **options: Any) -> dict[str, Any]:
    figures: dict[str, Any] = prove_skew(place.ledger, place.sources, frame, **{"grid_ns": SECOND, **options}).body[
        "figures"
    ]
    return figures


def test_every_row_of_two_executors_is_proven(made: tuple[Bench, Replayed]) -> None:
    """Each row is equal, those of an executor that began in the middle of the data too, and the record verifies."""
    place, run = made
    found = prove(place, run.frame)
    assert run.frame["since"].n_unique() == 2
    assert found["verdict"] == "PASS"
    assert found["rows"] == found["ready"] == found["equal"] == run.frame.height > 10_000
    assert found["first_mismatch"] is None
    assert verify(place.ledger, place.sources).findings == ()


@pytest.mark.parametrize("row", [0, 4_321, -1])
def test_one_altered_value_is_named(made: tuple[Bench, Replayed], row: int) -> None:
    """The last bit of one logged value differs: the verdict is FAIL and names symbol, time, decision, feature, both values."""
    place, run = made
    frame, row = run.frame, row % run.frame.height
    told = frame.row(row, named=True)
    value = math.nextafter(told["f_rsi14_z"], math.inf)
    found = prove(place, forged(frame, row, "f_rsi14_z", value))
    assert found["verdict"] == "FAIL"
    assert found["unequal"] == 1
    assert found["first_mismatch"] == {
        "symbol": place.dataset.symbol,
        "time": format_utc(told["as_of"]),
        "made": format_utc(told["ts"]),
        "seq": told["seq"],
        "feature": "rsi14_z",
        "logged": repr(value),
        "computed": repr(told["f_rsi14_z"]),
    }


@pytest.mark.parametrize("value", [None, math.nan, -0.0])
def test_no_value_is_excused(made: tuple[Bench, Replayed], value: float | None) -> None:
    """A missing value, NaN and another zero are mismatches, however few rows there are."""
    place, run = made
    frame = forged(run.frame, 100, "f_tod_sin", value).slice(95, 10)
    found = prove(place, frame)
    assert (found["verdict"], found["equal"], found["unequal"]) == ("FAIL", 9, 1)


def test_the_first_of_several_is_named(made: tuple[Bench, Replayed]) -> None:
    """First is the order of the log, over symbols, feature sets and executors."""
    place, run = made
    frame = forged(forged(run.frame, 9_000, "f_tod_sin", 2.0), 700, "f_tod_cos", 3.0)
    found = prove(place, frame)
    assert found["unequal"] == 2
    assert (found["first_mismatch"]["feature"], found["first_mismatch"]["logged"]) == ("tod_cos", "3.0")


def test_what_cannot_be_checked_is_counted_by_reason(made: tuple[Bench, Replayed]) -> None:
    """Each reason is counted on its own; nothing that was not compared is called equal."""
    place, run = made
    at = pl.col("seq")
    frame = run.frame.filter(pl.col("since") == run.frame["since"].min()).with_columns(
        since=pl.when(at <= 3).then(0).otherwise("since"),
        fingerprint=pl.when(at.is_between(4, 8)).then(pl.lit("0" * 64)).otherwise("fingerprint"),
        symbol=pl.when(at.is_between(9, 15)).then(pl.lit("OTHER")).otherwise("symbol"),
        as_of=pl.when(at.is_between(16, 26)).then(pl.col("as_of") + 1).otherwise("as_of"),
    )
    found = prove(place, frame)
    counted = {"no_start": 3, "other_features": 5, "no_data": 7, "no_row": 11}
    assert found["reasons"] == dict.fromkeys(REASONS, 0) | counted
    assert found["unchecked"] == 26
    assert found["equal"] == found["ready"] == frame.height - 26
    assert found["verdict"] == "PASS"


def test_too_few_rows_prove_nothing(made: tuple[Bench, Replayed]) -> None:
    """Below a thousand rows that were checked it is INCONCLUSIVE; with none at all too; without a log there is no record."""
    place, run = made
    assert prove(place, run.frame.head(999))["verdict"] == "INCONCLUSIVE"
    assert prove(place, run.frame.head(1_000))["verdict"] == "PASS"
    assert prove(place, run.frame.with_columns(since=0))["verdict"] == "INCONCLUSIVE"
    before = len(list(place.ledger.records(kind=KIND)))
    with pytest.raises(InconclusiveError):
        prove(place, run.frame.clear())
    with pytest.raises(UnknownNameError, match=place.dataset.symbol):
        prove(place, run.frame, dataset="NOTHING")
    assert len(list(place.ledger.records(kind=KIND))) == before


def test_data_that_begin_later_prove_what_the_features_no_longer_remember(made: tuple[Bench, Replayed]) -> None:
    """Where the raw data begin after the executor's, rows are checked once no memory of the difference is left."""
    place, run = made
    begin = int(run.frame["as_of"][2_000])
    part = place.dataset.between(begin - 1, 1 << 62)
    sources = MemorySources([part])
    frame = run.frame.filter(pl.col("since") == run.frame["since"].min())
    sources.ledger = place.ledger
    found = prove_skew(place.ledger, sources, frame, grid_ns=SECOND).body["figures"]
    memory_ns = get_feature_set("robust").memory_minutes * 60 * SECOND
    early = int((frame["as_of"] < begin + memory_ns).sum())
    assert found["reasons"]["no_history"] == early
    assert found["equal"] == frame.height - early > 1_000
    assert found["verdict"] == "PASS"


def test_another_computation_is_found(made: tuple[Bench, Replayed]) -> None:
    """Raw data that differ in one bar from what the executor saw are a skew, from that bar on."""
    place, run = made
    bars = place.dataset.bars
    assert bars is not None
    row = 3_000
    close = np.array(bars["close"])
    close[row] = np.nextafter(close[row], np.inf)
    sources = MemorySources([type(place.dataset)(**{**vars(place.dataset), "bars": bars.with_columns(close=close)})])
    found = prove_skew(place.ledger, sources, run.frame, grid_ns=SECOND).body["figures"]
    assert found["verdict"] == "FAIL"
    assert found["first_mismatch"]["time"] == format_utc(int(bars["ts_event"][row]))


def test_the_log_is_read_as_it_was_written(made: tuple[Bench, Replayed]) -> None:
    """The columns that the proof rests on come back from the executor's own files."""
    place, run = made
    assert {"since", "model"} <= set(run.frame.columns)
    assert run.frame["model"].unique().to_list() == [place.model[:16]]
