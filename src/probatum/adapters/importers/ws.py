"""Decode messages of Binance's combined websocket streams, live ones and those of raw captures (``local_ns message``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import polars as pl
from msgspec import Meta

from probatum.adapters.importers.files import EARLIEST_NS, LATEST_NS, Text
from probatum.adapters.importers.source import Options, canonical, open_all
from probatum.core.clock import NS_PER_MS, NS_PER_S
from probatum.core.errors import DataError, ParameterError
from probatum.core.verdict import Provenance
from probatum.market.calendar import CALENDARS
from probatum.market.events import QUOTE, TRADE
from probatum.market.quality import Recording, SourceFile
from probatum.market.ticks import Tick

LATE_NS = 10 * NS_PER_S
_Number = Annotated[int, Meta(ge=0, le=2**62)]
_Ms = Annotated[int, Meta(ge=EARLIEST_NS // NS_PER_MS, le=LATEST_NS // NS_PER_MS)]
_Name = Annotated[str, Meta(min_length=1, max_length=40)]


class _Message(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Ticker(msgspec.Struct):
    s: _Name
    u: _Number
    b: float
    B: float
    a: float
    A: float
    T: _Ms | None = None


class _Trade(msgspec.Struct):
    s: _Name
    t: _Number
    p: float
    q: float
    T: _Ms
    m: bool


OTHER_STREAMS = frozenset({"aggTrade", "depth", "depth5", "depth10", "depth20", "forceOrder", "kline_1m", "markPrice", "miniTicker", "ticker"})  # fmt: skip
_QUOTE = ("bid", "ask", "bid_size", "ask_size")
_TRADE = ("price", "size", "side")
_NAMES = {"quotes": _QUOTE, "trades": _TRADE}
KINDS = {"quotes": QUOTE, "trades": TRADE}
_message = msgspec.json.Decoder(_Message).decode
_ticker = msgspec.json.Decoder(_Ticker, strict=False).decode
_trade = msgspec.json.Decoder(_Trade, strict=False).decode
_Row = tuple[object, ...]


def decode(body: bytes, local_ns: int) -> Tick | str:
    """Return the quote or trade of a message, or the name of what else it is.

    Raises ValueError, msgspec.MsgspecError or RecursionError (:data:`NO_MESSAGE`) where it is nothing of the kind.

    >>> decode(b'{"stream":"x@depth","data":{}}', 0)
    'stream depth'
    """
    message = _message(body)
    stream = message.stream.partition("@")[2].partition("@")[0]
    if stream == "bookTicker":
        q = _ticker(message.data)
        return Tick(QUOTE, q.s, local_ns, None if q.T is None else q.T * NS_PER_MS, q.u, q.b, q.a, q.B, q.A)
    if stream == "trade":
        t = _trade(message.data)
        side = -1.0 if t.m else 1.0  # m: the buyer was the maker, so the seller came to him
        return Tick(TRADE, t.s, local_ns, t.T * NS_PER_MS, t.t, t.p, t.q, side)
    return _kind_of(stream)  # depth, and what is no stream at all: a depth snapshot, an answer to a subscription


NO_MESSAGE = (ValueError, msgspec.MsgspecError, RecursionError)


class _Capture:
    """Collect the rows of one file: (row, flag, received, event or None, number, values…)."""

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
                self._line(text, row, int(local), body, symbol)
            except NO_MESSAGE:
                self.rows["quotes"].append((row, "not a time and a message", *[None] * 7))

    def _line(self, text: Text, row: int, local_ns: int, body: bytes, symbol: str | None) -> None:
        if not EARLIEST_NS <= local_ns <= LATEST_NS:
            problem = "local times must be ns since 1970, between 1980 and 2100"
            raise DataError(problem, file=text.name, row=row, field="local_ns", value=local_ns)
        tick = decode(body, local_ns)
        if isinstance(tick, str):
            self.ignored[tick] += 1
        elif self._wanted(tick.symbol, symbol):
            values = (row, None, tick.ts_recv, tick.ts_event, tick.number, tick.a, tick.b, tick.c, tick.d)
            self.rows["quotes" if tick.kind == QUOTE else "trades"].append(values)

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
    frames = {kind: [_frame(item.rows[kind]).with_columns(source=i) for i, item in enumerate(captures)] for kind in KINDS}  # fmt: skip
    raw = {kind: pl.concat(parts) for kind, parts in frames.items()}
    made, decisions = tick_frames({kind: frame for kind, frame in raw.items() if frame.height})
    return Recording(
        format="binance-ws",
        symbol=_symbol({name for capture in captures for name in capture.symbols}, options),
        provenance=Provenance.REPLAY,
        calendar=options.calendar or CALENDARS["24x7"],
        tick_size=options.tick_size,
        frames=made,
        sources=tuple(SourceFile(t.base, t.sha256, c.lines) for t, c in zip(texts, captures, strict=True)),
        ignored=dict(sum((capture.ignored for capture in captures), Counter())),
        decisions=decisions,
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


RAW_SCHEMA: dict[str, pl.DataType] = {
    "row": pl.Int64(), "flag": pl.String(), "ts_recv": pl.Int64(), "ts_event": pl.Int64(), "id": pl.Int64(),
    "a": pl.Float64(), "b": pl.Float64(), "c": pl.Float64(), "d": pl.Float64(),
}  # fmt: skip


def _frame(rows: list[_Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=RAW_SCHEMA, orient="row")


def tick_frames(raw: dict[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], tuple[str, ...]]:
    """Put ticks (``RAW_SCHEMA`` and ``source``) on one clock: return canonical frames by kind, and what was decided."""
    good = [frame.filter(pl.col("flag").is_null()) for frame in raw.values()]
    local = "quotes" in raw and good[0]["ts_event"].null_count() > 0
    frames = {}
    for kind, frame in raw.items():
        named = frame.rename(dict(zip("abcd", _NAMES[kind], strict=False)))
        named = _by_number(named).with_columns(ts_event="earliest") if local else named
        frames[kind] = canonical(kind, named, None)
    return frames, (_clock_decision(local), _skew(good), *_missing(raw))


def _by_number(frame: pl.DataFrame) -> pl.DataFrame:
    """Add ``earliest``: the first local time at which this message or a later-numbered one was received.

    A message that overtook another on the way was not sent before it. More than ten seconds are not believed: then
    the numbers are wrong, not the way long.
    """
    in_order = frame.sort("id", "ts_recv", maintain_order=True, nulls_last=True)
    seen = pl.col("ts_recv").reverse().cum_min().reverse()
    earliest = pl.when((pl.col("ts_recv") - seen <= LATE_NS) & pl.col("id").is_not_null()).then(seen)
    return in_order.with_columns(earliest=earliest.otherwise(pl.col("ts_recv"))).sort("source", "row")


def _clock_decision(local: bool) -> str:
    if local:
        return "time: bookTicker carries no event time, so ts_event is the local receive time, for trades too"
    return "time: ts_event is the exchange's transaction time T (ms), ts_recv the local time (ns)"


def _skew(frames: Sequence[pl.DataFrame]) -> str:
    delays = [frame.select((pl.col("ts_recv") - pl.col("ts_event")).alias("delay")) for frame in frames]
    middle = pl.concat(delays)["delay"].median() if delays else None
    if not isinstance(middle, float):
        return "clocks: not comparable, no message carries an event time"
    return f"clocks: local time minus event time is {middle / NS_PER_MS:.0f} ms in the median"


def _missing(raw: dict[str, pl.DataFrame]) -> tuple[str, ...]:
    """Count the trades that the exchange's numbers say there were, and that are not here."""
    numbers = raw["trades"]["id"].drop_nulls().unique().sort() if "trades" in raw else pl.Series([], dtype=pl.Int64)
    lacking = numbers.diff().drop_nulls() - 1
    if not lacking.sum():
        return ()
    return (f"numbers: {int(lacking.sum())} trades are missing, in {int((lacking > 0).sum())} places",)
