"""Every format comes out in the same canonical columns; a file that is not its format is refused with its row."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probatum.adapters.importers import FORMATS, Options, read_files
from probatum.adapters.importers import files as files_module
from probatum.adapters.store import ParquetStore
from probatum.cli.data import FORMATS as CLI_FORMATS
from probatum.core.clock import parse_utc
from probatum.core.errors import DataError, ParameterError, ProbatumError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.quality import Recording, screen
from probatum.market.synth import synthesise

T0_MS = 1_704_067_200_000  # 2024-01-01
ROWS = 40


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def zipped(path: Path, inner: str, text: str) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inner, text)
    return write(path, buffer.getvalue())


def kline(minute: int, *, scale: int = 1, close: str = "101.0") -> str:
    opened = (T0_MS + minute * 60_000) * scale
    return f"{opened},100.0,102.0,99.0,{close},5.5,{opened + 60_000 * scale - 1},555,9,2.5,250,0"


def klines(*, scale: int = 1, rows: int = ROWS) -> str:
    return "".join(kline(minute, scale=scale) + "\n" for minute in range(rows))


def headered(rows: int = ROWS, stamp: str = "2024-01-01 00:{:02d}:00") -> str:
    lines = [f"{stamp.format(minute)},100,102,99,101,5.5" for minute in range(rows)]
    return "\n".join(["datetime,open,high,low,close,volume", *lines]) + "\n"


def rows_of(recording: Recording) -> dict[str, pl.DataFrame]:
    """Screen, and check the sum: every row that came in is somewhere."""
    screened = screen(recording)
    stored = sum(frame.height for frame in screened.dataset.frames.values())
    accounted = stored + screened.quarantine.height + recording.merged + sum(recording.ignored.values())
    assert accounted == recording.rows_in
    return screened.dataset.frames


# Binance klines


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("archive", [False, True])
def test_klines_are_stamped_at_close_whatever_their_unit(tmp_path: Path, scale: int, archive: bool) -> None:
    """Milliseconds and microseconds, bare or zipped: the first bar closes at 00:01:00 UTC."""
    name, text = "BTCUSDT-1m-2024-01-01", klines(scale=scale)
    path = zipped(tmp_path / f"{name}.zip", f"{name}.csv", text) if archive else write(tmp_path / f"{name}.csv", text)
    recording = read_files("binance-klines", [path])
    bars = rows_of(recording)["bars"]
    assert bars["ts_event"][0] == parse_utc("2024-01-01T00:01:00Z")
    assert bars.row(0)[2:] == (100.0, 102.0, 99.0, 101.0, 5.5, None)
    assert (recording.symbol, recording.provenance, bars.height) == ("BTCUSDT", Provenance.REPLAY, ROWS)
    assert f"whole numbers of {'ms' if scale == 1 else 'us'} since 1970 UTC, detected" in recording.decisions[0]


def test_the_header_may_be_there(tmp_path: Path) -> None:
    """The same rows with Binance's own header, and the short headered form, give the same bars."""
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
    with_header = write(tmp_path / "a" / "BTCUSDT-1m.csv", header + klines())
    bare = write(tmp_path / "b" / "BTCUSDT-1m.csv", klines())
    short = write(tmp_path / "c" / "BTCUSDT-1m.csv", "\ufeff" + headered().replace("\n", "\r\n"))
    bars = [rows_of(read_files("binance-klines", [path]))["bars"] for path in (with_header, bare, short)]
    assert bars[0].equals(bars[1])
    assert bars[0].equals(bars[2])


