"""A feed delivers what an exchange sent, whatever the connection does; the class follows from the address."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from exchange import GARBAGE, Exchange, Klines, Script, captured, close, half_close, kind_of, looped, stall, too_large
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.adapters.feeds import open_feed
from probatum.adapters.feeds.binance import BinanceFeed
from probatum.adapters.feeds.link import LinkSettings, keep_going
from probatum.adapters.feeds.venues import CcxtFeed
from probatum.adapters.importers import read_files
from probatum.adapters.importers.ws import NO_MESSAGE, decode
from probatum.adapters.recorder import TickLog, read_recorded
from probatum.core.clock import NS_PER_MINUTE, SystemClock, VirtualClock
from probatum.core.errors import IntegrityError, ParameterError, StorageError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.events import QUOTE, TRADE
from probatum.market.quality import Screened, screen
from probatum.market.ticks import Notice, Tick
from probatum.monitoring.feed import FeedMonitor, Finding
from probatum.pipeline.feeding import Intake
from probatum.testing import check_feed
from probatum.testing.feeds import MemoryFeed

FAST = LinkSettings(silence_s=0.5, first_wait_s=0.01, longest_wait_s=0.05)
CLOCK = SystemClock()


def feed_of(url: str, **changes: Any) -> BinanceFeed:
    return BinanceFeed(["BTCUSDT"], **{"clock": CLOCK, "rng": random.Random(1), "url": url, "settings": FAST} | changes)


async def record(exchange: Exchange, folder: Path, market: str) -> tuple[FeedMonitor, list[Finding], TickLog]:
    """Record until the exchange has sent all."""
    async with exchange.serve():
        feed = feed_of(exchange.url, market=market)
        log, monitor, found = (
            TickLog(folder, feed.name, feed.provenance, CLOCK),
            FeedMonitor(feed.symbols),
            list[Finding](),
        )
        running = asyncio.create_task(Intake(feed, monitor, CLOCK, found.append, log=log).run())
        await asyncio.wait_for(exchange.finished.wait(), 200)
        lost = monitor.lost
        async with asyncio.timeout(10):
            while monitor.lost == lost:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        log.close()
    return monitor, found, log


def values(screened: Screened, market: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows but for the times that are this host's own."""
    own = ["ts_recv"] if market == "usdm" else ["ts_recv", "ts_event"]
    return {kind: frame.drop(own).rows() for kind, frame in screened.dataset.frames.items()}


@pytest.mark.real_data
@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_misbehaviour_that_removes_nothing_changes_no_row(shared_data: Path, tmp_path: Path, market: str) -> None:
    """Drops, half-closes, stalls, garbage, duplicates and reordering: the same rows, in the same order, as the capture's.

    USD-M rows carry the exchange's time and are equal in it; spot quotes have only the time of arrival.
    """
    path = shared_data / "binance_ws" / f"{market}_btcusdt_20240808.gz"
    script, rng = Script(captured(path)), random.Random(11)
    script.reorder(rng, 200)
    script.duplicate(rng, 300)
    for junk in GARBAGE:
        script.insert(rng, 3, junk)
    for step in (close, half_close, stall, too_large):
        script.insert(rng, 2, step)
    exchange = Exchange(script)
    monitor, found, log = asyncio.run(record(exchange, tmp_path, market))
    recorded = read_recorded(log.folder, "BTCUSDT")
    got, expected = screen(recorded), screen(read_files("binance-ws", [path]))
    assert values(got, market) == values(expected, market)
    assert recorded.provenance is Provenance.SYNTHETIC
    assert (log.counts.shed, log.counts.failed) == (0, 0)
    assert exchange.connections >= 9
    assert monitor.garbage == 3 * len(GARBAGE)
    state = monitor.states["BTCUSDT"]
    assert state.missing == 0
    assert not any("missing" in text for text in recorded.decisions)
    assert state.duplicates > 200
    assert state.late > 100
    assert {item.name for item in found} >= {"lost", "garbage"}
    assert got.quarantine.is_empty()
    assert recorded.merged >= state.duplicates


