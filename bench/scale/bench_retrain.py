"""Retrain on one-second quotes, one model of each symbol: features, labels, training and drift, in one process and on Dask.

Printed for three sizes are rows of quotes, seconds by part, CPU seconds per million rows and the peak of resident memory, these
two over all processes that took part; on a machine with other work the CPU seconds are the figure to go by.
Both engines must write the same chain. Each run is a process of its own, so that one's memory is not another's; the markets are
synthetic and made beforehand. One symbol is in memory at a time, on Dask one for each worker.

    python bench/scale/bench_retrain.py            1, 2 and 4 symbols, 3 days: a minute or two
    python bench/scale/bench_retrain.py --full     5, 10 and 20 symbols, 14 days: 24 million rows
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probatum.adapters.dask import DaskMapper
from probatum.adapters.store import ParquetStore
from probatum.cli.scale import mapper_of
from probatum.cli.workspace import Workspace
from probatum.core.clock import NS_PER_S, VirtualClock
from probatum.market.synth import synthesise
from probatum.pipeline.drift import snapshot_each
from probatum.pipeline.ports import Mapper
from probatum.pipeline.training import TrainingPlan, train_each

WORKERS = 2


def peak_mb() -> float:
    """Return the largest resident memory that this process ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def everywhere(mapper: Mapper, function: Callable[[], float]) -> float:
    """Return the sum of what a function says in this process and in every worker."""
    there = mapper._client.run(function).values() if isinstance(mapper, DaskMapper) else ()
    return function() + sum(there)


def retrain(root: Path, symbols: list[str], engine: str) -> dict[str, Any]:
    """Train and judge in an empty ledger; return seconds, memory and where the chain ended."""
    space = Workspace(root, VirtualClock())
    plan = TrainingPlan(
        symbols=tuple(symbols), set="robust", target="large_move@60s", model="logistic", name="m", grid_ns=NS_PER_S
    )
    with mapper_of(engine, None, WORKERS if engine == "dask" else None) as mapper:
        cpu_s, began = everywhere(mapper, time.process_time), time.perf_counter()
        digests = [trained.digest for trained in train_each(space.ledger, space, plan, mapper)]
        trained = time.perf_counter()
        list(snapshot_each(space.ledger, space, digests, window="test", mapper=mapper))
        ended = time.perf_counter()
        return {
            "train_s": trained - began,
            "drift_s": ended - trained,
            "cpu_s": everywhere(mapper, time.process_time) - cpu_s,
            "peak_mb": everywhere(mapper, peak_mb),
            "head": space.ledger.head(),
        }


def measured(data: Path, symbols: list[str], engine: str) -> dict[str, Any]:
    """Run :func:`retrain` in a fresh process, on a fresh workspace over the same data."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").symlink_to(data)
        command = [sys.executable, __file__, "--one", folder, engine, *symbols]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(sizes: tuple[int, ...], days: int) -> bool:
    """Print a line for each size and engine; return whether all chains agree."""
    with tempfile.TemporaryDirectory() as folder:
        data, same = Path(folder), True
        symbols = [f"S{number:02}" for number in range(max(sizes))]
        for seed, symbol in enumerate(symbols):
            ParquetStore(data).save(synthesise(days=days, seed=seed, symbol=symbol))
        print(
            f"{'rows':>12} {'symbols':>8} {'engine':>7} {'train s':>8} {'drift s':>8} {'CPU s per 1e6':>14} {'peak MB':>8}"
        )
        for size in sizes:
            rows, heads = size * days * 86_400, set()
            for engine in ("serial", "dask"):
                found = measured(data, symbols[:size], engine)
                heads.add(found["head"])
                print(
                    f"{rows:12,} {size:8} {engine:>7} {found['train_s']:8.1f} {found['drift_s']:8.1f} "
                    f"{found['cpu_s'] / rows * 1e6:14.2f} {found['peak_mb']:8,.0f}",
                    flush=True,
                )
            same &= len(heads) == 1
        print("the chains of both engines are", "the same, byte for byte" if same else "DIFFERENT")
    return same


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, engine, *symbols = options.one
        print(json.dumps(retrain(Path(folder), symbols, engine)))
        return
    if not compare(*(((5, 10, 20), 14) if options.full else ((1, 2, 4), 3))):
        sys.exit(1)


if __name__ == "__main__":
    main()
