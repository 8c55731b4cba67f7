"""Compute every feature, one event at a time: the only arithmetic, for batch and serving alike.

The state is one flat float64 array (what it holds stands below), so that it can be compiled, saved and fingerprinted.
:func:`advance` moves it by one event, :func:`evaluate` reads a vector off it and changes nothing; :func:`step` is both, and
:func:`fold` is the loop over them. Compiled and plain Python agree bit by bit: ``math`` functions, ``x*x``, no fastmath, and
sums in time order. Running sums are anchored at a recent value and computed anew from their windows every four hours of UTC: a
value depends on its window, not on how long the process has run.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from probatum.features.jit import lean, melt
from probatum.market.events import BAR, QUOTE, TIMER, TRADE

Array = NDArray[np.float64]

V18_B0, V18_1, ROBUST, BOOK = 0, 1, 2, 3
CODES = {"v1.8-b0": V18_B0, "v1.8.1": V18_1, "robust": ROBUST, "book": BOOK}

# What advance() and step() answer. The negative ones leave the state as it was.
NOT_READY, READY, REFUSED_TIME, REFUSED_VALUE = 0, 1, -1, -2

_NS_PER_S = 1_000_000_000
_NS_PER_MINUTE = 60 * _NS_PER_S
_NS_PER_DAY = 86_400e9
_DAY = 1440  # minutes in the long windows
_HALF_WARM = 360  # minutes that a long window needs at least
_REFRESH = 240  # minutes after which running sums are computed anew from their windows
_FILL = 5  # silent minutes that are carried; more are a break
_RSI_MEMORY = 420  # changes after which Wilder's average has forgotten: (13/14)**420 < 1e-13
_EPSILON = 1e-8
_ALPHA = 1.0 / 14.0

# Header of the state.
_SET, _NEED_SPREAD, _NEED_VOLUME, _NEED_SIZES, _TICK = 0, 1, 2, 3, 4
CONFIG = 5  # so many entries never change
_NOW = 5  # time of the last event in ns; a float knows it to a quarter of a microsecond
_BID, _ASK, _BID_SIZE, _ASK_SIZE, MID, _SPREAD = 7, 8, 9, 10, 11, 12
_LAST = 13  # number of the last closed minute, -2 before the first event
_FRESH = 14  # number of the minute from which on the window sums are due to be computed anew
_SINCE = 15  # closed minutes since the last break
_SILENT = 16  # consecutive minutes without a market event
_SEEN = 17  # a market event came in the running minute
_VOLUME = 18  # volume of the running minute
_VOL1M = 19  # volume of the last closed minute
_CLOSE = 20  # mid at the last closed minute
_UP, _DOWN = 21, 22  # Wilder's averages
_BARS = 23  # the stream has bars: they close their minutes, timers do not
_SECOND, _START, _MARKET = 24, 25, 26  # book: running second, the first one, the last with a market event
_HEADER = 32
# Book: sums per second, for the last 64 seconds: order flow, buys, sells.
_BUCKETS = _HEADER
# A window: position, count, anchor, Σ(x − anchor), Σ(x − anchor)², then the ring twice over, so that the last n values
# always lie side by side.
_POS, _COUNT, _ANCHOR, _SUM, _SUM_SQ, _RING = 0, 1, 2, 3, 4, 8
_WINDOW = _RING + 2 * _DAY
_MIDS = _BUCKETS + 64 * 3
_RETURNS = _MIDS + _WINDOW
_VOLUMES = _RETURNS + _WINDOW
# A median: position, count, then the ring, then the same values sorted.
_SPREADS = _VOLUMES + _WINDOW
_SORTED = _RING + _DAY
SIZES = {V18_B0: _RETURNS, V18_1: _RETURNS, ROBUST: _SPREADS + _SORTED + _DAY, BOOK: _MIDS}
WIDTHS = {V18_B0: 6, V18_1: 7, ROBUST: 12, BOOK: 8}


def new_state(code: int, *, spread: bool, volume: bool, sizes: bool, tick_size: float) -> Array:
    """Return the state before the first event; the flags say which data the columns need."""
    state = np.zeros(SIZES[code])
    state[[_SET, _NEED_SPREAD, _NEED_VOLUME, _NEED_SIZES, _TICK]] = code, spread, volume, sizes, tick_size
    state[[_SECOND, _START, _MARKET]] = -1.0
    state[_LAST] = -2.0
    state[_NOW] = 1.0
    state[[_BID, _ASK, _BID_SIZE, _ASK_SIZE, MID, _SPREAD, _VOL1M, _CLOSE]] = np.nan
    return state


@lean
def _log_ratio(x: float, y: float) -> float:
    """Return log(x/y); within two per cent by its series in artanh: quicker, and no quotient is rounded first."""
    z = (x - y) / (x + y)
    q = z * z
    if q > 1e-4:
        return math.log(x / y)
    return 2.0 * (z + z * q * (1.0 / 3.0 + q * (0.2 + q * (1.0 / 7.0))))


@lean
def _log1p(x: float) -> float:
    """Return log(1 + x), correct for what the sum has rounded off: in half the time of log1p."""
    y = 1.0 + x
    return math.log(y) + (x - (y - 1.0)) / y


@lean
def _push(s: Array, base: int, x: float) -> None:
    pos = int(s[base + _POS])
    if s[base + _COUNT] == 0.0:
        s[base + _ANCHOR] = x
    new = x - s[base + _ANCHOR]
    if s[base + _COUNT] < _DAY:
        s[base + _COUNT] += 1.0
        s[base + _SUM] += new
        s[base + _SUM_SQ] += new * new
    else:
        old = s[base + _RING + pos] - s[base + _ANCHOR]
        s[base + _SUM] += new - old
        s[base + _SUM_SQ] += (new - old) * (new + old)
    s[base + _RING + pos] = x
    s[base + _RING + _DAY + pos] = x
    pos += 1
    s[base + _POS] = 0.0 if pos == _DAY else float(pos)


@lean
def _back(s: Array, base: int, age: int) -> float:
    return float(s[base + _RING + _DAY + int(s[base + _POS]) - 1 - age])


@lean
def _resum(s: Array, base: int) -> None:
    count = int(s[base + _COUNT])
    end = base + _RING + _DAY + int(s[base + _POS])
    window = s[end - count : end]
    anchor = s[end - 1]
    # Four lanes: the additions of one would wait for each other.
    a0, a1, a2, a3 = 0.0, 0.0, 0.0, 0.0
    b0, b1, b2, b3 = 0.0, 0.0, 0.0, 0.0
    whole = count - count % 4
    for i in range(0, whole, 4):
        x0, x1, x2, x3 = window[i] - anchor, window[i + 1] - anchor, window[i + 2] - anchor, window[i + 3] - anchor
        a0, a1, a2, a3 = a0 + x0, a1 + x1, a2 + x2, a3 + x3
        b0, b1, b2, b3 = b0 + x0 * x0, b1 + x1 * x1, b2 + x2 * x2, b3 + x3 * x3
    for i in range(whole, count):
        x0 = window[i] - anchor
        a0 += x0
        b0 += x0 * x0
    s[base + _ANCHOR] = anchor
    s[base + _SUM] = (a0 + a1) + (a2 + a3)
    s[base + _SUM_SQ] = (b0 + b1) + (b2 + b3)


@lean
def _moments(s: Array, base: int) -> tuple[float, float]:
    """Return mean and sample standard deviation of a window."""
    count, total = s[base + _COUNT], s[base + _SUM]
    mean = total / count
    variance = (s[base + _SUM_SQ] - total * mean) / (count - 1.0)
    return s[base + _ANCHOR] + mean, math.sqrt(variance) if variance > 0.0 else 0.0


@lean
def _tail(s: Array, base: int, k: int) -> tuple[float, float]:
    """Return mean and sample standard deviation of the last k values, in two passes."""
    end = base + _RING + _DAY + int(s[base + _POS])
    total = 0.0
    for i in range(end - k, end):
        total += s[i]
    mean = total / k
    squares = 0.0
    for i in range(end - k, end):
        x = s[i] - mean
        squares += x * x
    return mean, math.sqrt(squares / (k - 1))


@lean
def _search(s: Array, first: int, count: int, x: float) -> int:
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if s[first + middle] < x:
            low = middle + 1
        else:
            high = middle
    return first + low


@lean
def _push_sorted(s: Array, base: int, x: float) -> None:
    pos, count, first = int(s[base + _POS]), int(s[base + _COUNT]), base + _SORTED
    if count == _DAY:
        hole = _search(s, first, count, s[base + _RING + pos])
        for i in range(hole, first + count - 1):
            s[i] = s[i + 1]
        count -= 1
    place = _search(s, first, count, x)
    for i in range(first + count, place, -1):
        s[i] = s[i - 1]
    s[place] = x
    s[base + _RING + pos] = x
    s[base + _COUNT] = float(count + 1)
    s[base + _POS] = float((pos + 1) % _DAY)


@lean
def _median(s: Array, base: int) -> float:
    count, first = int(s[base + _COUNT]), base + _SORTED
    return float(0.5 * (s[first + (count - 1) // 2] + s[first + count // 2]))


@lean
def _wilder(average: float, change: float, number: float) -> float:
    """Move one of Wilder's averages by the change with this number since its start; the first 14 are a plain mean."""
    gain = change * _ALPHA if change > 0.0 else 0.0
    return gain + (average * (1.0 - _ALPHA) if number > 14.0 else average)


