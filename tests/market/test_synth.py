"""The synthetic market has the stylised facts its module promises, each measured with plain numpy."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.stats import kurtosis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from probatum.core.clock import NS_PER_MINUTE
from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance
from probatum.market.dataset import Dataset
from probatum.market.quality import screen
from probatum.market.synth import START_NS, TICK, Drift, record_synthetic, synthesise

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def month() -> Dataset:
    return synthesise(days=28, seed=7)


def mids(market: Dataset) -> Floats:
    assert market.quotes is not None
    return ((market.quotes["bid"] + market.quotes["ask"]) / 2.0).to_numpy()


def minute_returns(market: Dataset) -> Floats:
    return np.diff(np.log(mids(market)[59::60]))


def correlation(values: Floats, lag: int) -> float:
    return float(np.corrcoef(values[:-lag], values[lag:])[0, 1])


def test_the_class_is_synthetic_and_the_seed_decides_every_byte() -> None:
    """Two markets of one seed are equal, another seed differs, and both are synthetic."""
    first, again, other = (synthesise(days=1, seed=seed) for seed in (1, 1, 2))
    assert first.provenance is Provenance.SYNTHETIC
    assert all(first.frames[kind].equals(again.frames[kind]) for kind in ("quotes", "trades"))
    assert not first.frames["quotes"].equals(other.frames["quotes"])


def test_every_row_passes_the_screen() -> None:
    """The screen for recorded data finds nothing to reject."""
    recording = record_synthetic(days=2, seed=3)
    screened = screen(recording)
    assert screened.quarantine.is_empty()
    assert sum(frame.height for frame in screened.dataset.frames.values()) == recording.rows_in


def test_volatility_clusters(month: Dataset) -> None:
    """Absolute one-minute returns remember for hours, with less memory the longer the lag."""
    size = np.abs(minute_returns(month))
    memory = [correlation(size, lag) for lag in (1, 60, 240)]
    assert memory[0] > 0.2
    assert memory[1] > 0.1
    assert memory[0] > memory[1] > memory[2] > 0.0


def test_returns_have_no_memory_and_fat_tails(month: Dataset) -> None:
    """The sign of the next minute is not in this one, and moves beyond the normal law are common."""
    returns = minute_returns(month)
    assert abs(correlation(returns, 1)) < 3.0 / np.sqrt(returns.size)
    assert kurtosis(returns) > 2.0


def test_there_is_a_season_within_the_day(month: Dataset) -> None:
    """Volatility around 15:00 UTC is well above that around 03:00."""
    size = np.abs(minute_returns(month))
    hour = (np.arange(size.size) // 60) % 24
    assert size[hour == 15].mean() > 1.3 * size[hour == 3].mean()


def test_trades_bounce(month: Dataset) -> None:
    """Successive trade price changes are negatively correlated (Roll 1984)."""
    assert month.trades is not None
    assert correlation(np.diff(month.trades["price"].to_numpy()), 1) < -0.1


def test_volume_follows_volatility(month: Dataset) -> None:
    """Minutes with large moves are minutes with much volume."""
    assert month.trades is not None
    minute = ((month.trades["ts_event"] - START_NS) // NS_PER_MINUTE).to_numpy()
    volume = np.bincount(minute, month.trades["size"].to_numpy())
    size = np.abs(minute_returns(month))
    assert np.corrcoef(np.log1p(volume[1 : size.size + 1]), size)[0, 1] > 0.2


def test_queue_imbalance_leads_the_next_move(month: Dataset) -> None:
    """At 10 s the imbalance ranks ups over downs clearly; at 300 s hardly any more."""
    assert month.quotes is not None
    bid, ask = month.quotes["bid_size"].to_numpy(), month.quotes["ask_size"].to_numpy()
    imbalance, mid = (bid - ask) / (bid + ask), mids(month)

    def auc(horizon_s: int) -> float:
        move = mid[horizon_s:] - mid[:-horizon_s]
        return float(roc_auc_score(move[move != 0] > 0, imbalance[:-horizon_s][move != 0]))

    assert auc(10) > 0.7
    assert auc(300) < 0.56


def test_large_moves_are_as_predictable_as_on_real_data(month: Dataset) -> None:
    """A logistic model on relative volatility, time-ordered 60/20/20, ranks large next minutes well above 0.62."""
    returns = minute_returns(month)
    series = pl.Series(returns)
    rv10, rv60, rv1440 = (series.rolling_std(k).to_numpy() for k in (10, 60, 1440))
    angle = 2.0 * np.pi * np.arange(returns.size) / 1440.0
    columns = [rv10 / rv60, rv60 / rv1440, rv10 / rv1440, np.abs(returns) / rv1440, np.sin(angle), np.cos(angle)]
    values = np.column_stack(columns)[1440:-1]
    median = series.abs().rolling_median(1440).to_numpy()
    label = (np.abs(returns[1:]) > median[:-1])[1440:]
    train, test = slice(0, int(0.6 * label.size)), slice(int(0.8 * label.size), None)
    model = LogisticRegression(max_iter=1000).fit(values[train], label[train])
    auc = roc_auc_score(label[test], model.predict_proba(values[test])[:, 1])
    assert 0.65 < auc < 0.75


def test_drift_begins_on_its_day_and_changes_what_it_names() -> None:
    """Before the day the market is the same to the byte; from it on price, volatility and volume are scaled."""
    plain, drifted = synthesise(days=4, seed=5), synthesise(days=4, seed=5, drift=Drift(2, 1.5, 2.0, 100.0))
    assert plain.quotes is not None
    assert drifted.quotes is not None
    assert plain.trades is not None
    assert drifted.trades is not None
    n = 2 * 86_400
    assert plain.quotes[:n].select("bid").equals(drifted.quotes[:n].select("bid"))
    assert not plain.quotes[n:].select("bid").equals(drifted.quotes[n:].select("bid"))
    assert minute_returns(drifted)[2881:].std() == pytest.approx(2.0 * minute_returns(plain)[2881:].std(), rel=0.1)
    assert mids(drifted)[n] / mids(plain)[n] == pytest.approx(1.5, rel=0.01)
    cut = START_NS + n * 1_000_000_000
    sizes = [m.trades.filter(pl.col("ts_event") > cut)["size"].mean() for m in (plain, drifted) if m.trades is not None]
    assert sizes[1] == pytest.approx(100.0 * float(str(sizes[0])), rel=0.1)


def test_prices_lie_on_the_tick_grid() -> None:
    """Every bid and ask is a whole number of ticks, and the book is never locked or crossed."""
    quotes = synthesise(days=1, seed=4).frames["quotes"]
    assert ((quotes["bid"] % TICK) == 0.0).all()
    assert (quotes["ask"] - quotes["bid"] >= TICK).all()


@pytest.mark.parametrize("bad", [{"days": 0}, {"days": 367}, {"symbol": "../x"}])
def test_impossible_markets_are_refused(bad: dict[str, object]) -> None:
    """Length and name outside their range raise ParameterError."""
    with pytest.raises(ParameterError):
        synthesise(**{"days": 1, "seed": 1, **bad})


@pytest.mark.parametrize("bad", [{"day": -1}, {"price": 0.0}, {"volatility": 6.0}, {"volume": float("nan")}])
def test_impossible_drift_is_refused(bad: dict[str, float]) -> None:
    """A factor that would leave the numbers' range raises ParameterError."""
    with pytest.raises(ParameterError):
        Drift(**{"day": 1, **bad})
