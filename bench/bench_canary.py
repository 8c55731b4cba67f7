"""Take a day of decisions through gate, shadow and the five phases of a canary under a virtual clock, twice.

A day of 86,400 one-second decisions of the synthetic market, and the five recorded BAC sessions (117,000). Timed is what a
canary adds to a trained model: gate, comparison of every decision with the baseline, and the run over the whole window with every
event in an SQLite ledger; training before it is not. Both runs must end on the same head.

Learnt: hashing each decision's place with the plan's digest computed anew took 19 s, once 0.2 s; a ledger read before and
after each append cost more than the append, and the ledger's own "has anything been appended since" makes both unnecessary.
Stepping the machine at 600 polls is 0.1 s; what remains is one synced append a poll, and the fold of the features.

    python bench/bench_canary.py [--data ../shared/data/lean_tick]
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from probatum.adapters.importers import read_files
from probatum.cli.data import parse_options, store_recording
from probatum.cli.workspace import Workspace
from probatum.core.clock import NS_PER_DAY, NS_PER_S, VirtualClock
from probatum.core.verdict import Provenance, Verdict
from probatum.market.synth import record_synthetic
from probatum.pipeline.canary import make_plan, open_s, prove_run, rate_of, record_of, replay_run, spread, window_of
from probatum.pipeline.gate import run_gate
from probatum.pipeline.replay import TapeFeed, read_tape
from probatum.pipeline.rollout import LedgerEffects, Rollout, accept
from probatum.pipeline.smoke import SmokeRun, record_smoke
from probatum.pipeline.training import TrainingPlan, train
from probatum.rollout.confirm import build_phrase
from probatum.rollout.events import Confirmed, DryRunDone, PreflightDone
from probatum.rollout.machine import required_permission
from probatum.rollout.policy import shipped_policy

BOUND_S = 10.0


class Quiet:
    def step(self, description: str, done: int, total: int) -> None: ...


def requests() -> bytes:
    """Return a thousand request latencies as a smoke test stores them (of 1 to 9 ms), so that no engine need run."""
    rng = np.random.default_rng(7)
    frame = pl.DataFrame(
        {
            "intended_ns": np.arange(1_000) * 2_000_000,
            "latency_ns": (rng.uniform(1.0, 9.0, 1_000) * 1e6).astype(np.int64),
            "status": np.full(1_000, 200),
            "score": rng.uniform(0.0, 1.0, 1_000),
        }
    )
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


def run(
    root: Path, symbol: str, model: str, clock: VirtualClock, *, days: int
) -> tuple[str, dict[str, float], int, str]:
    """Return head, seconds by part, decisions and stage of one run in a workspace that holds the trained model."""
    space, took = Workspace(root, clock), dict[str, float]()
    began = time.perf_counter()
    run_gate(space.ledger, space, model)
    took["gate"] = time.perf_counter() - began
    metrics = b"# TYPE ml_predict_requests_total counter\nml_predict_requests_total %d\n"
    smoke = SmokeRun("m", "m", "2024-01-01T00:00:00Z", 500.0, requests(), metrics % 0, metrics % 1_000, model)
    record_smoke(smoke, Provenance.SYNTHETIC, space.ledger, space)
    dataset = space.datasets.load(symbol)
    _, end_ns = window_of(space, model, dataset)
    start_ns = end_ns - days * NS_PER_DAY
    recording = record_of(space, model, dataset, start_ns, end_ns)
    start_ns, _ = recording.span
    began = time.perf_counter()
    tape = read_tape(space, model, recording)
    policy = spread(shipped_policy("default"), open_s(dataset, start_ns, end_ns))
    plan = make_plan(space, model, policy, rate_per_s=rate_of(dataset))
    feed = TapeFeed(tape, plan, "shadow")
    feed.set_share(100, start_ns)
    compared = feed.counts(end_ns)
    assert compared.attempts == len(tape)
    took["shadow"] = time.perf_counter() - began
    began = time.perf_counter()
    rollout = Rollout(space.ledger, space, plan.name)
    rollout.open(plan, start_ns)
    accept(rollout.apply(PreflightDone(start_ns, Verdict.PASS, "bench", dataset.provenance)))
    accept(rollout.apply(DryRunDone(start_ns, Verdict.PASS, "bench", plan.digest, start_ns)))
    phrase = build_phrase(required_permission(plan, rollout.state, start_ns))
    effects = LedgerEffects(
        prove_run=lambda r, effect: prove_run(r, effect, recording=recording, tape=tape) and None,
        tag_source=lambda r, kind: None,  # noqa: ARG005
        tell=lambda text: None,  # noqa: ARG005
    )
    state = replay_run(rollout, recording, tape, Confirmed(start_ns, phrase, "demo"), effects)
    prove_run(rollout, recording=recording, tape=tape)
    took["canary"] = time.perf_counter() - began
    return space.ledger.head(), took, len(tape), f"{state.stage.value} {state.reason}"


def measure(name: str, prepare: object, symbol: str, plan: TrainingPlan, days: int) -> bool:
    """Print one row: decisions, seconds by part, total of the better run, whether both heads agree."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "trained"
        space = Workspace(root, VirtualClock(0))
        store_recording(space, prepare)  # type: ignore[arg-type]
        model = train(space.ledger, space, plan, Quiet()).digest
        results = []
        for number in range(2):
            copy = Path(folder) / str(number)
            shutil.copytree(root, copy)
            results.append(run(copy, symbol, model, VirtualClock(0), days=days))
    totals = [sum(took.values()) for _, took, _, _ in results]
    _, took, decisions, stage = results[totals.index(min(totals))]
    same = results[0][0] == results[1][0]
    reached = min(totals) <= BOUND_S and same
    parts = " ".join(f"{took[part]:>8.2f}" for part in ("gate", "shadow", "canary"))
    heads = "same head" if same else "HEADS DIFFER"
    print(
        f"{name:<12}{decisions:>10,} {parts} {min(totals):>8.2f}   {heads}   {'reached' if reached else 'NOT REACHED'}   {stage}"
    )
    return reached


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "lean_tick")
    options = parser.parse_args()
    print(
        f"{'':<12}{'decisions':>10} {'gate s':>8} {'shadow s':>8} {'canary s':>8} {'all s':>8}   (all <= {BOUND_S:g} s)"
    )
    synthetic = TrainingPlan(
        symbols=("SYN",), name="robust", set="robust", target="large_move@60s", model="logistic", grid_ns=60 * NS_PER_S
    )
    reached = [measure("synthetic", record_synthetic(days=14, seed=7), "SYN", synthetic, 1)]
    files = sorted(options.data.rglob("*.zip"))
    if files:
        book = TrainingPlan(
            symbols=("BAC",), name="book", set="book", target="direction@10s:drop-unchanged", model="logistic",
            grid_ns=NS_PER_S, by="session",
        )  # fmt: skip
        recording = read_files("lean", files, parse_options((), (), symbol="BAC"))
        reached.append(measure("BAC", recording, "BAC", book, 6))
    else:
        print(f"BAC: not measured: no recorded sessions at {options.data}")
    raise SystemExit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
