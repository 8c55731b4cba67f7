"""Every number meets an oracle that was written from the definitions, over plain lists."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pytest
from feature_streams import MINUTE, SECOND, START, bars, same_bits, ticks
from numpy.typing import NDArray
from talipp.indicators import RSI

from probatum.features import kernels
from probatum.features.events import available, dataset_events
from probatum.features.fold import fold
from probatum.features.sets import FEATURE_SETS, get_feature_set
from probatum.market.dataset import Dataset
from probatum.market.events import BAR, QUOTE, TIMER, TRADE, Events

Array = NDArray[np.float64]
HOLES = ((400, 1), (520, 5), (700, 6), (900, 30), (1700, 4), (2100, 60))


def closed_minutes(events: Events) -> list[tuple[int, float, float, float, int, int]]:
    """Return (minute, mid, spread, volume, minutes since the last break, row or −1) for each minute that is closed."""
    minutes: list[tuple[int, float, float, float, int, int]] = []
    since = 0
    for row in range(len(events)):
        minute = int(events.ts[row] - 1) // MINUTE
        mid, spread, volume = events.values[row, :3].tolist()
        if minutes:
            silent = minute - minutes[-1][0] - 1
            for _ in range(min(silent, 5)):
                since += 1
                minutes.append((minutes[-1][0] + 1, minutes[-1][1], minutes[-1][2], 0.0, since, -1))
            since = since if silent <= 5 else 0
        since += 1
        minutes.append((minute, mid, spread, volume, since, row))
    return minutes


def wilder_rsi(closes: Array) -> float:
    """Return Wilder's RSI of closes without a break, as he wrote it: a mean of 14 first, then one fourteenth of the new."""
    changes = np.diff(closes)
    up, down = np.maximum(changes, 0), np.maximum(-changes, 0)
    gain, loss = up[:14].mean(), down[:14].mean()
    for u, d in zip(up[14:], down[14:], strict=True):
        gain, loss = (gain * 13 + u) / 14, (loss * 13 + d) / 14
    return 50.0 if gain + loss == 0 else 100.0 if loss == 0 else 100.0 - 100.0 / (1.0 + gain / loss)


def oracle(events: Events) -> list[dict[str, float]]:
    """Compute every minute feature of every row from the list of closed minutes; an empty dict before the warm-up."""
    minutes = closed_minutes(events)
    mids, spreads, volumes = (np.array([m[k] for m in minutes]) for k in (1, 2, 3))
    returns = np.array([math.log(mids[i] / mids[i - 1]) if minutes[i][4] > 1 else np.nan for i in range(len(minutes))])
    rows: list[dict[str, float]] = []
    for i, (minute, mid, spread, volume, since, row) in enumerate(minutes):
        if row < 0:
            continue
        past = returns[: i + 1][~np.isnan(returns[: i + 1])]
        if i + 1 < 361 or len(past) < 360 or since < 61:
            rows.append({})
            continue
        day, logs = mids[max(0, i - 1439) : i + 1], np.log1p(volumes[max(0, i - 1439) : i + 1])
        rv10, rv60, rv1440 = (np.std(past[-k:], ddof=1) + 1e-8 for k in (10, 60, 1440))
        seconds = (minute + 1) * 60 % 86_400
        rsi, tiny = wilder_rsi(mids[i + 1 - since : i + 1]), 1e-8 * mid
        rows.append(
            {
                "mid": mid,
                "bias": 1.0,
                "spread_bp": 1e4 * spread / mid,
                "vol1m": volume,
                "rsi14": rsi,
                "log_vol1m": math.log(1 + volume),
                "mid_logret_1m": math.log(mid / mids[i - 1]),
                "mid_logret_5m": math.log(mid / mids[i - 5]),
                "vol1m_log": math.log(1 + volume),
                "rsi14_z": (rsi - 50) / 30,
                "zscore_mid_24h": (mid - day.mean()) / (np.std(day, ddof=1) + 1e-8),
                "ret1_rv60": returns[i] / rv60,
                "ret5_rv60": math.log(mid / mids[i - 5]) / (rv60 * math.sqrt(5)),
                "zscore_mid_1h": (mid - mids[i - 59 : i + 1].mean()) / (np.std(mids[i - 59 : i + 1], ddof=1) + tiny),
                "vol_rel_24h": (math.log(1 + volume) - logs.mean()) / (np.std(logs, ddof=1) + 1e-8),
                "spread_rel_24h": math.log((spread + tiny) / (np.median(spreads[max(0, i - 1439) : i + 1]) + tiny)),
                "log_rv10_rv60": math.log(rv10 / rv60),
                "log_rv60_rv1440": math.log(rv60 / rv1440),
                "log_rv10_rv1440": math.log(rv10 / rv1440),
                "abs_ret1_rv1440": abs(returns[i]) / rv1440,
                "tod_sin": math.sin(2 * math.pi * seconds / 86_400),
                "tod_cos": math.cos(2 * math.pi * seconds / 86_400),
            }
        )
    return rows


