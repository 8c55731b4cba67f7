"""Measure how long after an abort was decided an executor still lets the challenged model decide: four executors under load.

Gated at share 1, open loop; a controller publishes share 0, and after a while share 1 again. The time of an abort runs from
the moment before its append to the last reply, of any executor, that the model decided before the share came back. Replies
are timed where they are received. Every decision must be answered. The bound is 1 s at p99.

Learnt: see docs/decisions/0092.

    python bench/bench_abort.py [--aborts 50] [--rate 100] [--databases postgres,sqlite]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from probatum.adapters.load import Reply, http_post, open_loop
from probatum.adapters.processes import service
from probatum.cli.workspace import LEDGER_URL, Workspace
from probatum.core.verdict import Provenance
from probatum.pipeline.control import publish
from probatum.rollout.choose import Mode, Route
from probatum.rollout.lease import RolloutDocument

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from postgres import PostgresServer, find_binaries
from seed import write_seed_artifact

EXECUTORS = 4
SETTLE_S = 1.0
BOUND_S = 1.0
FAILED = "failed"


def put(space: Workspace, share: float) -> int:
    document = RolloutDocument(mode=Mode.GATED, share=share, plan="p", run="bench#1")
    return publish(space.ledger, document, subject="bench", provenance=Provenance.SYNTHETIC)[-1].seq


def wait_for(urls: list[str], sequence: int) -> None:
    """Wait until every executor acknowledges a document."""
    for url in urls:
        applied = -1
        while applied < sequence:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
            connection.request("GET", "/health")
            applied = json.loads(connection.getresponse().read())["sequence"]
            connection.close()
            time.sleep(0.005)


async def load(url: str, rate: float, seconds: float) -> list[tuple[int, str]]:
    """Send decisions and return (monotonic ns when the reply was in, who had decided) of each."""
    at, count = urlsplit(url), int(rate * seconds)
    assert at.hostname
    assert at.port
    now = time.time_ns()
    snapshot = '{"snapshot":{"ts":0,"mid":%d,"spreadBp":1,"vol1m":1e6,"rsi14":55},"as_of":%d}'
    bodies = [(snapshot % (40_000 + i % 9_973, now + int(i / rate * 1e9))).encode() for i in range(count)]
    requests = [http_post(at.hostname, at.port, "/predict-with-shadow", body) for body in bodies]
    began = time.perf_counter_ns()
    replies = await open_loop(at.hostname, at.port, requests, rate_per_s=rate, connections=8)
    return [(began + r.intended_ns + r.latency_ns, _route(r)) for r in replies]


def _route(reply: Reply) -> str:
    return str(json.loads(reply.body)["route"]) if reply.status == 200 else FAILED


async def one_abort(space: Workspace, urls: list[str], rate: float) -> tuple[float, int, int]:
    """Return (seconds from the decision to the last reply that the model decided, replies, failed ones)."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, wait_for, urls, put(space, 1.0))
    sending = [asyncio.create_task(load(url, rate, SETTLE_S + 0.6)) for url in urls]
    await asyncio.sleep(0.5)
    decided = time.perf_counter_ns()
    sequence = await loop.run_in_executor(None, put, space, 0.0)
    replies = [reply for task in sending for reply in await task]
    await loop.run_in_executor(None, wait_for, urls, sequence)
    by_model = [at for at, route in replies if route == Route.CHAMPION]
    if not by_model or min(by_model) >= decided:
        raise SystemExit("the model decided nothing before the abort: nothing was measured")
    if max(replies)[1] == Route.CHAMPION:
        raise SystemExit("the model still decided when the load ended: the abort took longer than it was watched")
    seconds = max(0.0, (max(by_model) - decided) / 1e9)
    return seconds, len(replies), sum(route == FAILED for _, route in replies)


@contextmanager
def database(name: str) -> Iterator[None]:
    """Point the ledger of this process and its children at a fresh database."""
    os.environ.pop(LEDGER_URL, None)
    if name == "sqlite":
        yield
        return
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL is not installed; --databases sqlite measures the rest")
    server = PostgresServer(binaries, fsync="on")
    os.environ[LEDGER_URL] = server.url()
    try:
        yield
    finally:
        server.close()


def measure(name: str, aborts: int, rate: float) -> bool:
    """Print the figures of one database and say whether the bound holds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(database(name))
        artifact = write_seed_artifact(folder / "model.json")
        engine = stack.enter_context(service(["engine", "--artifact", str(artifact), "--port", "0"]))
        space = Workspace(folder / "workspace")
        options = ["--workspace", str(space.root), "--rollout", "--champion", engine, "--engine", engine, "--no-log"]
        urls = [stack.enter_context(service(["executor", "--port", "0", *options])) for _ in range(EXECUTORS)]
        results = [asyncio.run(one_abort(space, urls, rate)) for _ in range(aborts)]
    times, failed = sorted(seconds for seconds, _, _ in results), sum(failed for _, _, failed in results)
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    is_reached = p99 <= BOUND_S and not failed
    print(
        f"{name:<10}{len(times):>7}{sum(n for _, n, _ in results):>9}{failed:>8}{times[len(times) // 2] * 1e3:>10.0f}"
        f"{p99 * 1e3:>10.0f}{times[-1] * 1e3:>10.0f}   {'reached' if is_reached else 'NOT REACHED'}"
    )
    return is_reached


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--aborts", type=int, default=50)
    parser.add_argument("--rate", type=float, default=100.0, help="decisions a second and executor")
    parser.add_argument("--databases", default="postgres,sqlite")
    options = parser.parse_args()
    print(
        f"{'':<10}{'aborts':>7}{'replies':>9}{'failed':>8}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}   (p99 <= 1,000)"
    )
    reached = [measure(name, options.aborts, options.rate) for name in options.databases.split(",")]
    if not all(reached):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
