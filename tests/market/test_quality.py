"""Every row ends in the dataset or in quarantine with its reason, and gaps are judged inside sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from probatum.core.clock import NS_PER_MINUTE, NS_PER_S, format_utc, parse_utc
from probatum.core.errors import DataError, ParameterError
from probatum.core.verdict import Provenance
from probatum.market.calendar import CALENDARS, Calendar, Explained
from probatum.market.dataset import SCHEMAS, Dataset
from probatum.market.quality import Recording, SourceFile, covered_minutes, gaps, refuse_gaps, screen

T0 = parse_utc("2024-01-01T00:00:00Z")
NAN, INF = float("nan"), float("inf")
GOOD: dict[str, dict[str, Any]] = {
    "bars": {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 1.0, "spread": 0.5},
    "quotes": {"bid": 10.0, "ask": 11.0, "bid_size": 1.0, "ask_size": 2.0},
    "trades": {"price": 10.0, "size": 1.0, "side": 1},
}


def recording(kind: str, rows: Sequence[dict[str, Any]], **extra: Any) -> Recording:
    """Return a recording whose nth row, at minute n unless told, is the good row with some values changed."""
    full = [{"ts_event": T0 + (i + 1) * NS_PER_MINUTE, **GOOD[kind], **row} for i, row in enumerate(rows)]
    full = [{"ts_recv": row["ts_event"], **row} for row in full]
    schema = SCHEMAS[kind] | {name: pl.Int64() for name in ("id",) if any(name in row for row in rows)}
    frame = pl.DataFrame(full, schema=schema)
    frame = frame.with_columns(source=pl.lit(0, pl.UInt32), row=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))
    return Recording("test", "X", Provenance.REPLAY, Calendar(), None, {kind: frame}, (SourceFile("f", "0" * 64, len(rows)),), **extra)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        ("bars", {"close": NAN}, "close is not a number"),
        ("bars", {"open": None}, "open is not a number"),
        ("bars", {"high": INF}, "high is not a number"),
        ("bars", {"low": -1.0}, "low is not positive"),
        ("bars", {"close": 0.0}, "close is not positive"),
        ("bars", {"high": 10.5}, "high and low do not enclose open and close"),
        ("bars", {"low": 10.5}, "high and low do not enclose open and close"),
        ("bars", {"volume": -1.0}, "volume is negative"),
        ("bars", {"volume": None}, "volume is not a number"),
        ("bars", {"spread": -0.1}, "crossed"),
        ("bars", {"ts_event": T0 + 1}, "not on a whole minute"),
        ("bars", {"ts_event": None, "ts_recv": 0}, "no time"),
        ("quotes", {"bid": 12.0}, "crossed"),
        ("quotes", {"bid": None}, "one-sided: no bid"),
        ("quotes", {"ask": 0.0}, "one-sided: no ask"),
        ("quotes", {"ask": NAN}, "ask is not a number"),
        ("quotes", {"bid": -1.0}, "bid is not positive"),
        ("quotes", {"bid_size": -1.0}, "bid_size is negative"),
        ("trades", {"price": NAN}, "price is not a number"),
        ("trades", {"size": -1.0}, "size is negative"),
        ("trades", {"side": 2}, "side is not -1, 0 or 1"),
    ],
)
def test_a_bad_row_is_named(kind: str, bad: dict[str, Any], reason: str) -> None:
    """One broken value sends exactly its row to quarantine, with this reason, its number and what it said."""
    screened = screen(recording(kind, [{}, bad, {}]))
    assert screened.quarantine.select("kind", "file", "row", "reason").rows() == [(kind, "f", 2, reason)]
    assert screened.dataset.frames[kind].height == 2
    field, value = next(iter(bad.items()))
    kept = screened.quarantine[field][0]
    assert kept == value or (kept != kept and value != value)


def test_locked_quotes_are_kept() -> None:
    """A bid equal to the ask is a market state, not an error."""
    assert screen(recording("quotes", [{"bid": 11.0}, {}])).quarantine.is_empty()


def test_a_column_the_source_lacks_is_no_error() -> None:
    """Volume that is null in every row is absent; in one row among others it is a fault."""
    assert screen(recording("bars", [{"volume": None}, {"volume": None}])).quarantine.is_empty()


def test_duplicates_are_told_from_conflicts() -> None:
    """Of bars of one minute the first stays; an equal one is a duplicate, a different one a conflict."""
    same = {"ts_event": T0 + NS_PER_MINUTE}
    screened = screen(recording("bars", [same, {}, same, *[{} for _ in range(60)]]))
    assert screened.quarantine.select("row", "reason").rows() == [(3, "duplicate")]
    other = screen(recording("bars", [same, {}, {**same, "close": 10.5}, *[{} for _ in range(60)]]))
    assert other.quarantine.select("row", "reason").rows() == [(3, "another row with the same ts_event")]


def test_trades_are_duplicates_by_their_number_only() -> None:
    """Equal trades without a number may both be real and stay; with the same number the second goes."""
    twice = {"ts_event": T0 + NS_PER_MINUTE}
    assert screen(recording("trades", [twice, twice])).quarantine.is_empty()
    numbered = screen(recording("trades", [{**twice, "id": 5}, {**twice, "id": 5}, {"id": 6}]))
    assert numbered.quarantine.select("row", "reason").rows() == [(2, "duplicate")]


def test_late_rows_are_sorted_and_counted() -> None:
    """A row that is earlier than one before it is late; the dataset is in time order."""
    screened = screen(recording("trades", [{"ts_event": T0 + k} for k in (1, 5, 3, 4, 6)]))
    assert screened.out_of_order == 2
    assert (screened.dataset.frames["trades"]["ts_event"] - T0).to_list() == [1, 3, 4, 5, 6]


def test_too_many_bad_rows_are_refused() -> None:
    """More than one row in twenty: the file is not what its format says, and the first bad row is named."""
    rows: list[dict[str, Any]] = [{} for _ in range(40)]
    rows[7], rows[9] = {"bid": 12.0}, {"bid": NAN}
    assert screen(recording("quotes", rows)).quarantine.height == 2
    rows[11] = {"bid": 12.0}
    with pytest.raises(DataError, match=r"f, row 8: 3 of 40 rows are bad \(crossed: 2, bid is not a number: 1\)"):
        screen(recording("quotes", rows))


def test_a_recording_without_a_good_row_is_refused() -> None:
    """Nothing stored is no dataset: neither one bad row nor no row at all."""
    with pytest.raises(DataError, match="1 of 1 rows are bad"):
        screen(recording("quotes", [{"bid": 12.0}]))
    empty = recording("quotes", [])
    with pytest.raises(DataError, match="no rows of market data"):
        screen(empty)


VALUES = st.one_of(st.none(), st.floats(-1.0, 20.0), st.sampled_from([NAN, INF, -INF, 0.0]))


@given(st.lists(st.fixed_dictionaries({"ts_event": st.none() | st.integers(T0, T0 + 50), "id": st.none() | st.integers(1, 5), "bid": VALUES, "ask": VALUES, "bid_size": VALUES}), max_size=30))  # fmt: skip
def test_no_row_is_lost_or_made_up(rows: list[dict[str, Any]]) -> None:
    """Whatever the rows: good plus quarantined is all, each row number once, or the recording is refused."""
    good: list[dict[str, Any]] = [{"id": 100 + i} for i in range(20 * len(rows) + 1)]
    try:
        screened = screen(recording("quotes", [*good, *rows]))
    except DataError:
        return
    assert screened.dataset.frames["quotes"].height + screened.quarantine.height == len(good) + len(rows)
    assert screened.quarantine["row"].is_unique().all()
    kept = screened.dataset.frames["quotes"]
    assert bool((kept["bid"] <= kept["ask"]).all())


def dataset(kind: str, times: Sequence[int], calendar: Calendar) -> Dataset:
    rows = [{"ts_event": ts, "ts_recv": ts, **GOOD[kind]} for ts in times]
    frames = {kind: pl.DataFrame(rows, schema=SCHEMAS[kind])}
    return Dataset("X", Provenance.REPLAY, "", calendar, None, **frames)


def minutes(start: str, *numbers: int) -> list[int]:
    return [parse_utc(start) + number * NS_PER_MINUTE for number in numbers]


def test_five_missing_bars_are_no_gap_and_six_are() -> None:
    """A bar covers the minute it closes: bars 1 and 7 leave five minutes, bars 1 and 8 leave six."""
    start = "2024-01-01T00:00:00Z"
    assert gaps(dataset("bars", minutes(start, 1, 7), Calendar())) == []
    (gap,) = gaps(dataset("bars", minutes(start, 1, 8), Calendar()))
    assert (format_utc(gap.start_ns), gap.minutes) == ("2024-01-01T00:01:00Z", 6.0)


def test_a_closed_market_is_not_a_gap() -> None:
    """Night and week-end pass; ten minutes missing after the opening bell do not."""
    calendar = CALENDARS["us-equity"]
    friday, monday = minutes("2013-10-11T19:58:00Z", 0), minutes("2013-10-14T13:31:00Z", 0)
    assert gaps(dataset("quotes", friday + monday, calendar)) == []
    late = minutes("2013-10-14T13:40:00Z", 0)
    (gap,) = gaps(dataset("quotes", friday + late, calendar))
    assert (format_utc(gap.start_ns), gap.minutes) == ("2013-10-14T13:30:00Z", 10.0)


def test_training_refuses_an_unexplained_gap_and_accepts_an_explained_one() -> None:
    """The message names the span as the option takes it; with that option the data pass."""
    times = minutes("2024-01-01T00:00:00Z", 1, 2, 30, 31)
    with pytest.raises(DataError, match="X: no data for 27 minutes") as refused:
        refuse_gaps(dataset("bars", times, Calendar()))
    span = refused.value.message.split("--explain-gap ")[1].split("=")[0]
    start, end = span.split("..")
    calendar = structs.replace(Calendar(), explained=(Explained(start, end, "maintenance"),))
    refuse_gaps(dataset("bars", times, calendar))
    assert [gap.reason for gap in gaps(dataset("bars", times, calendar))] == ["maintenance"]
    shorter = structs.replace(Calendar(), explained=(Explained(start, "2024-01-01T00:28:00Z", "a part"),))
    with pytest.raises(DataError):
        refuse_gaps(dataset("bars", times, shorter))


@given(st.sets(st.integers(1, 4000), min_size=1, max_size=60), st.sampled_from(sorted(CALENDARS)))
def test_gaps_and_coverage_agree_with_a_slow_oracle(closes: set[int], name: str) -> None:
    """Minute by minute: a gap is a run of more than five minutes in a session between bars without one."""
    calendar = CALENDARS[name]
    start = parse_utc("2024-01-05T13:00:00Z")
    times = [start + number * NS_PER_MINUTE for number in sorted(closes)]
    spans = calendar.sessions("2024-01-01", "2024-01-12")
    runs, run, present, expected = [], 0, 0, 0
    for close in range(times[0], times[-1] + 1, NS_PER_MINUTE):
        inside = any(a <= close - NS_PER_MINUTE and close <= b for a, b in spans)
        has = (close - start) // NS_PER_MINUTE in closes
        expected += inside
        present += inside and has
        if inside and not has:
            run += 1
            continue
        runs.append(run)
        run = 0
    data = dataset("bars", times, calendar)
    assert [gap.minutes for gap in gaps(data)] == [float(run) for run in runs if run > 5]
    assert covered_minutes(data) == (present, expected)


def test_a_dataset_is_valid_from_birth() -> None:
    """A wrong column, an order that is not time's, or a name that is a path raise ParameterError."""
    good = dataset("trades", [T0, T0 + NS_PER_S], Calendar())
    assert good.trades is not None
    assert good.spine == "trades"
    for frames in ({"trades": good.trades.drop("side")}, {"trades": good.trades.reverse()}):
        with pytest.raises(ParameterError):
            Dataset("X", Provenance.REPLAY, "", Calendar(), None, **frames)
    with pytest.raises(ParameterError, match="symbol"):
        Dataset("../X", Provenance.REPLAY, "", Calendar(), None, trades=good.trades)
    assert np.array_equal(good.trades["ts_event"].to_numpy(), [T0, T0 + NS_PER_S])