@pytest.mark.parametrize("name", ["v1.8-b0", "v1.8.1", "robust"])
def test_minute_features_are_their_definitions(name: str) -> None:
    """On bars with carried minutes and breaks, each column is what its definition says, from all of history."""
    events = bars(3000, holes=HOLES)
    frame, wanted = fold(FEATURE_SETS[name], events), oracle(events)
    rows = [i for i, row in enumerate(wanted) if row]
    assert len(rows) > 2000
    assert frame.ready[rows].all()
    for j, feature in enumerate(frame.feature_set.names):
        expected = [wanted[i][feature] for i in rows]
        np.testing.assert_allclose(frame.values[rows, j], expected, rtol=1e-8, atol=1e-9, err_msg=feature)


def book_oracle(events: Events, row: int) -> dict[str, float]:
    """Compute the book features at one timer from all events before it."""
    now, quotes, trades = int(events.ts[row]), [], []
    mid = float("nan")
    for i in range(row):
        a, b, c, _ = events.values[i].tolist()
        if events.kind[i] == QUOTE:
            quotes.append((int(events.ts[i]), *events.values[i].tolist()))
            mid = (a + b) / 2
        elif events.kind[i] == TRADE:
            sign = c if c else float(np.sign(a - mid))
            trades.append((int(events.ts[i]), sign))
    flow = []
    for (_, pb, pa, pbs, pas), (ts, bid, ask, bs, as_) in pairwise(quotes):
        flow.append((ts, bs * (bid >= pb) - pbs * (bid <= pb) - as_ * (ask <= pa) + pas * (ask >= pa)))
    _, bid, ask, bs, as_ = quotes[-1]
    result = {
        "queue_imbalance": (bs - as_) / (bs + as_),
        "microprice_dev": (bs - as_) / (bs + as_),
        "spread_ticks": (ask - bid) / 0.01,
        "log_depth": math.log(1 + bs + as_),
    }
    for seconds in (10, 60):
        recent = [sign for ts, sign in trades if now - seconds * SECOND < ts and sign]
        result[f"ofi_{seconds}s"] = sum(e for ts, e in flow if now - seconds * SECOND < ts)
        result[f"trade_imbalance_{seconds}s"] = sum(recent) / len(recent) if recent else 0.0
    return result


def test_book_features_are_their_definitions() -> None:
    """At each second, order flow, trade signs and the state of the book are those of the events in (t − window, t]."""
    events = ticks(240, rate=2.0)
    frame = fold(FEATURE_SETS["book"], events, tick_size=0.01)
    timers = np.flatnonzero(events.kind == TIMER)
    rows = [i for i in range(len(frame)) if frame.ready[i]]
    assert len(rows) >= 175
    for i in rows:
        wanted = book_oracle(events, int(timers[i]))
        for j, feature in enumerate(frame.feature_set.names):
            assert frame.values[i, j] == pytest.approx(wanted[feature], rel=1e-9, abs=1e-9), (i, feature)


