"""Compare the feature kernel with the same features in polars expressions, and time one online update.

Run: ``python bench/bench_features.py [BARS.csv]`` (headered ``datetime,open,high,low,close,volume``; without a file, a random
walk of a month), and after it a random walk of a year. Both sides start from arrays in memory, and must agree to 1e-9 and on
readiness, on these bars and on the same with holes in them, before anything is timed. Rounds are interleaved; ratios are medians
over rounds, of wall time and of CPU time: the kernel runs on one thread, polars on all cores that it finds.

polars is given twice: the whole definition (holes filled, breaks, Wilder's seed, readiness), and the shortcut that an expert
may take when the file is known to have no hole, which is a smaller task.

Learnt on the way. (1) numba counts references to array arguments wherever a function has several exits; kernels allocate
nothing, so they are compiled without its runtime: 57 instead of 108 ns a row. (2) A call that is not inlined passes each array
as seven arguments; with the functions of the common path compiled into their callers, 32 instead of 43 ns. (3) log1p costs 8 ns
more than a logarithm and a correction, and two logarithms of returns 6 ns more than two short series. (4) Computing the sums
anew every hour cost 24 ns a row, every four hours 7, of which Wilder's chain of 420 steps is 4. (5) Right after polars, with cold
caches, the kernel takes 4 ns a row more than alone. (6) Online, nine tenths of the time are the call from Python: its eight
arguments, not the arithmetic; so settings travel inside the state. (7) Delete numba's cache when only its options change: it is
keyed by the source file. (8) polars 2.1 is far quicker than what was measured before we started (0.8 to 1.2 µs a row); on a year
its threads pay more than on a month: the ratio of wall times is lower there.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from probatum.features.fold import fold
from probatum.features.sets import get_feature_set
from probatum.features.state import FeatureState
from probatum.market.events import BAR, Events

FEATURES = get_feature_set("v1.8.1", frozenset({"volume"}))
MONTH, YEAR = 44_641, 525_600


def walk(rows: int) -> pl.DataFrame:
    """Return a random walk in the form of :func:`bars`."""
    rng = np.random.default_rng(7)
    close = 42_000 * np.exp(np.cumsum(rng.normal(0, 5e-4, rows)))
    ts = 1_704_067_200_000_000_000 + 60_000_000_000 * np.arange(1, rows + 1)
    return pl.DataFrame({"ts": ts, "mid": close, "volume": rng.lognormal(3, 1, rows)})


def bars(path: Path) -> pl.DataFrame:
    """Return minute closes and volumes, with the time in ns at the close."""
    frame = pl.read_csv(path, try_parse_dates=True)
    ts = frame["datetime"].dt.replace_time_zone("UTC").dt.epoch("ns") + 60_000_000_000
    return pl.DataFrame({"ts": ts, "mid": frame["close"], "volume": frame["volume"]})


def shortcut(frame: pl.LazyFrame) -> pl.DataFrame:
    """Compute the columns of a file that is known to have no hole: one select, no Python function in it."""
    mid, change = pl.col("mid"), pl.col("mid").diff()
    up = change.clip(lower_bound=0.0).ewm_mean(alpha=1 / 14, adjust=False)
    down = (-change).clip(lower_bound=0.0).ewm_mean(alpha=1 / 14, adjust=False)
    return frame.select(
        bias=pl.lit(1.0),
        mid_logret_1m=mid.log().diff(1),
        mid_logret_5m=mid.log().diff(5),
        vol1m_log=pl.col("volume").log1p(),
        rsi14_z=(100.0 * up / (up + down) - 50.0) / 30.0,
        zscore_mid_24h=zscore(mid),
    ).collect()


def zscore(mid: pl.Expr) -> pl.Expr:
    return (mid - mid.rolling_mean(1440, min_samples=360)) / (mid.rolling_std(1440, min_samples=360) + 1e-8)


def definition(frame: pl.LazyFrame) -> pl.DataFrame:
    """Compute the set as it is defined: up to five silent minutes carried, nothing across a longer one, and readiness."""
    minute = (pl.col("ts") - 1) // 60_000_000_000
    first, last = frame.select(first=minute.min(), last=minute.max()).collect().row(0)
    grid = pl.LazyFrame({"minute": pl.int_range(first, last + 1, eager=True)})
    filled = (
        grid.join(frame.with_columns(minute=minute), on="minute", how="left", maintain_order="left")
        .with_columns(pl.col("mid").forward_fill(limit=5), pl.col("volume").fill_null(0.0))
        .filter(pl.col("mid").is_not_null())
        .with_columns(
            start=pl.when(pl.col("minute").diff() != 1).then(pl.col("minute")).forward_fill().fill_null(first)
        )
        .with_columns(since=pl.col("minute") - pl.col("start") + 1)
    )
    mid, since = pl.col("mid"), pl.col("since")
    change = pl.when(since > 1).then(mid.diff())

    def wilder(side: pl.Expr) -> pl.Expr:
        seeded = pl.when(since > 15).then(side).when(since == 15).then(side.rolling_mean(14))
        return seeded.ewm_mean(alpha=1 / 14, adjust=False, ignore_nulls=True).over("start")

    up, down = wilder(change.clip(lower_bound=0.0)), wilder((-change).clip(lower_bound=0.0))
    columns = filled.select(
        "ts",
        bias=pl.lit(1.0),
        mid_logret_1m=pl.when(since > 1).then(mid.log().diff(1)),
        mid_logret_5m=pl.when(since > 5).then(mid.log().diff(5)),
        vol1m_log=pl.col("volume").log1p(),
        rsi14_z=(100.0 * up / (up + down) - 50.0) / 30.0,
        zscore_mid_24h=zscore(mid),
        ready=(since >= 15) & (pl.int_range(pl.len()) >= 359),
    )
    return columns.filter(pl.col("ts").is_not_null()).collect()


def with_holes(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the bars without some: short holes that are carried, and long ones that are breaks."""
    rng, keep = np.random.default_rng(7), np.ones(frame.height, dtype=bool)
    for length in (*[1] * 200, *rng.integers(2, 40, 20)):
        start = rng.integers(1, frame.height)
        keep[start : start + length] = False
    return frame.filter(keep)


