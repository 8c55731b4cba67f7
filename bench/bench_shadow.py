"""Measure what a mirrored shadow adds to the baseline's reply: p99 and CPU, with the engine well, stalled and dead.

One executor process a case, all alive at once; each round sends every case the same distinct requests, open loop at 300 a
second, latency from the intended send time. CPU is the executor's own (all threads, /proc schedstat). Ratios are medians over
rounds of the same round's baseline, so that a noisy machine hits both sides.

Learnt: at low rates the cost is wake-ups, not Python. A request that wakes an idle process costs 240 to 270 µs here, against 37
saturated, and each answer of the engine wakes it once more: batches of 50 ms instead of 10, riding on a request's own wake-up,
took the mirror from 1.19 wake-ups a request to .98, the baseline's own .96 (docs/decisions/0071). What the mirror adds in
instructions shows with --saturate.

    python bench/bench_shadow.py [--rounds 7] [--seconds 4] [--rate 300] [--cases mirror,dead] [--saturate]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from probatum.adapters.load import http_post, open_loop

SNAPSHOT = '{"snapshot":{"ts":%d,"mid":%r,"spreadBp":%r,"vol1m":%r,"rsi14":%r}}'


class Service:
    """A `probatum` process and its CPU time."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "probatum.cli.main", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise SystemExit(f"{arguments} did not start")

    def cpu_ns(self) -> int:
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)