def test_rsi14_agrees_with_talipp(btc: Dataset) -> None:
    """On a month of BTCUSDT, an independent library gives the same RSI to 1e-9."""
    frame = fold(get_feature_set("v1.8-b0", available(btc)), dataset_events(btc, grid_ns=None))
    theirs = RSI(14, input_values=frame.mid.tolist())
    ours = frame.values[:, frame.feature_set.names.index("rsi14")]
    assert frame.ready.sum() > 40_000
    np.testing.assert_allclose(ours[frame.ready], np.array(theirs[14:], dtype=float), rtol=0, atol=1e-9)


def test_logarithms_are_exact_to_a_few_units_in_the_last_place() -> None:
    """They are what 40 decimal digits say; only beyond two per cent the quotient, before its logarithm, is rounded."""
    rng = np.random.default_rng(7)
    with localcontext() as context:
        context.prec = 40
        for x in (10.0 ** rng.uniform(-20, 18, 2000)).tolist():
            assert kernels._log1p(x) == pytest.approx(float((1 + Decimal(x)).ln()), rel=1e-15, abs=0.0)
        for move in (10.0 ** rng.uniform(-12, 0.5, 2000) * rng.choice([-1, 1], 2000)).tolist():
            x, y = 42_000.0 * math.exp(move), 42_000.0
            exact = float((Decimal(x) / Decimal(y)).ln())
            rounded = 2e-16 if abs(move) > 0.0199 else 0.0
            assert kernels._log_ratio(x, y) == pytest.approx(exact, rel=1e-15, abs=rounded)
    assert (kernels._log1p(0.0), kernels._log_ratio(3.0, 3.0)) == (0.0, 0.0)


@pytest.mark.parametrize(("step", "wanted"), [(0.0, 50.0), (0.01, 100.0), (-0.01, 0.0)])
def test_rsi14_at_its_ends(step: float, wanted: float) -> None:
    """Flat is 50, no loss is 100, no gain is 0."""
    n = 1000
    values = np.column_stack([100.0 + step * np.arange(n), np.full(n, 0.01), np.ones(n), np.zeros(n)])
    frame = fold(FEATURE_SETS["v1.8-b0"], Events(START + (np.arange(n) + 1) * MINUTE, np.full(n, BAR, np.int8), values))
    assert set(frame.values[frame.ready, 4].tolist()) == {wanted}


def test_a_flat_market_gives_numbers() -> None:
    """Where nothing moves, every column of every minute set is finite, and what measures movement is 0."""
    n = 2000
    values = np.column_stack([np.full(n, 3.0), np.zeros(n), np.zeros(n), np.zeros(n)])
    events = Events(START + (np.arange(n) + 1) * MINUTE, np.full(n, BAR, np.int8), values)
    for name in ("v1.8-b0", "v1.8.1", "robust"):
        frame = fold(FEATURE_SETS[name], events)
        assert frame.ready[-1]
        assert np.isfinite(frame.values[frame.ready]).all()
    assert not frame.values[-1, :10].any()


@pytest.mark.parametrize(("name", "refill"), [("v1.8-b0", 15), ("v1.8.1", 15), ("robust", 61)])
def test_five_silent_minutes_are_carried_and_six_are_a_break(name: str, refill: int) -> None:
    """After five missing bars the next one is ready; after six, only when the short windows hold the new stretch alone."""
    for length, missing in ((5, 0), (6, refill - 1)):
        frame = fold(FEATURE_SETS[name], bars(1000, holes=((700, length),)))
        assert frame.ready[500:700].all()
        assert frame.ready[700:].tolist() == [False] * missing + [True] * (300 - length - missing)


