"""Hurt real services under load, on a ledger of their own, and time how long a model's influence outlives each fault."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from probatum.adapters.ledger import SqliteLedger
from probatum.adapters.load import Reply, http_post, open_loop
from probatum.adapters.processes import service
from probatum.core.clock import NS_PER_S, SystemClock
from probatum.core.errors import BlockedError
from probatum.core.verdict import Provenance
from probatum.features.sets import get_feature_set
from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, FixedModel, ReferenceBins
from probatum.pipeline.control import publish
from probatum.pipeline.drill import Drilled
from probatum.pipeline.ports import Progress
from probatum.rollout.choose import Mode, Route
from probatum.rollout.lease import RolloutDocument

FAULTS = ("abort", "engine_stopped", "ledger_lost")
RATE_PER_S = 50.0
BEFORE_S, AFTER_S = 0.8, 1.8
WAIT_S = 20.0


def drill(executors: int, progress: Progress) -> list[Drilled]:
    """Gate some executors at share 1 and inject each fault once: an abort, an engine that ends, a ledger out of reach."""
    found = []
    for done, fault in enumerate(FAULTS):
        progress.step("drill", done, len(FAULTS))
        found.append(_one(fault, executors))
    progress.step("drill", len(FAULTS), len(FAULTS))
    return found


def _one(fault: str, executors: int) -> Drilled:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        artifact = folder / "model.json"
        artifact.write_bytes(_artifact().to_bytes())
        root = folder / "workspace"
        ledger = SqliteLedger(root / "ledger.db", SystemClock())
        running = stack.enter_context(ExitStack())
        engine = running.enter_context(service(["engine", "--artifact", str(artifact), "--port", "0"]))
        options = ["--workspace", str(root), "--rollout", "--champion", engine, "--engine", engine, "--no-log"]
        urls = [stack.enter_context(service(["executor", "--port", "0", *options])) for _ in range(executors)]
        _wait(urls, _put(ledger, 1.0))
        injections: dict[str, Callable[[], object]] = {
            "abort": lambda: _put(ledger, 0.0),
            "engine_stopped": running.close,
            "ledger_lost": lambda: ledger.path.rename(ledger.path.with_suffix(".away")),
        }
        began, replies = asyncio.run(_under_load(urls, injections[fault]))
    by_model = [at for at, route in replies if route == Route.CHAMPION]
    return Drilled(
        fault=fault,
        replies=len(replies),
        by_model=sum(at < began for at in by_model),
        failed=sum(route == "" for _, route in replies),
        zero_after_ms=round(max(0, max(by_model, default=began) - began) / 1e6, 3),
    )


async def _under_load(urls: list[str], inject: Callable[[], object]) -> tuple[int, list[tuple[int, str]]]:
    sending = [asyncio.create_task(_load(url)) for url in urls]
    await asyncio.sleep(BEFORE_S)
    began = time.perf_counter_ns()
    await asyncio.get_running_loop().run_in_executor(None, inject)
    return began, [reply for task in sending for reply in await task]


async def _load(url: str) -> list[tuple[int, str]]:
    """Send decisions at a fixed rate; return when each reply was in (monotonic ns), and who had decided ("": nobody)."""
    at, count, now = urlsplit(url), int(RATE_PER_S * (BEFORE_S + AFTER_S)), time.time_ns()
    snapshot = '{"snapshot":{"ts":0,"mid":%d,"spreadBp":1,"vol1m":1e6,"rsi14":55},"as_of":%d}'
    bodies = [(snapshot % (40_000 + i, now + int(i / RATE_PER_S * NS_PER_S))).encode() for i in range(count)]
    host, port = at.hostname or "", at.port or 0
    requests = [http_post(host, port, "/predict-with-shadow", body) for body in bodies]
    began = time.perf_counter_ns()
    replies = await open_loop(host, port, requests, rate_per_s=RATE_PER_S, connections=4)
    return [(began + reply.intended_ns + reply.latency_ns, _route(reply)) for reply in replies]


def _route(reply: Reply) -> str:
    return str(json.loads(reply.body)["route"]) if reply.status == 200 else ""


def _put(ledger: SqliteLedger, share: float) -> int:
    document = RolloutDocument(mode=Mode.GATED, share=share, plan="drill", run="drill#1")
    return publish(ledger, document, subject="drill", provenance=Provenance.SYNTHETIC)[-1].seq


def _wait(urls: list[str], sequence: int) -> None:
    """Wait until every executor acknowledges a document; BlockedError where one does not."""
    deadline = time.monotonic() + WAIT_S
    for url in urls:
        while True:
            with urllib.request.urlopen(f"{url}/health", timeout=WAIT_S) as reply:
                if json.loads(reply.read())["sequence"] >= sequence:
                    break
            if time.monotonic() > deadline:
                raise BlockedError(f"{url} did not take up the rollout document within {WAIT_S:g} s")
            time.sleep(0.01)


def _artifact() -> Artifact:
    """Return the seed's fixed model, scaled so that it does not saturate: a drill is about the machinery, not the model."""
    features = get_feature_set("v1.8-b0")
    bins = ReferenceBins((0.0,), (10, 10), 0, 10, ((5, 5, 0), (5, 5, 0)))
    start = "2024-01-01T00:00:00Z"
    return Artifact(
        name="v1.8-b0",
        model=FixedModel((-3.0, 0.00001, -0.02, 0.000001, 0.01, 0.0002)),
        features=FeatureSpec(features.name, features.names, features.fingerprint),
        target="direction@60s",
        grid_ns=None,
        reference=dict.fromkeys(features.names, bins),
        split={},
        seed=7,
        versions={},
        metrics={},
        data=DataSpec(("X",), ("0" * 64,), Provenance.SYNTHETIC, 20, start, start),
    )
