"""Share recorded markets as datasets, and the streams of events made of them."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

from probatum.adapters.importers import read_files
from probatum.core.clock import parse_utc
from probatum.market.dataset import Dataset
from probatum.market.quality import screen

sys.path.insert(0, str(Path(__file__).parent))  # so that tests find feature_streams


@pytest.fixture(scope="session")
def btc(shared_data: Path) -> Dataset:
    """Return a month of BTCUSDT minute bars, with volume and without spread."""
    return screen(read_files("binance-klines", [shared_data / "binance_klines/BTCUSDT_1min_sample.csv"])).dataset


@pytest.fixture(scope="session")
def gbp(shared_data: Path) -> Dataset:
    """Return a month of GBPUSD minute bars, with spread, without volume, with holes and week-ends."""
    files = [shared_data / f"fxcm_m1/gbpusd-m1-{side}-2012.csv" for side in ("bid", "ask")]
    return screen(read_files("bid-ask-bars", files)).dataset


@pytest.fixture(scope="session")
def bac(shared_data: Path) -> Dataset:
    """Return one day of BAC quotes and trades, 09:00 to 12:30 in New York."""
    folder = shared_data / "lean_tick/equity/usa/tick/bac"
    dataset = screen(read_files("lean", [folder / f"20131008_{kind}.zip" for kind in ("quote", "trade")])).dataset
    assert dataset.quotes is not None
    assert dataset.trades is not None
    until = pl.col("ts_event") <= parse_utc("2013-10-08T16:30:00Z")
    return Dataset(
        symbol=dataset.symbol,
        provenance=dataset.provenance,
        sha256=dataset.sha256,
        calendar=dataset.calendar,
        tick_size=dataset.tick_size,
        quotes=dataset.quotes.filter(until),
        trades=dataset.trades.filter(until),
    )
