"""Hold a feed to the port's contract; and a feed that plays what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from probatum.core.clock import NS_PER_MINUTE
from probatum.core.verdict import Provenance
from probatum.market.dataset import check_symbol
from probatum.market.events import BAR, QUOTE, TRADE
from probatum.market.ticks import Notice, Tick
from probatum.pipeline.ports import Feed

LONGEST_NOTICE = 200


class MemoryFeed:
    """Play ticks and notices, then wait to be cancelled. Implements ``pipeline.ports.Feed``; its class is ``synthetic``."""

    def __init__(self, symbols: Sequence[str], items: Sequence[Tick | Notice], bars: Sequence[Tick] = ()) -> None:
        self.name, self.provenance, self.symbols = "memory", Provenance.SYNTHETIC, tuple(symbols)
        self._items, self._bars = items, bars

    async def run(self, take: Callable[[Tick | Notice], None]) -> None:
        for item in self._items:
            take(item)
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    async def bars(self, symbol: str, minutes: int) -> list[Tick]:
        return [bar for bar in self._bars if bar.symbol == symbol][-minutes:]


async def check_feed(feed: Feed, enough: Callable[[list[Tick]], bool], timeout_s: float = 30.0) -> list[Tick]:
    """Run a feed until it has delivered enough, and return its ticks; AssertionError says what breaks the contract.

    Ticks carry known kinds, the symbols' own spelling, and local times that never fall; notices are short; cancelling
    ends the feed; bars are closed minutes in order, no more than asked for.
    """
    assert isinstance(feed.provenance, Provenance), "provenance is not a Provenance"
    assert check_symbol(feed.name), "the name does not name a folder"
    assert feed.symbols, "no symbols"
    ticks, done = list[Tick](), asyncio.Event()
    latest_ns = 0

    def take(item: Tick | Notice) -> None:
        nonlocal latest_ns
        assert item.ts_recv >= latest_ns, f"the local time falls at {item}"
        latest_ns = item.ts_recv
        if isinstance(item, Notice):
            assert len(item.detail) <= LONGEST_NOTICE, f"a notice of {len(item.detail)} characters"
            return
        assert item.kind in (QUOTE, TRADE), f"a tick of kind {item.kind}"
        assert check_symbol(item.symbol), "a symbol that cannot name a folder"
        ticks.append(item)
        if enough(ticks):
            done.set()

    running = asyncio.ensure_future(_as_coroutine(feed.run(take)))
    ended = asyncio.ensure_future(done.wait())
    await asyncio.wait({running, ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()  # raises what broke the contract
    assert not running.done(), "run() returned: it has to go on until it is cancelled"
    assert done.is_set(), f"only {len(ticks)} ticks came in {timeout_s:g} s"
    running.cancel()
    await asyncio.wait({running}, timeout=timeout_s)
    assert running.cancelled(), "cancelling does not end it"
    for symbol in feed.symbols:
        _check_bars(await feed.bars(symbol, 3), symbol)
    return ticks


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


def _check_bars(bars: Sequence[Tick], symbol: str) -> None:
    assert len(bars) <= 3, f"{len(bars)} bars, 3 were asked for"
    times = [bar.ts_event or 0 for bar in bars]
    assert times == sorted(set(times)), "bars are not in order"
    for bar in bars:
        assert (bar.kind, bar.symbol) == (BAR, symbol), f"not a bar of {symbol}: {bar}"
        assert (bar.ts_event or 1) % NS_PER_MINUTE == 0, f"a bar that closes at no minute: {bar}"