@pytest.mark.real_data
def test_what_was_removed_is_counted(shared_data: Path, tmp_path: Path) -> None:
    """Of trades that never came the number is known: to the monitor at once, and to whoever imports the recording."""
    messages = captured(shared_data / "binance_ws" / "spot_btcusdt_20240808.gz")[:20_000]
    script, rng = Script(messages), random.Random(3)
    gone = script.remove(rng, 20)
    script.reorder(rng, 50)
    monitor, found, log = asyncio.run(record(Exchange(script), tmp_path, "spot"))
    kinds = Counter(kind_of(msgspec.json.decode(item)) for item in gone)
    assert kinds["trade"] > 20
    assert monitor.states["BTCUSDT"].missing == kinds["trade"]
    recording = read_recorded(log.folder, "BTCUSDT")
    assert any(text.startswith(f"numbers: {kinds['trade']} trades are missing") for text in recording.decisions)
    assert sum(item.amount for item in found if item.name == "missing") in (0, kinds["trade"])  # settled after 2 s
    whole = Counter(kind_of(msgspec.json.decode(item)) for item in messages)
    rows = {kind: frame.height for kind, frame in screen(recording).dataset.frames.items()}
    assert rows == {"quotes": whole["bookTicker"] - kinds["bookTicker"], "trades": whole["trade"] - kinds["trade"]}


@pytest.mark.real_data
def test_an_hour_ends_in_the_same_rows(shared_data: Path, tmp_path: Path) -> None:
    """The spot capture ten times over, with drops and reordering on the way: no row more, none less, in several segments."""
    messages = looped(captured(shared_data / "binance_ws" / "spot_btcusdt_20240808.gz"), 10)
    script, rng = Script(messages), random.Random(5)
    script.reorder(rng, 500)
    script.insert(rng, 10, close)
    monitor, _, log = asyncio.run(record(Exchange(script), tmp_path, "spot"))
    assert len(list(log.folder.glob("*.parquet"))) >= 2
    frames = screen(read_recorded(log.folder, "BTCUSDT")).dataset.frames
    expected = [item["data"] for item in map(msgspec.json.decode, messages) if kind_of(item)]
    quotes = [(float(d["b"]), float(d["a"]), float(d["B"]), float(d["A"])) for d in expected if "b" in d]
    trades = [(float(d["p"]), float(d["q"]), -1 if d["m"] else 1) for d in expected if "p" in d]
    assert frames["quotes"].drop("ts_recv", "ts_event").rows() == quotes
    assert frames["trades"].drop("ts_recv", "ts_event").rows() == trades
    assert monitor.states["BTCUSDT"].missing == 0


def test_the_fake_and_the_real_feed_keep_one_contract() -> None:
    """check_feed holds the feed in memory and Binance's to the same promises."""
    items = [Notice("connected", 1), Tick(QUOTE, "BTCUSDT", 2, None, 1, 1.0, 2.0, 1.0, 1.0), Notice("lost", 3, "x")]

    async def real() -> list[Tick]:
        steps = Script([ticker(i) for i in range(1, 50)])
        async with Exchange(steps).serve() as exchange:
            return await check_feed(feed_of(exchange.url), lambda ticks: len(ticks) == 49)

    fake = asyncio.run(check_feed(MemoryFeed(["BTCUSDT"], items), lambda ticks: len(ticks) == 1))
    assert [tick.number for tick in fake] == [1]
    assert [tick.number for tick in asyncio.run(real())] == list(range(1, 50))


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (
            [Tick(QUOTE, "X", 5, None, 1, 1.0, 2.0, 1.0), Tick(QUOTE, "X", 4, None, 1, 1.0, 2.0, 1.0)],
            "local time falls",
        ),
        ([Tick(7, "X", 5, None, 1, 1.0, 2.0, 1.0)], "kind 7"),
        ([Notice("lost", 1, "x" * 201)], "201 characters"),
    ],
)
def test_a_feed_that_breaks_the_contract_is_told(items: list[Tick | Notice], problem: str) -> None:
    """The check fails, naming what is wrong."""
    with pytest.raises(AssertionError, match=problem):
        asyncio.run(check_feed(MemoryFeed(["X"], items), lambda ticks: len(ticks) == 2, timeout_s=1))


def ticker(update: int, **changes: Any) -> bytes:
    data = {"u": update, "s": "BTCUSDT", "b": "100.0", "B": "2", "a": "100.1", "A": "3"} | changes
    return json.dumps({"stream": "btcusdt@bookTicker", "data": data}).encode()


def trade(number: int, **changes: Any) -> bytes:
    data = {"e": "trade", "s": "BTCUSDT", "t": number, "p": "100.05", "q": "0.5", "T": 1_723_161_255_000, "m": True}
    return json.dumps({"stream": "btcusdt@trade", "data": data | changes}).encode()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_are_no_message(data: bytes) -> None:
    """Whatever arrives is a tick, the name of something else, or one of the errors that the feed counts."""
    decoded(data)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([ticker(7, T=1_723_161_255_000), ticker(7), trade(9)]), st.data())
