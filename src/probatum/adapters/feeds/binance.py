"""Read Binance's combined market streams (bookTicker and trade) and the closed minutes that warm features up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Literal
from urllib.parse import urlsplit

import httpx
import msgspec

from probatum.adapters.feeds.link import LinkSettings, keep_going, words
from probatum.adapters.importers.ws import NO_MESSAGE, decode
from probatum.core.clock import NS_PER_MINUTE, NS_PER_MS, Clock
from probatum.core.errors import MissingExtraError, ParameterError, StorageError
from probatum.core.verdict import Provenance
from probatum.market.dataset import check_symbol
from probatum.market.events import BAR
from probatum.market.ticks import Notice, Tick

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
except ImportError:  # pragma: no cover
    raise MissingExtraError("live", "a live feed needs websockets") from None

Market = Literal["spot", "usdm"]
STREAMS = {"spot": "wss://stream.binance.com:9443", "usdm": "wss://fstream.binance.com"}
REST = {"spot": "https://api.binance.com", "usdm": "https://fapi.binance.com"}
KLINES = {"spot": "/api/v3/klines", "usdm": "/fapi/v1/klines"}
SYMBOLS_MAX = 100  # of two streams each; Binance takes 1,024 streams (spot) or 200 (USD-M) a connection
BARS_MAX = 1_000  # in one reply
MESSAGE_BYTES_MAX = 1 << 20
BUFFER_MESSAGES = (4_096, 1_024)
REST_S = 10.0
_klines = msgspec.json.Decoder(list[tuple[int, float, float, float, float, float, int, object, object, object, object, object]], strict=False).decode  # fmt: skip


class BinanceFeed:
    """Deliver ticks of some symbols. Implements ``pipeline.ports.Feed``.

    The class is ``live`` where neither address is given; whoever names another address may have put anything there.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        clock: Clock,
        rng: random.Random,
        market: Market = "spot",
        url: str | None = None,
        rest_url: str | None = None,
        settings: LinkSettings | None = None,
    ) -> None:
        self.symbols = tuple(dict.fromkeys(check_symbol(symbol.upper()) for symbol in symbols))
        if not 1 <= len(self.symbols) <= SYMBOLS_MAX:
            raise ParameterError("symbols", f"1 to {SYMBOLS_MAX}", len(self.symbols))
        self.name = f"binance-{market}"
        custom = url is not None or rest_url is not None
        self.provenance = Provenance.SYNTHETIC if custom else Provenance.LIVE
        streams = "/".join(f"{symbol.lower()}@{kind}" for symbol in self.symbols for kind in ("bookTicker", "trade"))
        base = _address("url", url or STREAMS[market], ("ws", "wss"))
        self._url = f"{base}/stream?streams={streams}"
        rest = REST[market] if not custom else rest_url
        self._rest = None if rest is None else _address("rest url", rest, ("http", "https")) + KLINES[market]
        self._clock, self._rng, self._settings = clock, rng, settings or LinkSettings()

    async def run(self, take: Callable[[Tick | Notice], None]) -> None:
        """Deliver until cancelled."""

        async def session(delivered: Callable[[], None]) -> str:
            try:
                async with asyncio.timeout(self._settings.connect_s):
                    link = await self._connect()
            except (OSError, InvalidHandshake, InvalidURI) as error:
                return f"not connected: {words(error)}"
            except TimeoutError:
                return "not connected: no answer"
            try:
                take(Notice("connected", self._clock.now_ns()))
                return await self._listen(link, take, delivered)
            finally:
                link.transport.abort()  # a closing handshake would wait for a peer that may be gone

        def lost(why: str) -> None:
            take(Notice("lost", self._clock.now_ns(), why))

        await keep_going(session, self._settings, self._rng, lost)

    async def bars(self, symbol: str, minutes: int) -> list[Tick]:
        """Return the last closed bars; [] where a custom stream comes without a REST address."""
        if self._rest is None or minutes < 1:
            return []
        now_ns = self._clock.now_ns()
        end_ms = now_ns // NS_PER_MINUTE * NS_PER_MINUTE // NS_PER_MS
        first_ms = end_ms - minutes * 60_000
        found: dict[int, Tick] = {}
        async with httpx.AsyncClient(timeout=REST_S) as client:
            for start_ms in range(first_ms, end_ms, BARS_MAX * 60_000):
                query: dict[str, str | int] = {"symbol": symbol, "interval": "1m", "startTime": start_ms, "limit": BARS_MAX,
                         "endTime": end_ms - 1}  # fmt: skip
                for bar in await self._page(client, symbol, query):
                    if first_ms < (bar.ts_event or 0) // NS_PER_MS <= end_ms:
                        found[bar.ts_event or 0] = bar
        return [found[ts] for ts in sorted(found)]

    async def _connect(self) -> ClientConnection:
        return await connect(
            self._url, compression=None, max_size=MESSAGE_BYTES_MAX, max_queue=BUFFER_MESSAGES, ping_interval=20.0,
            ping_timeout=self._settings.silence_s, open_timeout=None,
        )  # fmt: skip

    async def _listen(
        self, link: ClientConnection, take: Callable[[Tick | Notice], None], delivered: Callable[[], None]
    ) -> str:
        loop, now_ns, silence_s = asyncio.get_running_loop(), self._clock.now_ns, self._settings.silence_s
        next_s = 0.0
        try:
            async with asyncio.timeout(silence_s) as deadline:
                while True:
                    body = await link.recv(decode=False)
                    if (now_s := loop.time()) >= next_s:  # a timer for each message would cost more than the message
                        deadline.reschedule(now_s + silence_s)
                        next_s = now_s + silence_s / 8
                    try:
                        tick = decode(body, now_ns())
                    except NO_MESSAGE as error:
                        take(Notice("garbage", now_ns(), words(error)))
                        continue
                    if type(tick) is Tick:
                        take(tick)
                        delivered()
        except TimeoutError:
            return f"silent for {silence_s:g} s"
        except (ConnectionClosed, OSError) as error:
            return words(error)

    async def _page(self, client: httpx.AsyncClient, symbol: str, query: dict[str, str | int]) -> list[Tick]:
        url = str(self._rest)
        try:
            reply = await client.get(url, params=query)
            if reply.status_code != httpx.codes.OK:
                raise StorageError(f"{url}: the server answers {reply.status_code}", url=url)
            return [_bar(symbol, row) for row in _klines(reply.content)]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StorageError(f"{url}: {words(error)}", url=url) from None
        except NO_MESSAGE as error:
            raise StorageError(f"{url}: not klines: {words(error)}", url=url) from None


def _bar(symbol: str, row: tuple[object, ...]) -> Tick:
    opened, close, volume = row[0], row[4], row[5]
    assert isinstance(opened, int)
    assert isinstance(close, float)
    assert isinstance(volume, float)
    if not 0 <= opened < 1 << 42 or opened % 60_000:
        raise ValueError(f"a bar opens at {opened} ms: not a minute")
    ts = (opened + 60_000) * NS_PER_MS
    return Tick(BAR, symbol, ts, ts, None, close, float("nan"), volume)


def _address(name: str, url: str, schemes: tuple[str, ...]) -> str:
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment:
        raise ParameterError(name, f"an address that begins with {' or '.join(f'{s}://' for s in schemes)}", url)
    return url.rstrip("/")