def events_of(frame: pl.DataFrame) -> Events:
    n = frame.height
    values = np.column_stack([frame["mid"], np.full(n, np.nan), frame["volume"], np.zeros(n)])
    return Events(frame["ts"].to_numpy(), np.full(n, BAR, dtype=np.int8), values)


def agree(frame: pl.DataFrame, other: pl.DataFrame) -> int:
    """Stop unless both sides say the same; return how many rows were compared."""
    ours = fold(FEATURES, events_of(frame))
    if "ready" in other.columns:
        np.testing.assert_array_equal(other["ready"].to_numpy(), ours.ready)
    for j, name in enumerate(FEATURES.names):
        theirs = np.broadcast_to(other[name].to_numpy(), len(ours))[ours.ready]
        np.testing.assert_allclose(ours.values[ours.ready, j], theirs, rtol=1e-9, atol=1e-9, err_msg=name)
    return int(ours.ready.sum())


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds; the CPU seconds are those of all threads of this process."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def online(rows: list[tuple[int, float, float]]) -> Callable[[], None]:
    def work() -> None:
        update = FeatureState(FEATURES, None).update
        for ts, mid, volume in rows:
            update(ts, BAR, mid, float("nan"), volume, 0.0)

    return work


def compare(title: str, frame: pl.DataFrame, rounds_count: int) -> None:
    """Check that all sides agree on these bars, then print what each takes."""
    n, events = frame.height, events_of(frame)
    ready = agree(frame, shortcut(frame.lazy()))
    agree(frame, definition(frame.lazy()))
    agree(with_holes(frame), definition(with_holes(frame).lazy()))
    live = online(list(frame.rows()))
    live()
    works = (
        lambda: fold(FEATURES, events),
        lambda: definition(frame.lazy()),
        lambda: shortcut(frame.lazy()),
        live,
    )
    rounds = [[timed(work) for work in works] for _ in range(rounds_count)]
    print(
        f"{title}: rows {n}, ready {ready}: {len(FEATURES.names)} columns equal to 1e-9, readiness equal, with holes too"
    )
    for kind, name in enumerate(("wall", "CPU")):
        batch, whole, short, single = (
            statistics.median(times[kind] for times in column) / n * 1e6 for column in zip(*rounds, strict=True)
        )
        ratios = [statistics.median(row[k][kind] / row[0][kind] for row in rounds) for k in (1, 2)]
        print(
            f"{name:<4} µs/row: kernel {batch:.3f}; polars, whole definition {whole:.3f}, no-hole shortcut {short:.3f}"
        )
        print(f"     ratio: {ratios[0]:.1f} x the whole definition (wanted >= 7), {ratios[1]:.1f} x the shortcut")
    print(f"online µs/update: {single:.3f} (wanted <= 1.5)")


def main() -> None:
    if len(sys.argv) > 1:
        compare(Path(sys.argv[1]).name, bars(Path(sys.argv[1])), 31)
    else:
        compare("random walk of a month", walk(MONTH), 31)
    compare("random walk of a year", walk(YEAR), 9)


if __name__ == "__main__":
    main()