def test_mutated_messages_stay_in_bounds(message: bytes, data: st.DataObject) -> None:
    """Bytes changed, cut, doubled or swapped for other JSON: a tick that comes out fits the recorder's columns."""
    place = data.draw(st.integers(0, len(message) - 1))
    other = data.draw(
        st.one_of(st.binary(max_size=8), st.sampled_from([b"1e999", b"-1", b"null", b'"NaN"', b"9" * 30]))
    )
    cut = data.draw(st.integers(0, 12))
    decoded(message[:place] + other + message[place + cut :])


def decoded(body: bytes) -> None:
    try:
        tick = decode(body, 1)
    except NO_MESSAGE:
        return
    if isinstance(tick, Tick):
        assert tick.kind in (QUOTE, TRADE)
        assert tick.number is not None
        assert 0 <= tick.number < 2**63
        assert tick.ts_event is None or 0 < tick.ts_event < 2**63
        assert 1 <= len(tick.symbol) <= 40
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(tick), type=Tick).symbol == tick.symbol
    else:
        assert len(tick) < 30


def test_only_built_in_addresses_are_live() -> None:
    """Whoever names an address, be it the exchange's own or only that of the bars, gets class synthetic."""
    made = {
        (url, rest): open_feed("binance", ["btcusdt"], clock=CLOCK, url=url, rest_url=rest)
        for url in (None, "wss://stream.binance.com:9443") for rest in (None, "https://api.binance.com")
    }  # fmt: skip
    classes = {address: feed.provenance for address, feed in made.items()}
    assert classes.pop((None, None)) is Provenance.LIVE
    assert set(classes.values()) == {Provenance.SYNTHETIC}
    assert made[None, None].symbols == ("BTCUSDT",)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "http://x"}, "url must be an address that begins with ws:// or wss://"),
        ({"url": "ws://"}, "url must be"),
        ({"url": "ws://x/?streams=a"}, "url must be"),
        ({"rest_url": "ftp://x"}, "rest url must be"),
        ({"symbols": []}, "symbols must be 1 to 100"),
        ({"symbols": ["../x"]}, "symbol must be"),
        ({"market": "coinm"}, "market must be spot or usdm"),
        ({"name": "kraken", "url": "ws://x"}, "left out: they are Binance's"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], problem: str) -> None:
    """Each refusal names the option, what is allowed and what came."""
    with pytest.raises(ParameterError, match=problem):
        open_feed(**{"name": "binance", "symbols": ["X"], "clock": CLOCK} | options)


def test_an_unknown_venue_lists_the_known() -> None:
    """A misspelt venue is refused with the right one."""
    with pytest.raises(UnknownNameError, match="did you mean 'kraken'"):
        open_feed("krakem", ["BTC/USD"], clock=CLOCK)
    assert open_feed("kraken", ["BTC/USD"], clock=CLOCK).provenance is Provenance.LIVE


def test_waits_grow_by_a_random_part_and_start_over() -> None:
    """Failures double the wait up to the longest; one good message starts it over."""
    waits: list[float] = []
    outcomes = iter([False] * 6 + [True] + [False] * 2)

    async def session(delivered: Callable[[], None]) -> str:
        if (good := next(outcomes, None)) is None:
            raise asyncio.CancelledError
        if good:
            delivered()
        return "ended"

    async def main(monkeypatch: pytest.MonkeyPatch) -> None:
        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        await keep_going(session, LinkSettings(first_wait_s=1.0, longest_wait_s=10.0), random.Random(2), lambda _: None)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(asyncio.CancelledError):
        asyncio.run(main(patch))
    longest = [1, 2, 4, 8, 10, 10, 1, 2, 4]
    assert all(top / 2 <= wait <= top for wait, top in zip(waits, longest, strict=True)), str(waits)
    assert len(set(waits)) == len(waits)


def test_an_exchange_that_is_not_there_is_asked_again() -> None:
    """A refused connection is a notice, not an error; the feed goes on until it is cancelled."""
    notices: list[Notice] = []

    async def main() -> None:
        running = asyncio.create_task(feed_of("ws://127.0.0.1:9").run(notices.append))  # type: ignore[arg-type]
        await asyncio.sleep(0.3)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    assert len(notices) >= 3
    assert all(item.cause == "lost" and item.detail.startswith("not connected") for item in notices)


# Bars for the warm-up


