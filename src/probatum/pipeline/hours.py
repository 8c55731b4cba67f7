"""Cut the decision log into hours, each kept once as a blob and counted once: what every report and snapshot adds up.

An hour is named by its digest, so hourly drift, daily report and weekly summary share one copy, and a verifier counts
from the same bytes. Counts are integers and merge; rates are derived from their sums.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import msgspec
import polars as pl

from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_MS, format_utc
from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance
from probatum.monitoring.latency import LatencySketch
from probatum.monitoring.shadow import MATCH_DELTA, Outcome
from probatum.pipeline.ports import Blobs, Decisions
from probatum.rollout.criteria import SMOKE_SLOW_MS

KEPT = (
    "ts", "symbol", "route", "baseline", "champion", "champion_outcome", "challenger", "outcome", "shadow_ns",
    "fingerprint", "provenance",
)  # fmt: skip
FEATURE = "f_"
COUNTS = (
    "total_predictions", "model_calls", "model_errors", "timed_calls", "slow_calls", "shadow_attempts",
    "shadow_matches", "shadow_mismatches", "shadow_errors",
)  # fmt: skip
SYMBOLS_MAX = 20
_KEEP_NS = 8 * NS_PER_DAY
_CALLED = (Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT, Outcome.NAN)
_NOT_DUE = (Outcome.SKIPPED.value, "not_in_share")
_OK = Outcome.OK.value

Pieces = list[dict[str, str]]
"""What a record's inputs hold: {"decisions": digest} of each hour that had any, in time order."""


class Hour(msgspec.Struct, frozen=True):
    """Hold what happened between ``first_ns`` and ``last_ns`` (of rows): COUNTS, latency buckets, rows by symbol."""

    first_ns: int
    last_ns: int
    provenance: Provenance
    counts: dict[str, int]
    latency: dict[int, int]
    symbols: dict[str, int]