def test_dumps_of_several_days_make_one_recording(tmp_path: Path) -> None:
    """A folder is its files in order of their names, each with its own rows and digest; units may change between."""
    text = klines(rows=10)
    zipped(tmp_path / "BTCUSDT-1m-2024-01-01.zip", "a.csv", text)
    later = "".join(kline(minute, scale=1000) + "\n" for minute in range(10, 20))
    zipped(tmp_path / "BTCUSDT-1m-2024-01-02.zip", "b.csv", later)
    recording = read_files("binance-klines", [tmp_path])
    assert [source.rows for source in recording.sources] == [10, 10]
    assert len(recording.decisions) == 2
    assert rows_of(recording)["bars"].height == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "", "the file is empty"),
        (lambda _: "\n\n\n", "the file is empty"),
        (lambda _: "datetime,open,high,low,close,volume\n", "a header and no rows"),
        (lambda t: t[:-60], "row 40: the line ends early; the file was cut short"),
        (lambda t: t.replace(str(T0_MS), str(T0_MS // 1000)), "row 1, field open_time: times in s; this format has ms or us"),
        (lambda t: t.replace(str(T0_MS), str(T0_MS) + "000000"), "row 1, field open_time: times in ns"),
        (lambda t: t.replace(str(T0_MS), "17"), "row 1, field open_time: a time outside 1980 to 2100"),
        (lambda t: t.replace(str(T0_MS + 180_000), str((T0_MS + 180_000) * 1000), 1), "row 4, field open_time: a time outside 1980 to 2100 in ms, the unit of the rows before"),
        (lambda t: t.replace("99.0", "cheap", 1), "row 1, field low: not a number"),
        (lambda t: t.replace(",9,2.5", ",9,2.5,7", 1), "row 1"),
        (lambda t: t.replace(kline(7), kline(7) + ",1"), "row 8: 13 fields, 12 are expected"),
        (lambda t: "\n".join(line[:-2] for line in t.splitlines()) + "\n", "12 columns are expected, found 11"),
        (lambda t: t.replace(f"{T0_MS + 59_999}", f"{T0_MS + 3_599_999}"), "row 1, field close_time: the bar does not cover one minute"),
        (lambda t: t.encode() + b"\xff\xfe,,,,,,,,,,,\n", "UTF-8"),
        (lambda _: headered().replace("close", "klose"), "row 1: missing column close; the file has: datetime"),
        (lambda _: headered().replace("volume\n", "volume,vwap\n"), "row 1: unknown column vwap"),
        (lambda _: headered().replace("close", "open"), "two columns have the same name"),
        (lambda _: headered().replace("00:03:00", "00:03:00+02:00"), "row 5, field datetime: another time zone"),
        (lambda _: headered().replace("00:03:00", "00:61:00"), "row 5, field datetime: a date or time that does not exist"),
        (lambda _: headered().replace("2024-01-01 00:03:00", "yesterday"), "row 5, field datetime: not an ISO 8601 time"),
        (lambda _: headered().replace("2024", "1024"), "row 2, field datetime: a year outside 1980 to 2099"),
        (lambda _: headered(12, "2024-01-01 {:02d}:00:00"), "bars are 3600 s apart; one-minute bars are needed"),
        (lambda _: headered().replace(",101,", ",,"), "40 of 40 rows are bad"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_klines_is_refused(
    tmp_path: Path, change: Callable[[str], str | bytes], message: str
) -> None:
    """Each fault of a whole file raises DataError that names the file and, where there is one, row and field."""
    path = write(tmp_path / "BTCUSDT-1m-2024-01-01.csv", change(klines()))
    with pytest.raises(DataError) as refused:
        screen(read_files("binance-klines", [path]))
    assert message in refused.value.message
    assert path.name in refused.value.message


def test_a_last_line_without_an_end_is_quarantined(tmp_path: Path) -> None:
    """It has all its fields, but the last may be cut: the row is kept apart, with the reason."""
    path = write(tmp_path / "BTCUSDT-1m.csv", klines()[:-1])
    screened = screen(read_files("binance-klines", [path]))
    assert screened.quarantine.select("row", "reason").rows() == [(ROWS, "the last line has no end: it may be cut")]


@pytest.mark.parametrize("cut", [10, 100, -1])
@pytest.mark.parametrize("suffix", [".zip", ".gz"])
def test_a_cut_archive_is_refused(tmp_path: Path, suffix: str, cut: int) -> None:
    """Archives know where they end: any truncation is found."""
    path = tmp_path / f"BTCUSDT-1m{suffix}"
    if suffix == ".zip":
        zipped(path, "a.csv", klines())
    else:
        write(path, gzip.compress(klines().encode()))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=path.name):
        read_files("binance-klines", [path])


def test_a_bomb_and_a_bundle_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks beyond the limit, and a zip of several files, are no dump."""
    monkeypatch.setattr(files_module, "MAX_BYTES", 1000)
    for path in (
        zipped(tmp_path / "A-1.zip", "a.csv", klines()),
        write(tmp_path / "A-1.gz", gzip.compress(klines().encode())),
    ):
        with pytest.raises(DataError, match="unpacks to more than 1000 bytes"):
            read_files("binance-klines", [path])
    with zipfile.ZipFile(tmp_path / "B-1.zip", "w") as archive:
        archive.writestr("a.csv", "1")
        archive.writestr("b.csv", "2")
    with pytest.raises(DataError, match="the zip holds 2 files"):
        read_files("binance-klines", [tmp_path / "B-1.zip"])


def test_the_symbol_is_told_or_in_every_name(tmp_path: Path) -> None:
    """Names without one, or with two, need --symbol; what is told must be a symbol."""
    one, two = write(tmp_path / "BTCUSDT-1m.csv", klines()), write(tmp_path / "ETHUSDT-1m.csv", klines(rows=39))
    with pytest.raises(ParameterError, match="--symbol"):
        read_files("binance-klines", [one, two])
    with pytest.raises(ParameterError, match="--symbol"):
        read_files("binance-klines", [write(tmp_path / "data.csv", klines(rows=38))])
    assert read_files("binance-klines", [one], Options(symbol="X.Y")).symbol == "X.Y"
    with pytest.raises(ParameterError, match="symbol"):
        Options(symbol="../../x")


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A missing file, an empty folder, the same bytes twice, no path, an unknown format."""
    path = write(tmp_path / "BTCUSDT-1m.csv", klines())
    (tmp_path / "empty").mkdir()
    for paths, message in (
        ([tmp_path / "none.csv"], "cannot be read"),
        ([tmp_path / "empty"], "no file that ends in"),
        ([path, path], "the same bytes as"),
    ):
        with pytest.raises(DataError, match=message):
            read_files("binance-klines", paths)
    with pytest.raises(ParameterError):
        read_files("binance-klines", [])
    with pytest.raises(UnknownNameError, match="did you mean 'csv'"):
        read_files("cvs", [path])


def test_the_command_line_offers_every_format() -> None:
    """The list that --help shows without importing the importers is the importers' own."""
    assert sorted(CLI_FORMATS) == sorted(FORMATS)


def test_text_from_a_file_cannot_style_the_terminal(tmp_path: Path) -> None:
    """A control sequence in a header comes out as question marks."""
    path = write(tmp_path / "BTCUSDT-1m.csv", headered().replace("volume\n", "volume,\x1b[31mred\n"))
    with pytest.raises(DataError, match=r"unknown column \?\[31mred"):
        read_files("binance-klines", [path])


def test_an_option_that_a_format_does_not_use_is_refused(tmp_path: Path) -> None:
    """What is told is used or refused, never passed over."""
    path = write(tmp_path / "BTCUSDT-1m.csv", klines())
    for options in (Options(columns={"close": "x"}), Options(time_unit="ms")):
        with pytest.raises(ParameterError, match="left out: binance-klines fixes it"):
            read_files("binance-klines", [path], options)


# Binance websocket captures


def ticker(local_ns: int, update: int, bid: str = "100.0", ask: str = "100.1", **extra: Any) -> str:
    data = {"u": update, "s": "BTCUSDT", "b": bid, "B": "2.0", "a": ask, "A": "3.0", **extra}
    return f"{local_ns} {json.dumps({'stream': 'btcusdt@bookTicker', 'data': data})}"


def trade(local_ns: int, number: int, event_ms: int, *, maker: bool) -> str:
    data = {"e": "trade", "s": "BTCUSDT", "t": number, "p": "100.05", "q": "0.5", "T": event_ms, "m": maker}
    return f"{local_ns} {json.dumps({'stream': 'btcusdt@trade', 'data': data})}"


def capture(path: Path, *lines: str) -> Path:
    return write(path, gzip.compress("".join(line + "\n" for line in lines).encode()))


L0 = T0_MS * 1_000_000


def test_futures_captures_use_the_exchange_clock(tmp_path: Path) -> None:
    """ts_event is T, ts_recv the local time; a buyer who was the maker means an aggressive seller."""
    path = capture(tmp_path / "x.gz", ticker(L0 + 5, 1, T=T0_MS - 9), trade(L0 + 6, 1, T0_MS - 8, maker=True), f'{L0} {{"result":null,"id":1}}', f'{L0} {{"stream":"btcusdt@depth@0ms","data":{{}}}}')  # fmt: skip
    recording = read_files("binance-ws", [path])
    frames = rows_of(recording)
    assert frames["quotes"].rows() == [(L0 - 9_000_000, L0 + 5, 100.0, 100.1, 2.0, 3.0)]
    assert frames["trades"].rows() == [(L0 - 8_000_000, L0 + 6, 100.05, 0.5, -1)]
    assert recording.ignored == {"not of a stream": 1, "stream depth": 1}
    assert "local time minus event time is 8 ms" in recording.decisions[1] or "9 ms" in recording.decisions[1]


def test_spot_captures_use_the_local_clock_for_all(tmp_path: Path) -> None:
    """A bookTicker without T: quotes and trades are both stamped by the receiver, and the decision says so."""
    path = capture(tmp_path / "x.gz", ticker(L0 + 5, 1), trade(L0 + 6, 1, T0_MS + 1000, maker=False))
    recording = read_files("binance-ws", [path])
    assert [frame["ts_event"].to_list() for frame in rows_of(recording).values()] == [[L0 + 5], [L0 + 6]]
    assert "ts_event is the local receive time, for trades too" in recording.decisions[0]


def test_a_line_that_is_no_message_is_quarantined(tmp_path: Path) -> None:
    """A cut line, a field of the wrong type and an update seen twice are kept apart with their row."""
    lines = [ticker(L0 + i, i) for i in range(100)]
    broken = [lines[0], lines[1][:-9], lines[2].replace("100.0", "cheap"), *lines[3:], lines[50]]
    screened = screen(read_files("binance-ws", [capture(tmp_path / "x.gz", *broken)]))
    assert sorted(screened.quarantine.select("row", "reason").rows()) == [(2, "not a time and a message"), (3, "not a time and a message"), (101, "duplicate")]  # fmt: skip


def test_a_capture_in_the_wrong_unit_or_of_two_symbols_is_refused(tmp_path: Path) -> None:
    """Local times must be ns; with two instruments --symbol chooses, and the rest is counted as ignored."""
    with pytest.raises(DataError, match="row 1, field local_ns"):
        read_files("binance-ws", [capture(tmp_path / "a.gz", ticker(T0_MS, 1))])
    both = capture(tmp_path / "b.gz", ticker(L0, 1), ticker(L0 + 1, 2).replace("BTCUSDT", "ETHUSDT"))
    with pytest.raises(ParameterError, match=r"BTCUSDT.*ETHUSDT"):
        read_files("binance-ws", [both])
    recording = read_files("binance-ws", [both], Options(symbol="ETHUSDT"))
    assert recording.ignored == {"another symbol": 1}
    assert rows_of(recording)["quotes"].height == 1
    with pytest.raises(DataError, match="no rows of market data"):
        screen(read_files("binance-ws", [capture(tmp_path / "c.gz", f'{L0} {{"a":1}}')], Options(symbol="X")))


# Lean


def lean(folder: Path, name: str, *lines: str, symbol: str = "bac") -> Path:
    inner = f"{name[:8]}_{symbol}_{name[9:].split('.')[0].capitalize()}_Tick.csv"
    return zipped(folder / name, inner, "\n".join(lines))


def test_lean_quotes_pair_their_sides_in_new_york_time(tmp_path: Path) -> None:
    """A bid row and the ask row after it are one quote; a later row moves its side only; 0 is no side."""
    path = lean(
        tmp_path,
        "20131007_quote.zip",
        "34200000,0,0,140200,500,Q,1,0",
        "34200100,140000,700,0,0,P,1,0",
        "34200100,0,0,140100,900,P,1,0",
        "34200200,140050,300,0,0,P,1,0",
    )
    recording = read_files("lean", [path])
    screened = screen(recording)
    nine_thirty = int(datetime(2013, 10, 7, 9, 30, tzinfo=ZoneInfo("America/New_York")).timestamp()) * 10**9
    assert screened.dataset.frames["quotes"].select("ts_event", "bid", "ask", "bid_size", "ask_size").rows() == [
        (nine_thirty + 100_000_000, 14.0, 14.01, 700.0, 900.0),
        (nine_thirty + 200_000_000, 14.005, 14.01, 300.0, 900.0),
    ]
    assert screened.quarantine.select("row", "reason").rows() == [(1, "one-sided: no bid")]
    assert (recording.merged, recording.symbol, recording.tick_size) == (1, "BAC", 0.01)


def test_suspicious_lean_rows_are_quarantined_and_move_nothing(tmp_path: Path) -> None:
    """A row that the source marks goes to quarantine as it is; the quotes after it do not know it."""
    rows = [f"{34200000 + i},140000,700,140100,900,P,1,0" for i in range(60)]
    rows[20] = "34200020,999999,1,0,0,P,1,1"
    rows[21] = "34200021,0,0,140200,900,P,1,0"
    screened = screen(read_files("lean", [lean(tmp_path, "20131007_quote.zip", *rows)]))
    assert screened.quarantine.select("row", "reason", "bid").rows() == [(21, "suspicious, says the source", 99.9999)]
    assert screened.dataset.frames["quotes"]["bid"].unique().to_list() == [14.0]


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("quotes.zip", "34200000,1,1,1,1,P,1,0", "the name of a Lean tick file"),
        ("20131399_quote.zip", "34200000,1,1,1,1,P,1,0", "a date that does not exist"),
        ("20131007_quote.zip", "1381152600000,1,1,1,1,P,1,0", "row 1, field ms: not ms since midnight"),
        ("20131007_quote.zip", "34200000.5,1,1,1,1,P,1,0", "row 1, field ms: not ms since midnight"),
        ("20131007_quote.zip", "nan,1,1,1,1,P,1,0", "row 1, field ms: not ms since midnight"),
        ("20131007_quote.zip", "34200000,1,1,P,1,0", "8 columns are expected, found 6"),
        ("20131007_trade.zip", "34200000,a,1,P,1,0", "row 1, field price: not a number"),
    ],
)
def test_a_file_that_is_not_lean_is_refused(tmp_path: Path, name: str, row: str, message: str) -> None:
    """Name, date, unit and columns are checked."""
    with pytest.raises(DataError) as refused:
        read_files("lean", [lean(tmp_path, name, row)])
    assert message in refused.value.message


# Bid and ask bars


def side(rows: dict[int, float]) -> str:
    lines = [f"2012-02-01 00:{m:02d}:00+00:00,{p},{p + 0.2},{p - 0.2},{p}" for m, p in rows.items()]
    return "\n".join(["timestamp,open,high,low,close", *lines]) + "\n"


def pair(tmp_path: Path, bid: str, ask: str) -> list[Path]:
    return [write(tmp_path / "gbpusd-m1-ask-2012.csv", ask), write(tmp_path / "gbpusd-m1-bid-2012.csv", bid)]


def test_bid_and_ask_bars_become_mid_and_spread(tmp_path: Path) -> None:
    """Price is the mean of both sides, spread the difference at close; a minute with one side is quarantined."""
    bid = dict.fromkeys(range(50), 10.0)
    ask = dict.fromkeys(range(1, 51), 11.0) | {7: 9.0}
    recording = read_files("bid-ask-bars", pair(tmp_path, side(bid), side(dict(sorted(ask.items())))))
    screened = screen(recording)
    assert screened.dataset.frames["bars"].row(0, named=True) | {"ts_recv": 0} == {"ts_event": parse_utc("2012-02-01T00:02:00Z"), "ts_recv": 0, "open": 10.5, "high": 10.7, "low": 10.3, "close": 10.5, "volume": None, "spread": 1.0}  # fmt: skip
    assert screened.quarantine.sort("file", "row").select("file", "row", "reason").rows() == [
        ("gbpusd-m1-ask-2012.csv", 51, "no bid bar for this minute"),
        ("gbpusd-m1-bid-2012.csv", 2, "no ask bar for this minute"),
        ("gbpusd-m1-bid-2012.csv", 9, "crossed"),
    ]
    assert (recording.symbol, recording.merged, recording.rows_in) == ("GBPUSD", 49, 100)


def test_a_doubled_minute_stays_two_rows(tmp_path: Path) -> None:
    """A minute twice in both files gives a duplicate in quarantine, and the sum still holds."""
    text = side(dict.fromkeys(range(50), 10.0))
    doubled = text + text.splitlines()[-1] + "\n"
    recording = read_files("bid-ask-bars", pair(tmp_path, doubled, doubled.replace("10.0\n", "10.1\n")))
    assert rows_of(recording)["bars"].height == 50
    assert screen(recording).quarantine["reason"].to_list() == ["duplicate"]


def test_bid_and_ask_must_be_two_files(tmp_path: Path) -> None:
    """One file, or names that do not say which is which, are refused."""
    path = write(tmp_path / "gbpusd-bid.csv", side({1: 10.0}))
    with pytest.raises(ParameterError, match="one with 'bid' and one with 'ask'"):
        read_files("bid-ask-bars", [path])


# Generic tables


def test_csv_with_a_map(tmp_path: Path) -> None:
    """Bars stamped at open in a told zone; what the source lacks and what is not used is written down."""
    text = "Time,Px,Note\n" + "".join(f"2024-07-01 09:{m:02d},{100 + m},x\n" for m in range(ROWS))
    path = write(tmp_path / "t.csv", text)
    recording = read_files("csv", [path], Options(symbol="X", columns={"ts_open": "Time", "close": "Px"}, time_zone="America/New_York"))  # fmt: skip
    bars = rows_of(recording)["bars"]
    assert bars["ts_event"][0] == parse_utc("2024-07-01T13:01:00Z")
    assert bars.row(1)[2:] == (101.0, 101.0, 101.0, 101.0, None, None)
    text = "; ".join(recording.decisions)
    for decision in (
        "read as America/New_York",
        "time is the time of a bar's open",
        "open: the source has none",
        "columns not used: note",
    ):
        assert decision in text


def test_csv_quotes_and_trades(tmp_path: Path) -> None:
    """Canonical names need no map; numeric times are told or detected; a missing side is 0."""
    quotes = write(tmp_path / "q.csv", "ts,bid,ask,bid_size,ask_size\n1704067200,1,2,3,4\n1704067201,1,2,3,4\n")
    assert rows_of(read_files("csv", [quotes], Options(symbol="X")))["quotes"].row(0)[2:] == (1.0, 2.0, 3.0, 4.0)
    trades = write(tmp_path / "t.csv", "ts,px,size\n1704067200000000000,5,1\n")
    frame = rows_of(read_files("csv", [trades], Options(symbol="X", columns={"price": "px"}, time_unit="ns")))["trades"]
    assert frame.row(0) == (L0, L0, 5.0, 1.0, 0)
    with pytest.raises(DataError, match="outside 1980 to 2100 in ms"):
        read_files("csv", [trades], Options(symbol="X", columns={"price": "px"}, time_unit="ms"))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n", {}, "exactly one price column is needed"),
        ("ts,bid,ask,close\n1704067200,1,1,1\n", {}, "exactly one price column"),
        ("close\n1\n", {}, "exactly one time column"),
        ("ts,close\n1704067200,1\n", {"columns": {"close": "klose"}}, "missing column klose"),
        ("ts,bid\n1704067200,1\n", {}, "quotes need a column for ask"),
        ("ts_open,price,size\n1704067200,1,1\n", {}, "the time of a bar's open"),
        ("ts,close\n1704067200,1\n", {"columns": {"klose": "close"}}, "unknown column 'klose'"),
        ("ts,price,size\n2024-03-10 02:30:00,1,1\n", {"time_zone": "America/New_York"}, "row 2, field ts: a time that America/New_York has twice or not at all"),
        ("ts,price,size\n2024-03-10 02:30:00,1,1\n", {"time_zone": "Mars"}, "time zone must be"),
        ("ts,price,size\n12.5,1,1\n", {}, "not an ISO 8601 time"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_mapped_is_refused(
    tmp_path: Path, text: str, options: dict[str, Any], message: str
) -> None:
    """The message says which column is missing, and how to name it."""
    with pytest.raises(ProbatumError) as refused:
        read_files("csv", [write(tmp_path / "t.csv", text)], Options(symbol="X", **options))
    assert message in refused.value.message


def test_parquet_keeps_its_class(tmp_path: Path) -> None:
    """A synthetic partition that is imported again is synthetic, bytes of its rows unchanged; a foreign file is replay."""
    market = ParquetStore(tmp_path / "store").save(synthesise(days=1, seed=1))
    partition = next((tmp_path / "store" / "SYN" / "quotes").glob("*.parquet"))
    recording = read_files("parquet", [partition], Options(symbol="SYN"))
    assert recording.provenance is Provenance.SYNTHETIC
    assert rows_of(recording)["quotes"].equals(market.frames["quotes"])
    foreign = tmp_path / "foreign.parquet"
    frame = pl.read_parquet(partition).with_columns(
        ts_event=pl.from_epoch("ts_event", "ns").dt.replace_time_zone("UTC")
    )
    frame.write_parquet(foreign, metadata={"probatum.provenance": "live"})
    recording = read_files("parquet", [foreign], Options(symbol="SYN"))
    assert recording.provenance is Provenance.REPLAY
    assert rows_of(recording)["quotes"].equals(market.frames["quotes"])


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    """Cut, or of other columns: DataError with the file's name."""
    path = tmp_path / "x.parquet"
    pl.DataFrame({"ts": [[1]], "price": [1.0], "size": [1.0]}).write_parquet(path)
    with pytest.raises(DataError, match="field ts: the column is of type List"):
        read_files("parquet", [path], Options(symbol="X"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        read_files("parquet", [path], Options(symbol="X"))


# Hostile bytes

SEEDS: dict[str, list[tuple[str, bytes]]] = {
    "binance-klines": [("BTCUSDT-1m.csv", klines(rows=5).encode())],
    "csv": [("t.csv", headered(5).encode().replace(b"datetime", b"ts"))],
    "binance-ws": [("x.txt", "\n".join([ticker(L0, 1), trade(L0 + 1, 1, T0_MS, maker=True)]).encode())],
    "bid-ask-bars": [(f"x-{name}.csv", side(dict.fromkeys(range(5), 10.0)).encode()) for name in ("bid", "ask")],
}


def parquet_seed() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"ts": [L0, L0 + 1], "price": [1.0, 2.0], "size": [1.0, 1.0]}).write_parquet(buffer)
    return buffer.getvalue()


def lean_seed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("20131007_bac_Quote_Tick.csv", "34200000,140000,700,140100,900,P,1,0\n" * 5)
    return buffer.getvalue()


SEEDS["parquet"] = [("t.parquet", parquet_seed())]
SEEDS["lean"] = [("20131007_quote.zip", lean_seed())]
EDITS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(min_size=1, max_size=6) | st.sampled_from([b",", b"\n", b"-", b'"', b"e9", b"nan", b"\x00", b"99999999999999999999"])), min_size=1, max_size=4)  # fmt: skip