@lean
def _refresh(s: Array) -> None:
    """Compute every running value anew from its window."""
    _resum(s, _MIDS)
    if s[_SET] == ROBUST:
        _resum(s, _RETURNS)
        _resum(s, _VOLUMES)
    changes = min(int(s[_SINCE]) - 1, _RSI_MEMORY)
    end = _MIDS + _RING + _DAY + int(s[_MIDS + _POS])
    closes = s[end - changes - 1 : end]
    up, down = 0.0, 0.0
    for i in range(changes):
        change = closes[i + 1] - closes[i]
        up, down = _wilder(up, change, i + 1.0), _wilder(down, -change, i + 1.0)
    s[_UP], s[_DOWN] = up, down


@melt
def _close_minute(s: Array, minute: int, volume: float) -> None:
    mid = s[MID]
    number = s[_SINCE]
    s[_SINCE] = number + 1.0
    _push(s, _MIDS, mid)
    change = mid - s[_CLOSE]
    s[_UP] = _wilder(s[_UP], change, number) if number > 0.0 else 0.0
    s[_DOWN] = _wilder(s[_DOWN], -change, number) if number > 0.0 else 0.0
    if s[_SET] == ROBUST:
        if number > 0.0:
            _push(s, _RETURNS, _log_ratio(mid, s[_CLOSE]))
        if s[_NEED_VOLUME] and volume >= 0.0:
            _push(s, _VOLUMES, _log1p(volume))
        if s[_NEED_SPREAD] and s[_SPREAD] >= 0.0:
            _push_sorted(s, _SPREADS, s[_SPREAD])
    s[_VOL1M] = volume
    s[_CLOSE] = mid
    s[_LAST] = float(minute)
    if minute >= s[_FRESH]:
        s[_FRESH] = float((minute // _REFRESH + 1) * _REFRESH)
        _refresh(s)


@lean
def _close_until(s: Array, minute: int) -> None:
    """Close every minute before this one: the running one with what it saw, the silent ones with what is carried."""
    if s[_LAST] < -1.0:
        s[_LAST] = float(minute - 1)
    while s[_LAST] + 1.0 < minute:
        if s[_SEEN]:
            s[_SILENT] = 0.0
        else:
            s[_SILENT] += 1.0
        if s[_SILENT] > _FILL or not s[MID] > 0.0:
            s[_SINCE] = 0.0
            s[MID] = math.nan
            s[_SPREAD] = math.nan
            s[_LAST] = float(minute - 1)
        else:
            _close_minute(s, int(s[_LAST]) + 1, s[_VOLUME])
        s[_SEEN] = 0.0
        s[_VOLUME] = 0.0


@melt
def _advance_minutes(s: Array, ts: int, kind: int, a: float, b: float, c: float) -> int:
    if kind == BAR:
        minute = (ts - 1) // _NS_PER_MINUTE
        ahead = minute - s[_LAST]
        if ahead != 1.0:
            if ahead <= 0.0:
                return REFUSED_TIME
            _close_until(s, minute)
        s[_BARS] = 1.0
        s[_SILENT] = 0.0
        s[MID] = a
        s[_SPREAD] = b
        _close_minute(s, minute, c)
    elif kind == TIMER:
        # Market events of the same instant come before a timer, so at the boundary the minute is complete.
        if not s[_BARS]:
            _close_until(s, ts // _NS_PER_MINUTE)
    else:
        _close_until(s, (ts - 1) // _NS_PER_MINUTE)
        s[_SEEN] = 1.0
        if kind == QUOTE:
            s[MID] = 0.5 * (a + b)
            s[_SPREAD] = b - a
        else:
            s[_VOLUME] += b
    return NOT_READY


@lean
def _order_flow(s: Array, bid: float, ask: float, bid_size: float, ask_size: float) -> float:
    """Return e_n of Cont, Kukanov and Stoikov (2014): what this quote added to the bid less what it added to the ask."""
    flow = 0.0
    if bid >= s[_BID]:
        flow += bid_size
    if bid <= s[_BID]:
        flow -= s[_BID_SIZE]
    if ask <= s[_ASK]:
        flow -= ask_size
    if ask >= s[_ASK]:
        flow += s[_ASK_SIZE]
    return flow


@lean
def _roll_seconds(s: Array, second: int) -> None:
    last = int(s[_SECOND])
    for k in range(max(last + 1, second - 63), second + 1):
        for j in range(3):
            s[_BUCKETS + 3 * (k % 64) + j] = 0.0
    s[_SECOND] = float(second)


@lean
def _advance_book(s: Array, ts: int, kind: int, a: float, b: float, c: float, d: float) -> int:
    second = (ts - 1) // _NS_PER_S
    if second > s[_SECOND]:
        _roll_seconds(s, second)
    if s[_START] >= 0.0 and second - s[_MARKET] > 60 * _FILL:
        s[_START] = -1.0
        s[MID] = math.nan
    if kind in (TIMER, BAR):
        return NOT_READY
    s[_MARKET] = float(second)
    bucket = _BUCKETS + 3 * (second % 64)
    if kind == QUOTE:
        if s[_START] < 0.0:
            s[_START] = float(second)
        elif s[_NEED_SIZES]:
            s[bucket] += _order_flow(s, a, b, c, d)
        s[_BID], s[_ASK], s[_BID_SIZE], s[_ASK_SIZE] = a, b, c, d
        s[MID] = 0.5 * (a + b)
    elif c > 0.0 or (c == 0.0 and a > s[MID]):
        s[bucket + 1] += 1.0
    elif c < 0.0 or (c == 0.0 and a < s[MID]):
        s[bucket + 2] += 1.0
    return NOT_READY


@lean
def _valid(kind: int, a: float, b: float, c: float, d: float, sized: bool) -> bool:
    """Say whether an event's values are possible."""
    if kind == TIMER:
        return True
    if kind == BAR:  # NaN, which compares with nothing, says that the source has no spread or no volume
        return 0.0 < a < math.inf and not (b < 0.0 or b == math.inf or c < 0.0 or c == math.inf)
    if kind == QUOTE:
        return 0.0 < a <= b < math.inf and (not sized or (0.0 <= c < math.inf and 0.0 <= d < math.inf))
    return kind == TRADE and 0.0 < a < math.inf and 0.0 <= b < math.inf and -1.0 <= c <= 1.0


@melt
def advance(s: Array, ts: int, kind: int, a: float, b: float, c: float, d: float) -> int:
    """Move the state by one event; answers REFUSED_TIME or REFUSED_VALUE, and changes nothing, for an impossible one."""
    now = float(ts)
    if now < s[_NOW]:
        return REFUSED_TIME
    if not _valid(kind, a, b, c, d, s[_NEED_SIZES] > 0.0):
        return REFUSED_VALUE
    is_book = s[_SET] == BOOK
    code = _advance_book(s, ts, kind, a, b, c, d) if is_book else _advance_minutes(s, ts, kind, a, b, c)
    if code >= 0:
        s[_NOW] = now
    return code


@lean
def _rsi(s: Array) -> float:
    total = s[_UP] + s[_DOWN]
    return float(100.0 * (s[_UP] / total)) if total > 0.0 else 50.0


@lean
def _evaluate_b0(s: Array, out: Array) -> bool:
    if s[_SINCE] < 15.0:
        return False
    out[0] = 1.0
    out[1] = s[MID]
    out[2] = 1e4 * s[_SPREAD] / s[MID]
    out[3] = s[_VOL1M]
    out[4] = _rsi(s)
    out[5] = math.log1p(s[_VOL1M])
    return True


@melt
def _evaluate_v181(s: Array, out: Array) -> bool:
    if s[_SINCE] < 15.0 or s[_MIDS + _COUNT] < _HALF_WARM:
        return False
    close, mid = s[_CLOSE], s[MID]
    mean, sd = _moments(s, _MIDS)
    out[0] = 1.0
    out[1] = _log_ratio(close, _back(s, _MIDS, 1))
    out[2] = _log_ratio(close, _back(s, _MIDS, 5))
    out[3] = 1e4 * s[_SPREAD] / mid
    out[4] = _log1p(s[_VOL1M])
    out[5] = (_rsi(s) - 50.0) / 30.0
    out[6] = (mid - mean) / (sd + _EPSILON)
    return True


@lean
def _evaluate_robust(s: Array, out: Array) -> bool:
    if s[_SINCE] < 61.0 or s[_RETURNS + _COUNT] < _HALF_WARM:
        return False
    if (s[_NEED_VOLUME] and s[_VOLUMES + _COUNT] < _HALF_WARM) or (
        s[_NEED_SPREAD] and s[_SPREADS + _COUNT] < _HALF_WARM
    ):
        return False
    rv10 = _tail(s, _RETURNS, 10)[1] + _EPSILON
    rv60 = _tail(s, _RETURNS, 60)[1] + _EPSILON
    rv1440 = _moments(s, _RETURNS)[1] + _EPSILON
    mean, sd = _tail(s, _MIDS, 60)
    ret1 = _back(s, _RETURNS, 0)
    tiny = _EPSILON * s[MID]
    out[0] = ret1 / rv60
    out[1] = _log_ratio(s[_CLOSE], _back(s, _MIDS, 5)) / (rv60 * math.sqrt(5.0))
    out[2] = (_rsi(s) - 50.0) / 30.0
    out[3] = (s[MID] - mean) / (sd + tiny)
    out[4] = math.nan
    if s[_NEED_VOLUME]:
        usual, spread = _moments(s, _VOLUMES)
        out[4] = (_log1p(s[_VOL1M]) - usual) / (spread + _EPSILON)
    out[5] = math.nan
    if s[_NEED_SPREAD]:
        out[5] = math.log((s[_SPREAD] + tiny) / (_median(s, _SPREADS) + tiny))
    out[6] = math.log(rv10 / rv60)
    out[7] = math.log(rv60 / rv1440)
    out[8] = math.log(rv10 / rv1440)
    out[9] = abs(ret1) / rv1440
    angle = 2.0 * math.pi * (s[_NOW] % _NS_PER_DAY) / _NS_PER_DAY
    out[10] = math.sin(angle)
    out[11] = math.cos(angle)
    return True


@lean
def _ratio(x: float, y: float) -> float:
    """Return (x − y)/(x + y), 0 where both are 0."""
    return (x - y) / (x + y) if x + y > 0.0 else 0.0


@lean
def _evaluate_book(s: Array, out: Array) -> bool:
    second = int(s[_SECOND])
    if s[_START] < 0.0 or second - s[_START] < 60.0:
        return False
    flow, buys, sells = 0.0, 0.0, 0.0
    for age in range(60):
        bucket = _BUCKETS + 3 * ((second - age) % 64)
        flow += s[bucket]
        buys += s[bucket + 1]
        sells += s[bucket + 2]
        if age == 9:
            out[2] = flow
            out[4] = _ratio(buys, sells)
    out[3] = flow
    out[5] = _ratio(buys, sells)
    bid, ask, depth = s[_BID], s[_ASK], s[_BID_SIZE] + s[_ASK_SIZE]
    out[0] = _ratio(s[_BID_SIZE], s[_ASK_SIZE])
    out[1] = out[0]
    if ask > bid and depth > 0.0:
        micro = (ask * s[_BID_SIZE] + bid * s[_ASK_SIZE]) / depth
        out[1] = (micro - s[MID]) / (0.5 * (ask - bid))
    out[6] = (ask - bid) / s[_TICK]
    out[7] = math.log1p(depth)
    return True


@melt
def evaluate(s: Array, out: Array) -> bool:
    """Read the full vector off the state: True where every column that is needed has its history, else all NaN."""
    if s[_SET] == BOOK:
        ready = _evaluate_book(s, out)
    elif not s[MID] > 0.0 or (s[_NEED_SPREAD] and not s[_SPREAD] >= 0.0) or (s[_NEED_VOLUME] and not s[_VOL1M] >= 0.0):
        ready = False
    elif s[_SET] == V18_1:
        ready = _evaluate_v181(s, out)
    elif s[_SET] == ROBUST:
        ready = _evaluate_robust(s, out)
    else:
        ready = _evaluate_b0(s, out)
    if not ready:
        out[:] = math.nan
    return ready


@lean
def step(s: Array, out: Array, ts: int, kind: int, a: float, b: float, c: float, d: float) -> int:
    """Move the state by one event and write its vector; answers NOT_READY, READY, REFUSED_TIME or REFUSED_VALUE."""
    code = advance(s, ts, kind, a, b, c, d)
    if code < 0:
        return code
    return READY if evaluate(s, out) else NOT_READY


@lean
def fold(
    s: Array,
    scratch: Array,
    ts: NDArray[np.int64],
    kind: NDArray[np.int8],
    values: Array,
    row_kind: int,
    columns: NDArray[np.int64],
    out: Array,
    ready: NDArray[np.bool_],
    mid: Array,
) -> tuple[int, int]:
    """Step through events and keep a row at each of ``row_kind`` (−1: at all); returns (0, rows) or (refusal, event)."""
    row = 0
    for i in range(ts.shape[0]):
        code = advance(s, ts[i], kind[i], values[i, 0], values[i, 1], values[i, 2], values[i, 3])
        if code < 0:
            return code, i
        if row_kind < 0 or kind[i] == row_kind:
            ready[row] = evaluate(s, scratch)
            for j in range(columns.shape[0]):
                out[row, j] = scratch[columns[j]]
            mid[row] = s[MID]
            row += 1
    return 0, row