class Hours:
    """Cut hours that are over out of the decision log. Each is read once in a process; another process cuts the same."""

    def __init__(self, decisions: Decisions, blobs: Blobs) -> None:
        self._decisions, self._blobs = decisions, blobs
        self._known: dict[tuple[int, int], str] = {}

    def cut(self, start_ns: int, end_ns: int) -> Pieces:
        """Return the pieces of [start, end); a first or last hour that the span cuts is a piece of its own."""
        spans = list(_spans(start_ns, end_ns))
        missing = [span for span in spans if span not in self._known]
        for _, days in groupby(missing, lambda span: span[0] // NS_PER_DAY):  # a day at a time is in memory
            self._read(list(days))
        self._known = {span: digest for span, digest in self._known.items() if span[1] > end_ns - _KEEP_NS}
        return [{"decisions": digest} for span in spans if (digest := self._known.get(span, ""))]

    def _read(self, spans: Sequence[tuple[int, int]]) -> None:
        frame = self._decisions.read(spans[0][0], spans[-1][1])
        kept = frame.select(*KEPT, *(name for name in frame.columns if name.startswith(FEATURE)))
        for start_ns, end_ns in spans:
            rows = kept.filter(pl.col("ts").is_between(start_ns, end_ns, closed="left"))
            self._known[start_ns, end_ns] = self._blobs.put("decisions", _parquet(rows)) if rows.height else ""


def _spans(start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
    while start_ns < end_ns:
        stop = min(start_ns - start_ns % NS_PER_HOUR + NS_PER_HOUR, end_ns)
        yield start_ns, stop
        start_ns = stop


def _parquet(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out, compression="zstd")
    return out.getvalue()


def read_hours(blobs: Blobs, pieces: Pieces, start_ns: int, end_ns: int) -> list[Hour]:
    """Return the counts of the pieces; IntegrityError names one whose rows are not of this span, or not in order."""
    found, before = [], start_ns
    for piece in pieces:
        hour = _counted(blobs, piece["decisions"])
        if not before <= hour.first_ns <= hour.last_ns < end_ns:
            raise IntegrityError(f"decisions {piece['decisions'][:12]}…", "holds rows of another time than the record")
        found.append(hour)
        before = hour.last_ns + 1
    return found


def provenance_of(hours: Iterable[Hour]) -> Provenance:
    """Return the weakest class; without any decision nothing vouches for more than synthetic."""
    return Provenance.weakest([hour.provenance for hour in hours] or [Provenance.SYNTHETIC])


def totals(hours: Iterable[Hour]) -> dict[str, Any]:
    """Return the sums of COUNTS, and what is derived from them: rates (None where nothing was seen) and latencies."""
    hours = list(hours)
    counts = {name: sum(hour.counts[name] for hour in hours) for name in COUNTS}
    sketch = LatencySketch()
    for hour in hours:
        sketch.merge(hour.latency)
    heard = counts["shadow_matches"] + counts["shadow_mismatches"]
    quantiles = {f"latency_p{q}_ms": sketch.quantile_ms(q / 100) if sketch.count else None for q in (50, 95, 99)}
    return {
        **counts,
        "error_rate": ratio(counts["model_errors"], counts["model_calls"]),
        "slow_rate": ratio(counts["slow_calls"], counts["timed_calls"]),
        "match_rate": ratio(counts["shadow_matches"], heard),
        **quantiles,
    }


def by_hour(hours: Iterable[Hour], start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Return the totals of every hour of a span, those without decisions too: a gap is something to see."""
    found: dict[int, list[Hour]] = {}
    for hour in hours:
        found.setdefault(hour.first_ns - hour.first_ns % NS_PER_HOUR, []).append(hour)
    first = start_ns - start_ns % NS_PER_HOUR
    return [{"hour": format_utc(ts), **totals(found.get(ts, ()))} for ts in range(first, end_ns, NS_PER_HOUR)]


def by_symbol(hours: Iterable[Hour]) -> dict[str, int]:
    """Return decisions by symbol, the SYMBOLS_MAX most frequent; names come from outside, so their number is bounded."""
    found: dict[str, int] = {}
    for hour in hours:
        for symbol, count in hour.symbols.items():
            found[symbol] = found.get(symbol, 0) + count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:SYMBOLS_MAX])


def ratio(part: int, whole: int) -> float | None:
    """Return a share, None of nothing.

    >>> ratio(1, 4), ratio(0, 0)
    (0.25, None)
    """
    return part / whole if whole else None


@lru_cache(maxsize=4096)
def _counted(blobs: Blobs, digest: str) -> Hour:
    rows = read_piece(blobs, digest).with_columns(*_judged()).with_columns(*_marks())
    sums = rows.select(pl.col(name).sum() for name in COUNTS[1:]).row(0)
    sketch = LatencySketch()
    for value in rows.filter(heard=True)["shadow_ns"].drop_nulls().to_list():
        sketch.add(value)
    symbols = rows["symbol"].value_counts()
    return Hour(
        int(rows["ts"][0]),
        int(rows["ts"][-1]),
        Provenance.weakest(map(Provenance, rows["provenance"].unique().to_list())),
        {COUNTS[0]: rows.height, **dict(zip(COUNTS[1:], map(int, sums), strict=True))},
        sketch.counts(),
        dict(zip(symbols["symbol"].to_list(), symbols["count"].to_list(), strict=True)),
    )


def read_piece(blobs: Blobs, digest: str) -> pl.DataFrame:
    """Return the rows of a piece; IntegrityError where it is no Parquet of decisions."""
    try:
        rows = pl.read_parquet(io.BytesIO(blobs.get("decisions", digest)))
        missing = set(KEPT) - set(rows.columns)
    except pl.exceptions.PolarsError as error:
        raise IntegrityError(f"decisions {digest[:12]}…", f"not Parquet: {error}") from None
    if missing or not rows.height or not rows["ts"].is_sorted():
        raise IntegrityError(f"decisions {digest[:12]}…", "not a piece of a decision log")
    return rows


def _judged() -> Iterator[pl.Expr]:
    """Yield outcome, score and lateness of the model that is judged: in ``gated`` the champion, within its budget."""
    gated = pl.col("champion_outcome") != ""
    yield pl.when(gated).then("champion_outcome").otherwise("outcome").alias("ended")
    yield pl.when(gated).then("champion").otherwise("challenger").alias("score")
    yield pl.when(gated).then(0).otherwise(pl.col("shadow_ns").fill_null(0)).alias("late_ns")


def _marks() -> Iterator[pl.Expr]:
    """Yield what each decision counts as. The same samples as those that executors count for a rollout."""
    ended = pl.col("ended")
    due, heard = ~ended.is_in(_NOT_DUE), ended == _OK
    called = due & ended.is_in([outcome.value for outcome in _CALLED])
    timed = due & ended.is_in([_OK, Outcome.TIMEOUT.value])
    match = heard & ((pl.col("baseline") - pl.col("score")).abs() < MATCH_DELTA).fill_null(False)
    marks = {
        "heard": heard,
        "model_calls": called,
        "model_errors": called & ~heard,
        "timed_calls": timed,
        "slow_calls": timed & (~heard | (pl.col("late_ns") > int(SMOKE_SLOW_MS * NS_PER_MS))),
        "shadow_attempts": due,
        "shadow_matches": match,
        "shadow_mismatches": heard & ~match,
        "shadow_errors": due & ~heard,
    }
    return (mark.alias(name) for name, mark in marks.items())
