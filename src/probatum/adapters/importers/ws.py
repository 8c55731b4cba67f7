"""Read raw captures of Binance's combined websocket streams: a line is the local time in ns and the message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec
import polars as pl

from probatum.adapters.importers.files import EARLIEST_NS, LATEST_NS, Text
from probatum.adapters.importers.source import Options, canonical, open_all
from probatum.core.clock import NS_PER_MS
from probatum.core.errors import DataError, ParameterError
from probatum.core.verdict import Provenance
from probatum.market.calendar import CALENDARS
from probatum.market.quality import Recording, SourceFile


class _Message(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Ticker(msgspec.Struct):
    s: str
    u: int
    b: float
    B: float
    a: float
    A: float
    T: int | None = None


class _Trade(msgspec.Struct):
    s: str
    t: int
    p: float
    q: float
    T: int
    m: bool


OTHER_STREAMS = frozenset({"aggTrade", "depth", "depth5", "depth10", "depth20", "forceOrder", "kline_1m", "markPrice", "miniTicker", "ticker"})  # fmt: skip
_DECODER = msgspec.json.Decoder(_Message)
_QUOTE = ("id", "bid", "bid_size", "ask", "ask_size")
_TRADE = ("id", "price", "size", "side")
_Row = tuple[object, ...]


class _Capture:
    """Collect the rows of one file: (row, local ns, event ms or None, flag, values…)."""

    def __init__(self) -> None:
        self.rows: dict[str, list[_Row]] = {"quotes": [], "trades": []}
        self.ignored: Counter[str] = Counter()
        self.symbols: set[str] = set()
        self.lines = 0

    def read(self, text: Text, symbol: str | None) -> None:
        for row, line in enumerate(text.data.splitlines(), 1):
            self.lines = row
            local, _, body = line.partition(b" ")
            try:
                self._message(text, row, int(local), body, symbol)
            except (ValueError, msgspec.MsgspecError, RecursionError):
                self.rows["quotes"].append((row, None, None, "not a time and a message", None, None, None, None, None))

    def _message(self, text: Text, row: int, local_ns: int, body: bytes, symbol: str | None) -> None:
        if not EARLIEST_NS <= local_ns <= LATEST_NS:
            problem = "local times must be ns since 1970, between 1980 and 2100"
            raise DataError(problem, file=text.name, row=row, field="local_ns", value=local_ns)
        message = _DECODER.decode(body)
        stream = message.stream.partition("@")[2].partition("@")[0]
        if stream == "bookTicker":
            tick = msgspec.json.decode(message.data, type=_Ticker, strict=False)
            if self._wanted(tick.s, symbol):
                self.rows["quotes"].append((row, local_ns, tick.T, None, tick.u, tick.b, tick.B, tick.a, tick.A))
        elif stream == "trade":
            trade = msgspec.json.decode(message.data, type=_Trade, strict=False)
            if self._wanted(trade.s, symbol):
                side = -1 if trade.m else 1  # m: the buyer was the maker, so the seller came to him
                self.rows["trades"].append((row, local_ns, trade.T, None, trade.t, trade.p, trade.q, side))
        else:  # depth, and what is no stream at all: a depth snapshot, an answer to a subscription
            self.ignored[_kind_of(stream)] += 1

    def _wanted(self, name: str, symbol: str | None) -> bool:
        if symbol is not None and name != symbol:
            self.ignored["another symbol"] += 1
            return False
        self.symbols.add(name)
        return True


def read_ws(paths: Sequence[Path], options: Options) -> Recording:
    """Read bookTicker as quotes and trade as trades; other streams are counted as ignored.

    The event time is the exchange's (``T``). Spot bookTicker has none: then the local time stands for the event time
    of quotes and trades alike, for two clocks cannot put one stream of events in order.
    """
    texts = open_all(paths, (".gz", ".txt", ".log"))
    captures: list[_Capture] = []
    for text in texts:
        captures.append(_Capture())
        captures[-1].read(text, options.symbol)
    ticks = [row for capture in captures for row in capture.rows["quotes"] if row[3] is None]
    local = any(row[2] is None for row in ticks)
    frames = {kind: [_frame(kind, item.rows[kind], local, i) for i, item in enumerate(captures)] for kind in ("quotes", "trades")}  # fmt: skip
    frames = {kind: parts for kind, parts in frames.items() if any(part.height for part in parts)}
    events = [row for capture in captures for rows in capture.rows.values() for row in rows]
    return Recording(
        format="binance-ws",
        symbol=_symbol({name for capture in captures for name in capture.symbols}, options),
        provenance=Provenance.REPLAY,
        calendar=options.calendar or CALENDARS["24x7"],
        tick_size=options.tick_size,
        frames={kind: pl.concat(parts) for kind, parts in frames.items()},
        sources=tuple(SourceFile(t.base, t.sha256, c.lines) for t, c in zip(texts, captures, strict=True)),
        ignored=dict(sum((capture.ignored for capture in captures), Counter())),
        decisions=(_clock_decision(local), _skew(events)),
    )


def _kind_of(stream: str) -> str:
    # Names from outside become keys of a record: only those that are known.
    if not stream:
        return "not of a stream"
    return f"stream {stream}" if stream in OTHER_STREAMS else "another stream"


def _symbol(found: set[str], options: Options) -> str:
    if options.symbol is not None:
        return options.symbol
    if len(found) != 1:
        raise ParameterError("symbol", "given with --symbol: the capture holds none or several", sorted(found)[:10])
    return found.pop()


def _frame(kind: str, rows: list[_Row], local: bool, index: int) -> pl.DataFrame:
    names = _QUOTE if kind == "quotes" else _TRADE
    schema = {"row": pl.Int64, "ts_recv": pl.Int64, "event_ms": pl.Int64, "flag": pl.String, "id": pl.Int64}
    schema |= dict.fromkeys(names[1:], pl.Float64)
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    event = pl.col("ts_recv") if local else pl.col("event_ms") * NS_PER_MS
    return canonical(kind, frame.with_columns(ts_event=event), index)


def _clock_decision(local: bool) -> str:
    if local:
        return "time: bookTicker carries no event time, so ts_event is the local receive time, for trades too"
    return "time: ts_event is the exchange's transaction time T (ms), ts_recv the local time (ns)"


def _skew(events: Sequence[_Row]) -> str:
    delays = [row[1] - row[2] * NS_PER_MS for row in events if isinstance(row[1], int) and isinstance(row[2], int)]
    if not delays:
        return "clocks: not comparable, no message carries an event time"
    return f"clocks: local time minus event time is {median(delays) / NS_PER_MS:.0f} ms in the median"