@pytest.mark.parametrize("name", sorted(SEEDS))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
def test_mutated_bytes_raise_nothing_but_our_errors(
    tmp_path: Path, name: str, edits: list[tuple[int, int, bytes]]
) -> None:
    """Whatever is inserted, cut or overwritten: rows that add up, or a ProbatumError."""
    paths = []
    for file, seed in SEEDS[name]:
        data = seed
        for place, cut, insert in edits:
            at = place % (len(data) + 1)
            data = data[:at] + insert + data[at + cut :]
        paths.append(write(tmp_path / file, data))
    with suppress(ProbatumError):
        rows_of(read_files(name, paths, Options(symbol="X")))


# Recorded data


def test_recorded_btcusdt(shared_data: Path) -> None:
    """The file of January 2024: 44,641 bars, no row rejected, stamped at close."""
    recording = read_files("binance-klines", [shared_data / "binance_klines" / "BTCUSDT_1min_sample.csv"])
    bars = rows_of(recording)["bars"]
    assert (recording.symbol, bars.height) == ("BTCUSDT", 44_641)
    assert bars.row(0) == (parse_utc("2024-01-01T00:01:00Z"), parse_utc("2024-01-01T00:01:00Z"), 42283.58, 42298.62, 42261.02, 42298.61, 35.92724, None)  # fmt: skip


