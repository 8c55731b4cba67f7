"""Read any venue that ccxt knows: its websocket streams where ccxt has them, else by asking again and again."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

from probatum.adapters.feeds.link import LinkSettings, Session, keep_going, words
from probatum.core.clock import NS_PER_MINUTE, NS_PER_MS, Clock
from probatum.core.errors import MissingExtraError, ParameterError, StorageError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.market.dataset import check_symbol
from probatum.market.events import BAR, QUOTE, TRADE
from probatum.market.ticks import Notice, Tick

POLL_S = 1.0
SEEN_MAX = 4_096
PAGES_MAX = 50
_SIDES = {"buy": 1.0, "sell": -1.0}
_Take = Callable[[Tick | Notice], None]


def open_venue(name: str) -> Any:
    """Return ccxt's client of a venue at its built-in addresses, streaming where it can; UnknownNameError lists the known."""
    try:
        streamed, polled = import_module("ccxt.pro"), import_module("ccxt.async_support")
    except ImportError:
        raise MissingExtraError("live", f"feed {name!r} needs ccxt") from None
    for library in (streamed, polled):
        if name in library.exchanges:
            return getattr(library, name)()
    raise UnknownNameError("feed", name, [*polled.exchanges, "binance"])


class CcxtFeed:
    """Deliver the top of the book and the trades of some symbols. Implements ``pipeline.ports.Feed``.

    Without ``client`` the venue's own addresses are read, and the class is ``live``; a client that somebody else made may
    read anything, and is ``synthetic``. Ticks spell BTC/USDT as BTC-USDT. Venues number trades as they like: what came
    twice is left out here, and what is missing cannot be counted.
    """

    def __init__(
        self, venue: str, symbols: Sequence[str], *, clock: Clock, rng: random.Random, client: Any = None,
        settings: LinkSettings | None = None, poll_s: float = POLL_S,
    ) -> None:  # fmt: skip
        if not symbols:
            raise ParameterError("symbols", "at least one", symbols)
        self._asked = {check_symbol(text.replace("/", "-").replace(":", "-")): text for text in symbols}
        self.symbols, self.name = tuple(self._asked), check_symbol(venue)
        self.provenance = Provenance.LIVE if client is None else Provenance.SYNTHETIC
        self._client = open_venue(venue) if client is None else client
        self._clock, self._rng, self._settings, self._poll_s = clock, rng, settings or LinkSettings(), poll_s

    async def run(self, take: _Take) -> None:
        """Deliver until cancelled."""

        def lost(why: str) -> None:
            take(Notice("lost", self._clock.now_ns(), why))

        since_ms = self._clock.now_ns() // NS_PER_MS
        try:
            async with asyncio.TaskGroup() as tasks:
                for symbol in self.symbols:
                    book, trades = self._book(symbol, take), self._trades(symbol, since_ms, take)
                    for read, silence_s in ((book, self._settings.silence_s), (trades, None)):  # trades may be rare
                        session = self._session(read, silence_s, take)
                        tasks.create_task(keep_going(session, self._settings, self._rng, lost))
        finally:
            await self._client.close()

    async def bars(self, symbol: str, minutes: int) -> list[Tick]:
        """Return the last closed bars, page by page, for venues give as many at once as they like."""
        end_ms = self._clock.now_ns() // NS_PER_MINUTE * 60_000
        next_ms, found = end_ms - minutes * 60_000, dict[int, Tick]()
        for _ in range(PAGES_MAX if self._client.has.get("fetchOHLCV") else 0):
            try:
                rows = await self._client.fetch_ohlcv(self._asked[symbol], "1m", next_ms, 1_000)
                page = [row for row in rows if next_ms <= row[0] < end_ms]
                for opened, _, _, _, close, volume in page:
                    ts = (int(opened) + 60_000) * NS_PER_MS
                    found[ts] = Tick(BAR, symbol, ts, ts, None, float(close), float("nan"), float(volume))
            except Exception as error:  # ccxt and what it calls raise dozens of kinds
                raise StorageError(f"{self.name}: no bars: {words(error)}", feed=self.name) from None
            if not page:
                break
            next_ms = int(page[-1][0]) + 60_000
        return [found[ts] for ts in sorted(found)]

    def _session(self, read: Callable[[], Awaitable[int]], silence_s: float | None, take: _Take) -> Session:
        async def session(delivered: Callable[[], None]) -> str:
            take(Notice("connected", self._clock.now_ns()))
            try:
                while True:
                    async with asyncio.timeout(silence_s):
                        if await read():
                            delivered()
            except TimeoutError:
                return f"silent for {silence_s:g} s"
            except Exception as error:  # ccxt and what it calls raise dozens of kinds
                return words(error)

        return session

    def _book(self, symbol: str, take: _Take) -> Callable[[], Awaitable[int]]:
        top: list[float] = []

        async def read() -> int:
            nonlocal top
            book = await self._ask("OrderBook", self._asked[symbol])
            ts_recv, event_ms = self._clock.now_ns(), book.get("timestamp")
            now = [float(x) for level in (book["bids"][0][:2], book["asks"][0][:2]) for x in level]
            if now != top:
                top = now
                event = None if event_ms is None else int(event_ms) * NS_PER_MS
                take(Tick(QUOTE, symbol, ts_recv, event, None, now[0], now[2], now[1], now[3]))
            return 1

        return read

    def _trades(self, symbol: str, since_ms: int, take: _Take) -> Callable[[], Awaitable[int]]:
        recent = deque[object](maxlen=SEEN_MAX)

        async def read() -> int:
            trades = await self._ask("Trades", self._asked[symbol])
            ts_recv, count = self._clock.now_ns(), 0
            for item in trades:
                event_ms, price, size = int(item["timestamp"]), float(item["price"]), float(item["amount"])
                key = item.get("id") or (event_ms, price, size, item.get("side"))
                if event_ms < since_ms or key in recent:
                    continue
                recent.append(key)
                count += 1
                side = _SIDES.get(item.get("side") or "", 0.0)
                take(Tick(TRADE, symbol, ts_recv, event_ms * NS_PER_MS, None, price, size, side))
            return count

        return read

    async def _ask(self, what: str, symbol: str) -> Any:
        if self._client.has.get(f"watch{what}"):
            return await getattr(self._client, f"watch{what}")(symbol)
        await asyncio.sleep(self._poll_s)
        return await getattr(self._client, f"fetch{what}")(symbol)