def bodies(count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [
        (SNAPSHOT % (i, rng.uniform(4e4, 5e4), rng.uniform(0, 12), rng.uniform(0, 2e7), rng.uniform(5, 95))).encode()
        for i in range(count)
    ]


async def one_round(service: Service, seed: int, seconds: float, rate: float) -> tuple[float, float]:
    """Return (p99 in µs, CPU µs a request)."""
    requests = [
        http_post("127.0.0.1", service.port, "/predict-with-shadow", body) for body in bodies(int(rate * seconds), seed)
    ]
    before = service.cpu_ns()
    replies = await open_loop("127.0.0.1", service.port, requests, rate_per_s=rate, connections=8)
    cpu = service.cpu_ns() - before
    if any(reply.status != 200 for reply in replies):
        raise SystemExit("a decision was not answered")
    latencies = sorted(reply.latency_ns for reply in replies)
    return latencies[int(0.99 * len(latencies))] / 1e3, cpu / len(replies) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--cases", default="mirror,mirror+log,stalled,dead,await")
    parser.add_argument("--saturate", action="store_true", help="closed loop with wrk instead of open loop")
    parser.add_argument("--artifact", type=Path, help="a v1.8-b0 artifact; default: the seed's weights")
    options = parser.parse_args()
    stalled = socket.create_server(("127.0.0.1", 0))
    with tempfile.TemporaryDirectory() as folder:
        path = options.artifact or seed_artifact(Path(folder) / "model.json")
        engine = Service("engine", "--artifact", str(path), "--port", "0")
        well = ("--engine", f"http://127.0.0.1:{engine.port}")
        known = {
            "mirror": (*well, "--no-log"),
            "mirror+log": (*well, "--log", f"{folder}/log"),
            "stalled": ("--engine", f"http://127.0.0.1:{stalled.getsockname()[1]}", "--no-log"),
            "dead": ("--engine", "http://127.0.0.1:9", "--no-log"),
            "await": (*well, "--no-log", "--delivery", "await"),
        }
        cases = {"baseline": ("--mode", "off", "--no-log")} | {name: known[name] for name in options.cases.split(",")}
        running = {name: Service("executor", "--port", "0", *arguments) for name, arguments in cases.items()}
        try:
            if options.saturate:
                saturate(running, options.rounds, options.seconds, Path(folder))
            else:
                report(cases, asyncio.run(rounds(running, options.rounds, options.seconds, options.rate)))
        finally:
            for service in (*running.values(), engine):
                service.process.send_signal(signal.SIGTERM)
                service.process.wait()


async def rounds(
    running: dict[str, Service], count: int, seconds: float, rate: float
) -> dict[str, list[tuple[float, float]]]:
    for service in running.values():
        await one_round(service, 0, 1.0, rate)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    names = list(running)
    for number in range(count):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            results[name].append(await one_round(running[name], number + 1, seconds, rate))
    return results


def report(cases: dict[str, tuple[str, ...]], results: dict[str, list[tuple[float, float]]]) -> None:
    print(f"{'':<12}{'median of rounds (ratio, added: within a round)':>48}{'best round':>24}")
    print(
        f"{'case':<12}{'p99 µs':>10}{'p99 ratio':>12}{'CPU µs':>10}{'added µs':>12}{'p99 µs':>12}{'CPU µs':>12}  (1.10, 10)"
    )
    for name in cases:
        pairs = list(zip(results[name], results["baseline"], strict=True))
        print(
            f"{name:<12}{statistics.median(p99 for (p99, _), _ in pairs):>10.0f}"
            f"{statistics.median(p99 / base for (p99, _), (base, _) in pairs):>12.2f}"
            f"{statistics.median(cpu for (_, cpu), _ in pairs):>10.1f}"
            f"{statistics.median(cpu - base for (_, cpu), (_, base) in pairs):>12.1f}"
            f"{min(p99 for (p99, _), _ in pairs):>12.0f}{min(cpu for (_, cpu), _ in pairs):>12.1f}"
        )


LUA = """wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
local bodies, i = {%s}, 0
request = function() i = i %% #bodies + 1; return wrk.format(nil, nil, nil, bodies[i]) end
"""


def saturate(running: dict[str, Service], count: int, seconds: float, folder: Path) -> None:
    """Drive each case as fast as it answers, 500 distinct rows; print CPU a request and requests a second."""
    script = folder / "post.lua"
    script.write_text(LUA % ",".join(json.dumps(body.decode()) for body in bodies(500, 3)))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    for _ in range(count):
        for name, service in running.items():
            before = service.cpu_ns()
            url = f"http://127.0.0.1:{service.port}/predict-with-shadow"
            command = ["wrk", "-t1", "-c4", f"-d{max(1, round(seconds))}", "-s", str(script), url]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            done = int(re.findall(r"(\d+) requests in", out)[0])
            rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0])
            found[name].append(((service.cpu_ns() - before) / done / 1e3, rate))
    base_cpu, base_rate = min(cpu for cpu, _ in found["baseline"]), max(rate for _, rate in found["baseline"])
    print(
        f"{'case':<12}{'CPU µs':>9}{'added µs':>10}{'req/s':>9}{'ratio':>7}   (best of {count} interleaved rounds, saturated)"
    )
    for name, pairs in found.items():
        cpu, rate = min(cpu for cpu, _ in pairs), max(rate for _, rate in pairs)
        print(f"{name:<12}{cpu:>9.1f}{cpu - base_cpu:>10.1f}{rate:>9.0f}{rate / base_rate:>7.2f}")


def seed_artifact(path: Path) -> Path:
    """Write the seed's fixed model as an artifact."""
    from probatum.core.verdict import Provenance
    from probatum.features.sets import get_feature_set
    from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, FixedModel, ReferenceBins

    feature_set = get_feature_set("v1.8-b0")
    bins = ReferenceBins((0.0,), (10, 10), 0, 10, ((5, 5, 0), (5, 5, 0)))
    artifact = Artifact(
        name="v1.8-b0", model=FixedModel((-3.0, 0.0004, -0.02, 0.00003, 0.01, 0.0002)),
        features=FeatureSpec("v1.8-b0", feature_set.names, feature_set.fingerprint), target="direction@60s", grid_ns=None,
        reference=dict.fromkeys(feature_set.names, bins), split={}, seed=7, versions={}, metrics={},
        data=DataSpec(("X",), ("0" * 64,), Provenance.SYNTHETIC, 20, "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"),
    )  # fmt: skip
    path.write_bytes(artifact.to_bytes())
    return path


if __name__ == "__main__":
    main()