def test_bars_come_page_by_page() -> None:
    """2,500 minutes are three requests; bars are closed, in order, stamped at their close."""
    server = Klines()
    try:
        clock = VirtualClock(1_723_161_255_000_000_000)
        bars = asyncio.run(feed_of("ws://x", rest_url=server.url, clock=clock).bars("BTCUSDT", 2_500))
    finally:
        server.stop()
    assert len(server.asked) == 3
    assert server.asked[0]["path"] == "/api/v3/klines"
    last = clock.now_ns() // NS_PER_MINUTE * NS_PER_MINUTE
    assert [bar.ts_event for bar in bars] == [last - i * NS_PER_MINUTE for i in reversed(range(2_500))]
    assert bars[0].c == 12.5
    assert asyncio.run(feed_of("ws://x").bars("BTCUSDT", 10)) == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, b""),
        (500, b"[]"),
        (200, b""),
        (200, b"{}"),
        (200, b"[[1]]"),
        (200, b'[["x"]]'),
        (200, b"[[1,1,1,1,1,1,1,1,1,1,1,1]]"),
    ],
)
def test_bars_that_are_none_are_an_error(status: int, body: bytes) -> None:
    """An answer that is no list of klines is a StorageError with the address, never a guess."""
    server = Klines()
    server.spoil = lambda _: (status, body)
    try:
        with pytest.raises(StorageError, match="/api/v3/klines"):
            asyncio.run(feed_of("ws://x", rest_url=server.url).bars("BTCUSDT", 10))
    finally:
        server.stop()


# ccxt


class Venue:
    """Stand in for a ccxt client: a book and overlapping pages of trades, by polling or streaming."""

    def __init__(self, streams: bool) -> None:
        self.has = {"watchOrderBook": streams, "watchTrades": streams, "fetchOHLCV": True}
        self.calls: Counter[str] = Counter()
        self.closed = False

    async def _book(self, symbol: str) -> dict[str, Any]:
        self.calls["book"] += 1
        await asyncio.sleep(0.001)
        if self.calls["book"] == 5:
            raise RuntimeError("the venue is\nbusy")
        bid = 100.0 + self.calls["book"] // 2
        return {"bids": [[bid, 1.0, 0]], "asks": [[bid + 1, 2.0, 0]], "timestamp": None, "symbol": symbol}

    async def _trades(self, _: str) -> list[dict[str, Any]]:
        self.calls["trades"] += 1
        await asyncio.sleep(0.001)
        now_ms = time.time_ns() // 1_000_000
        old = {"id": "old", "timestamp": now_ms - 86_400_000, "price": 1.0, "amount": 1.0, "side": "buy"}
        new = [{"id": str(i), "timestamp": now_ms + 5, "price": 100.0, "amount": 0.1, "side": "sell"}
               for i in range(self.calls["trades"], self.calls["trades"] + 3)]  # fmt: skip
        return [old, *new]

    watchOrderBook = fetchOrderBook = _book
    watchTrades = fetchTrades = _trades

    async def fetch_ohlcv(self, _: str, frame: str, since: int, limit: int) -> list[list[float]]:
        assert (frame, limit) == ("1m", 1_000)
        end = time.time_ns() // 60_000_000_000 * 60_000
        return [[t, 1.0, 1.0, 1.0, 2.0, 3.0] for t in range(since, end + 60_000, 60_000)][:2]

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("streams", [False, True])
def test_other_venues_keep_the_contract(streams: bool) -> None:
    """Polled or streamed: each change of the book and each new trade once, none of yesterday, errors survived."""
    venue = Venue(streams)
    feed = CcxtFeed(
        "kraken", ["BTC/USDT"], clock=CLOCK, rng=random.Random(1), client=venue, settings=FAST, poll_s=0.001
    )
    ticks = asyncio.run(check_feed(feed, lambda found: len(found) >= 40 and venue.calls["book"] > 8))
    assert venue.closed
    assert feed.provenance is Provenance.SYNTHETIC
    assert {tick.symbol for tick in ticks} == {"BTC-USDT"}
    quotes = [(tick.a, tick.b) for tick in ticks if tick.kind == QUOTE]
    assert len(set(quotes)) == len(quotes)
    trades = [tick for tick in ticks if tick.kind == TRADE]
    assert {tick.c for tick in trades} == {-1.0}
    assert (
        venue.calls["trades"] <= len(trades) <= venue.calls["trades"] + 2
    )  # each id once, though each came three times


def test_ccxt_has_the_methods_that_are_called() -> None:
    """The stand-in's names are ccxt's own."""
    import ccxt.pro

    for name in ("watchOrderBook", "watchTrades", "fetchOrderBook", "fetchTrades", "fetch_ohlcv", "close"):
        assert callable(getattr(ccxt.pro.kraken, name)), name


def test_a_segment_that_is_none_is_named(tmp_path: Path) -> None:
    """A Parquet file that is not a segment, in a folder of segments, is refused by name."""
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "ticks-1.parquet")
    with pytest.raises(IntegrityError, match=r"ticks-1\.parquet"):
        read_recorded(tmp_path, "X")