def test_recorded_gbpusd(shared_data: Path) -> None:
    """February 2012: 30,117 pairs, of which 347 are crossed at the close, as counted from the raw files."""
    paths = sorted((shared_data / "fxcm_m1").glob("gbpusd*.csv"))
    screened = screen(read_files("bid-ask-bars", paths))
    raw = {("ask", "bid")["bid" in path.name]: pl.read_csv(path) for path in paths}
    crossed = raw["bid"].join(raw["ask"], on="timestamp").filter(pl.col("close") > pl.col("close_right")).height
    assert screened.quarantine["reason"].value_counts().rows() == [("crossed", crossed)]
    assert screened.dataset.frames["bars"].height == raw["bid"].height - crossed == 29_770


def test_recorded_bac(shared_data: Path) -> None:
    """One day of BAC: each pair of rows is a quote, within the trades' range of prices; one row is one-sided."""
    folder = shared_data / "lean_tick" / "equity" / "usa" / "tick" / "bac"
    recording = read_files("lean", sorted(folder.glob("20131007*")))
    screened = screen(recording)
    assert recording.symbol == "BAC"
    assert {kind: frame.height for kind, frame in screened.dataset.frames.items()} == {
        "quotes": 238_427,
        "trades": 88_172,
    }
    assert screened.quarantine["reason"].to_list() == ["one-sided: no bid"]
    assert recording.rows_in == 476_855 + 88_172


@pytest.mark.parametrize(("name", "quotes", "trades", "ignored"), [("spot", 28_040, 9_757, 3_452), ("usdm", 66_089, 21_313, 6_552)])  # fmt: skip
def test_recorded_captures(shared_data: Path, name: str, quotes: int, trades: int, ignored: int) -> None:
    """The counts are those of the messages in the raw text; depth and one snapshot are ignored by name."""
    recording = read_files("binance-ws", [shared_data / "binance_ws" / f"{name}_btcusdt_20240808.gz"])
    frames = rows_of(recording)
    assert (frames["quotes"].height, frames["trades"].height) == (quotes, trades)
    assert (sum(recording.ignored.values()), recording.ignored["not of a stream"]) == (ignored, 1)
