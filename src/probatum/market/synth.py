"""Make a market from a seed: class ``synthetic``, with the stylised facts that the pipeline has to cope with.

What a real market does and this one too (Cont 2001, "Empirical properties of asset returns"):

- volatility clusters over minutes, hours and days: log volatility is a sum of mean-reverting parts;
- it has a season within the day, and volume follows it;
- returns have no memory at the scale of minutes, and fat tails (jumps);
- trades bounce between bid and ask;
- the imbalance of the queues leads the next move (Gould and Bonart 2016): those who queue know part of what comes.

It has no news, no crashes, no strategy that reacts to it: what is proven on it is that the pipeline works, not the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.signal import lfilter

from probatum.core.canonical import digest
from probatum.core.clock import NS_PER_S
from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance
from probatum.market.calendar import Calendar
from probatum.market.dataset import QUOTE_SCHEMA, TRADE_SCHEMA, Dataset
from probatum.market.quality import Recording, SourceFile

DAY_S = 86_400
START_NS = 1_704_067_200 * NS_PER_S  # 2024-01-01, a Monday
PRICE, TICK = 40_000.0, 4.0  # wide enough to bounce on, narrow enough for a minute to have a size
SIGMA_1S = 0.65e-4  # 5 bp a minute, as BTCUSDT in January 2024
# Log volatility: (time constant in s, standard deviation) of its mean-reverting parts.
VOLATILITY_PARTS = ((900.0, 0.28), (3 * 3_600.0, 0.36), (2 * 86_400.0, 0.30))
SEASON = 0.30  # amplitude in log volatility; the peak is at 15:00 UTC
JUMPS_PER_DAY, JUMP_SIGMAS = 6.0, 12.0
LEAD_S = 10  # seconds ahead that the queues know something of
LEAD_NOISE = 2.0  # against a signal of unit variance
TRADES_PER_S, MEAN_SIZE = 0.3, 2.0

Floats = NDArray[np.float64]


class Drift(msgspec.Struct, frozen=True):
    """Change the market from a day on: factors on the price level, the volatility and the unit of volume."""

    day: int
    price: float = 1.0
    volatility: float = 1.0
    volume: float = 1.0

    def __post_init__(self) -> None:
        if self.day < 0:
            raise ParameterError("drift day", "at least 0", self.day)
        for name, most in (("price", 100.0), ("volatility", 5.0), ("volume", 1e6)):
            if not 1.0 / most <= getattr(self, name) <= most:
                raise ParameterError(f"drift {name}", f"a factor in [{1 / most:g}, {most:g}]", getattr(self, name))


@dataclass(frozen=True)
class _Path:
    """One value a second: unit of volume, volatility, latent price in ticks, what the queues know (unit variance)."""

    volume: Floats
    sigma: Floats
    ticks: Floats
    lead: Floats


def synthesise(*, days: int, seed: int, symbol: str = "SYN", drift: Drift | None = None) -> Dataset:
    """Return ``days`` of one-second quotes with sizes, and trades between them. The same seed gives the same bytes.

    >>> synthesise(days=1, seed=7).quotes.height
    86400
    """
    if not 1 <= days <= 366:
        raise ParameterError("days", "1 to 366", days)
    rng = np.random.default_rng(seed)
    path = _path(rng, days * DAY_S, drift)
    quotes = _quotes(rng, path)
    return Dataset(
        symbol=symbol,
        provenance=Provenance.SYNTHETIC,
        sha256="",
        calendar=Calendar(),
        tick_size=TICK,
        quotes=quotes,
        trades=_trades(rng, path, quotes),
    )


def record_synthetic(*, days: int, seed: int, symbol: str = "SYN", drift: Drift | None = None) -> Recording:
    """Return a synthetic market as a recording, so that it takes the same way through screening as recorded data."""
    market = synthesise(days=days, seed=seed, symbol=symbol, drift=drift)
    frames = {
        kind: frame.with_columns(source=pl.lit(0, pl.UInt32)).with_row_index("row", 1)
        for kind, frame in market.frames.items()
    }
    rows = sum(frame.height for frame in frames.values())
    parameters = {"days": days, "seed": seed, "drift": None if drift is None else msgspec.to_builtins(drift)}
    return Recording(
        format="synth",
        symbol=symbol,
        provenance=market.provenance,
        calendar=market.calendar,
        tick_size=market.tick_size,
        frames=frames,
        sources=(SourceFile(f"synth --days {days} --seed {seed}", digest(parameters), rows),),
        decisions=("a synthetic market, drawn from its seed: nobody traded here", f"drift: {drift or 'none'}"),
    )


def _path(rng: np.random.Generator, n: int, drift: Drift | None) -> _Path:
    after = np.arange(n) >= (n if drift is None else drift.day * DAY_S)
    factor = drift or Drift(0)
    sigma = SIGMA_1S * np.where(after, factor.volatility, 1.0) * np.exp(_log_volatility(rng, n))
    shocks = rng.standard_normal(n + LEAD_S)
    jumps = np.where(rng.random(n) < JUMPS_PER_DAY / DAY_S, JUMP_SIGMAS * rng.standard_normal(n), 0.0)
    log_price = np.cumsum(sigma * (shocks[:n] + jumps))
    ticks = np.maximum(2.0, PRICE / TICK * np.where(after, factor.price, 1.0) * np.exp(log_price))
    return _Path(np.where(after, factor.volume, 1.0), sigma, ticks, _lead(shocks, n))


def _log_volatility(rng: np.random.Generator, n: int) -> Floats:
    parts = [_mean_reverting(rng, n, tau, sd) for tau, sd in VOLATILITY_PARTS]
    season = SEASON * np.cos(2.0 * math.pi * (np.arange(n) / DAY_S - 15.0 / 24.0))
    variance = sum(sd * sd for _, sd in VOLATILITY_PARTS)
    return np.asarray(sum(parts) + season - variance)  # E[exp(2·x)] of the parts is 1


def _mean_reverting(rng: np.random.Generator, n: int, tau_s: float, sd: float) -> Floats:
    decay = math.exp(-1.0 / tau_s)
    noise = rng.standard_normal(n) * (sd * math.sqrt(1.0 - decay * decay))
    noise[0] = rng.standard_normal() * sd  # start in the stationary state
    return np.asarray(lfilter([1.0], [1.0, -decay], noise))


def _lead(shocks: Floats, n: int) -> Floats:
    """Return the mean of the next LEAD_S shocks, scaled to unit variance: the future, which a simulation may see."""
    ahead = np.cumsum(shocks)
    return np.asarray((ahead[LEAD_S : LEAD_S + n] - ahead[:n]) / math.sqrt(LEAD_S))


def _quotes(rng: np.random.Generator, path: _Path) -> pl.DataFrame:
    n = path.ticks.shape[0]
    bid = np.floor(path.ticks)
    # The spread is one tick; it widens by one on either side when volatility is high.
    wide = rng.random(n) < np.minimum(0.5, 0.05 * path.sigma / SIGMA_1S)
    lower = rng.random(n) < 0.5
    near = path.ticks - bid - 0.5  # nearer to the ask: the ask queue is about to go
    signal = path.lead + near + LEAD_NOISE * rng.standard_normal(n)
    imbalance = np.tanh(0.7 * signal)
    depth = path.volume * rng.gamma(4.0, 1.0, n)
    ts = START_NS + np.arange(1, n + 1) * NS_PER_S
    columns = {
        "ts_event": ts,
        "ts_recv": ts,
        "bid": (bid - (wide & lower)) * TICK,
        "ask": (bid + 1.0 + (wide & ~lower)) * TICK,
        "bid_size": np.round(depth * (1.0 + imbalance) / 2.0 + 0.001, 3),
        "ask_size": np.round(depth * (1.0 - imbalance) / 2.0 + 0.001, 3),
    }
    return pl.DataFrame(columns, schema=QUOTE_SCHEMA)


def _trades(rng: np.random.Generator, path: _Path, quotes: pl.DataFrame) -> pl.DataFrame:
    n = path.sigma.shape[0]
    counts = rng.poisson(TRADES_PER_S * np.minimum(20.0, path.sigma / SIGMA_1S))
    second = np.repeat(np.arange(n), counts)
    m = second.shape[0]
    ts = np.sort(START_NS + (second + 1) * NS_PER_S + rng.integers(1, NS_PER_S, m))
    buy = rng.random(m) < 1.0 / (1.0 + np.exp(-path.lead[second]))
    columns = {
        "ts_event": ts,
        "ts_recv": ts,
        "price": np.where(buy, quotes["ask"].to_numpy()[second], quotes["bid"].to_numpy()[second]),
        "size": np.round(path.volume[second] * rng.lognormal(math.log(MEAN_SIZE) - 0.5, 1.0, m) + 0.001, 3),
        "side": np.where(buy, 1, -1).astype(np.int8),
    }
    return pl.DataFrame(columns, schema=TRADE_SCHEMA)
