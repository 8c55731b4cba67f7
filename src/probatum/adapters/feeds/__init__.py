"""Deliver live market data: Binance's own streams, and what ccxt knows of other venues."""

from __future__ import annotations

import random
from collections.abc import Sequence

from probatum.core.clock import Clock
from probatum.core.errors import ParameterError
from probatum.pipeline.ports import Feed


def open_feed(
    name: str, symbols: Sequence[str], *, clock: Clock, market: str = "spot", url: str | None = None,
    rest_url: str | None = None,
) -> Feed:  # fmt: skip
    """Return the feed of a venue: ``binance``, or any that ccxt knows. Custom addresses only fit the former."""
    if market not in ("spot", "usdm"):
        raise ParameterError("market", "spot or usdm", market)
    rng = random.SystemRandom()  # replicas must not come back in step
    if name == "binance":
        from probatum.adapters.feeds.binance import BinanceFeed

        return BinanceFeed(
            symbols, clock=clock, rng=rng, market="usdm" if market == "usdm" else "spot", url=url, rest_url=rest_url
        )
    if url is not None or rest_url is not None or market != "spot":
        raise ParameterError("url, rest url, market", "left out: they are Binance's", (url, rest_url, market))
    from probatum.adapters.feeds.venues import CcxtFeed

    return CcxtFeed(name, symbols, clock=clock, rng=rng)