def test_no_return_spans_a_break() -> None:
    """A jump in price over a break is in no return, and in no volatility."""
    events = bars(1200, holes=((700, 10),))
    jumped = events.values.copy()
    jumped[700:, 0] *= 2.0
    plain, jump = (fold(FEATURE_SETS["robust"], Events(events.ts, events.kind, v)) for v in (events.values, jumped))
    for feature in ("ret1_rv60", "ret5_rv60", "rsi14_z", "log_rv10_rv60", "log_rv60_rv1440", "abs_ret1_rv1440"):
        j = plain.feature_set.names.index(feature)
        np.testing.assert_allclose(jump.values[:, j], plain.values[:, j], rtol=1e-9, atol=1e-9, err_msg=feature)


@pytest.mark.parametrize("silent", [(0, 0), (3000, 3200), (3000, 3600)])
def test_timers_change_no_minute(silent: tuple[int, int]) -> None:
    """The same market with timers every second and every minute gives the same vectors at the minutes, silences included."""
    often, seldom = (ticks(6000, rate=0.5, grid=grid, silent=silent) for grid in (SECOND, MINUTE))
    a, b = (fold(FEATURE_SETS["v1.8-b0"], events) for events in (often, seldom))
    at = np.isin(a.ts, b.ts)
    assert same_bits(a.values[at], b.values)
    assert (a.ready[at] == b.ready).all()
    assert b.ready.sum() > 50


def test_bars_and_ticks_of_one_market_agree() -> None:
    """Bars that are built from ticks give what the ticks give at the minute: a model trained on bars can be fed either."""
    events = ticks(40 * 3600, rate=0.2, grid=MINUTE)
    minute = np.where(events.kind == TIMER, events.ts // MINUTE - 1, (events.ts - 1) // MINUTE)
    rows, mid, spread = [], float("nan"), float("nan")
    for k in range(int(minute[0]), int(minute[-1]) + 1):
        inside = minute == k
        quotes = events.values[inside & (events.kind == QUOTE)]
        if len(quotes):
            mid, spread = 0.5 * (quotes[-1, 0] + quotes[-1, 1]), quotes[-1, 1] - quotes[-1, 0]
        volume = float(events.values[inside & (events.kind == TRADE), 1].sum())
        rows.append((mid, spread, volume, 0.0))
    values = np.array(rows)
    as_bars = Events((np.arange(len(rows)) + int(minute[0]) + 1) * MINUTE, np.full(len(rows), BAR, np.int8), values)
    for name in ("v1.8-b0", "v1.8.1", "robust"):
        a, b = fold(FEATURE_SETS[name], events), fold(FEATURE_SETS[name], as_bars)
        assert b.ready.sum() > 1500
        assert (a.ready == b.ready).all()
        assert same_bits(a.values, b.values), name


def test_robust_has_no_scale() -> None:
    """A market quoted in units 2**20 times smaller gives bitwise the same columns: no constant hides a price level."""
    events = bars(2000)
    small = events.values.copy()
    small[:, :2] *= 2.0**-20
    a, b = (fold(FEATURE_SETS["robust"], Events(events.ts, events.kind, v)) for v in (events.values, small))
    assert a.ready.sum() > 1000
    assert same_bits(a.values, b.values)


def test_a_missing_value_is_not_ready_rather_than_zero() -> None:
    """A bar without the volume that the set needs gives no vector, and the next one does."""
    events = bars(800)
    events.values[600, 2] = np.nan
    events.values[650, 1] = np.nan
    for name in ("v1.8-b0", "v1.8.1", "robust"):
        frame = fold(FEATURE_SETS[name], events)
        assert np.flatnonzero(~frame.ready[500:]).tolist() == [100, 150]
        assert np.isnan(frame.values[[600, 650]]).all()


def test_a_locked_or_empty_book_gives_numbers() -> None:
    """With bid = ask, or no size at all, every column is finite."""
    events = ticks(120)
    quotes = events.kind == QUOTE
    events.values[quotes, 1] = events.values[quotes, 0]
    events.values[quotes, 2:] = 0.0
    frame = fold(FEATURE_SETS["book"], events, tick_size=0.01)
    assert frame.ready.sum() == 60
    assert np.isfinite(frame.values[frame.ready]).all()
