"""Decisions on recorded bars, made by a real executor in this process, logged to Parquet and judged while they happen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from probatum.adapters.decision_log import ParquetDecisionLog
from probatum.adapters.decisions import ParquetDecisions
from probatum.core.clock import NS_PER_MS, VirtualClock
from probatum.core.verdict import Provenance
from probatum.features.events import dataset_events
from probatum.features.fold import kind_of_rows
from probatum.features.labels import parse_target
from probatum.features.state import FeatureState
from probatum.market.dataset import Dataset
from probatum.models.artifact import Artifact, served_set
from probatum.models.baseline import BASELINES, rule_beside
from probatum.models.scoring import compile_scorer
from probatum.rollout.breaker import Breaker, BreakerSettings
from probatum.rollout.lease import RolloutDocument, StaticRollout
from probatum.services.executor import outcomes as live
from probatum.services.executor.caller import Caller
from probatum.services.executor.client import Reply
from probatum.services.executor.decide import Executor, ExecutorSettings
from probatum.services.executor.outcomes import LiveOutcomes
from probatum.services.executor.run import RunMeter
from probatum.services.executor.schema import DecisionRequest, MarketEvent
from probatum.services.executor.shadow import Shadow, ShadowSettings
from probatum.services.http import RequestError
from probatum.services.telemetry.registry import Registry

RUN = "canary#1"


class Engine:
    """Answer like an engine that serves the artifact; ``spoil`` changes a score by its number."""

    is_free = True

    def __init__(self, artifact: Artifact, spoil: Callable[[int, float], float]) -> None:
        self._score, self._spoil, self._n = compile_scorer(artifact), spoil, 0

    async def ask(self, body: bytes, timeout_s: float) -> Reply:  # noqa: ARG002
        self._n += 1
        (row,) = msgspec.json.decode(body)["rows"]
        return Reply(200, msgspec.json.encode({"scores": [self._spoil(self._n, self._score(row))]}))

    def close(self) -> None: ...


@dataclass
class Replayed:
    """Hold what an executor logged, and what it exposed at the end."""

    folder: Path
    registry: Registry
    outcomes: LiveOutcomes

    @property
    def frame(self) -> pl.DataFrame:
        return ParquetDecisions(self.folder).read(0, 1 << 62)


def replay(
    artifact: Artifact,
    dataset: Dataset,
    folder: Path,
    *,
    spoil: Callable[[int, float], float] = lambda _, score: score,
    late_ms: int = 5,
    grid_ns: int | None = None,
) -> Replayed:
    """Feed every event to an executor and decide at each row, ``late_ms`` after it by the executor's clock."""
    feature_set, clock, registry = served_set(artifact.features, "test"), VirtualClock(), Registry()
    log = ParquetDecisionLog(folder, artifact.features, clock)
    outcomes = LiveOutcomes(parse_target(artifact.target), artifact.grid_ns, registry)
    meter = RunMeter(log, registry, Provenance.SYNTHETIC, outcomes)
    caller = Caller(Engine(artifact, spoil), None, Breaker(BreakerSettings()), clock.now_ns)  # type: ignore[arg-type]
    document = RolloutDocument(challenger=artifact.digest, run=RUN)
    executor = Executor(
        feature_set, BASELINES[rule_beside(artifact.target, feature_set.names)],
        Shadow(caller, ShadowSettings(), clock.now_ns, meter, registry), StaticRollout(document), clock=clock,
        now_ns=lambda: 0, registry=registry, run_id="r", settings=ExecutorSettings(delivery="await"),
        new_state=lambda: FeatureState(feature_set, dataset.tick_size), outcomes=outcomes,
    )  # fmt: skip
    meter.follow(lambda: document)
    executor.lease.renew()
    events = dataset_events(dataset, grid_ns=grid_ns)
    row_kind = kind_of_rows(events)
    stream = zip(events.ts.tolist(), events.kind.tolist(), events.values.tolist(), strict=True)

    async def go() -> None:
        joining = asyncio.create_task(outcomes.run())
        batch = []
        for ts, kind, values in stream:
            batch.append(MarketEvent(ts, kind, *(None if value != value else value for value in values)))
            if kind != row_kind:
                continue
            clock.set(ts + late_ms * NS_PER_MS)
            with suppress(RequestError):
                await executor.decide(DecisionRequest(symbol=dataset.symbol, events=batch))
            batch = []
            if ts % (64 * 60_000_000_000) == 0:
                await asyncio.sleep(0)
        while outcomes.backlog:
            await asyncio.sleep(0.01)
        joining.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "PAUSE_S", 0.001)
        asyncio.run(go())
    log.close()
    return Replayed(folder, registry, outcomes)


def count(registry: Registry, name: str, **labels: str) -> float:
    """Return a sample of the exposition; 0 where it is not there."""
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    for line in registry.expose().decode().splitlines():
        found, _, value = line.rpartition(" ")
        if found.split("{")[0] == name and wanted <= set(found.rstrip("}").split("{")[-1].split(",")):
            return float(value)
    return 0.0


def forged(frame: pl.DataFrame, row: int, column: str, value: Any) -> pl.DataFrame:
    """Return the log with one logged value altered."""
    at = pl.Series(range(frame.height)) == row
    return frame.with_columns(pl.when(at).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))
