"""A trained model with all that a canary asks for, in memory and on the clock of its recording."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cache

import msgspec
import numpy as np
import polars as pl

from probatum.core.clock import NS_PER_DAY, NS_PER_S, VirtualClock
from probatum.core.verdict import Provenance
from probatum.market.dataset import Dataset
from probatum.pipeline.canary import make_plan, record_of, spread, window_of
from probatum.pipeline.replay import Recording
from probatum.pipeline.rollout import Rollout
from probatum.pipeline.smoke import SmokeRun, record_smoke
from probatum.pipeline.story import judge
from probatum.pipeline.training import TrainingPlan
from probatum.rollout.plan import Plan, Policy
from probatum.rollout.policy import shipped_policy
from probatum.testing.fakes import MemoryLedger, MemorySources
from probatum.testing.models import toy_dataset

MODEL = "robust"


class Quiet:
    """Progress that says nothing."""

    def step(self, description: str, done: int, total: int) -> None: ...


@dataclass
class Bench:
    """Hold sources with a judged and smoked model, the clock that stamps their ledger, and what is replayed."""

    sources: MemorySources
    clock: VirtualClock
    dataset: Dataset
    model: str
    start_ns: int
    end_ns: int

    @property
    def ledger(self) -> MemoryLedger:
        return self.sources.ledger

    @property
    def recording(self) -> Recording:
        return record_of(self.sources, self.model, self.dataset, self.start_ns, self.end_ns)

    def plan(self, policy: Policy | None = None, **options: object) -> Plan:
        window_s = (self.end_ns - self.start_ns) // NS_PER_S
        made = policy or spread(shipped_policy("default"), window_s)
        return make_plan(self.sources, self.model, made, rate_per_s=1 / 60, **options)  # type: ignore[arg-type]

    def opened(self, plan: Plan | None = None) -> Rollout:
        plan = plan or self.plan()
        rollout = Rollout(self.ledger, self.sources, plan.name)
        rollout.open(plan, self.start_ns)
        return rollout

    def smoke(self, latency_ms: list[float], status: list[int], provenance: Provenance) -> None:
        """Record a smoke test whose requests took this long and ended like this."""
        n = len(status)
        frame = pl.DataFrame(
            {
                "intended_ns": np.arange(n) * 2_000_000,
                "latency_ns": (np.array(latency_ms) * 1e6).astype(np.int64),
                "status": status,
                "score": [0.25 + index / n / 2 if code == 200 else None for index, code in enumerate(status)],
            }
        )
        out = io.BytesIO()
        frame.write_parquet(out)
        count = b'# TYPE ml_predict_requests_total counter\nml_predict_requests_total{status="success"} %d\n'
        run = SmokeRun(MODEL, MODEL, "2024-01-01T00:00:00Z", 500.0, out.getvalue(), count % 0, count % n, self.model)
        record_smoke(run, provenance, self.ledger, self.sources)


@cache
def _judged(provenance: Provenance) -> tuple[MemorySources, Dataset, str]:
    dataset = replace(toy_dataset(days=14), provenance=provenance)
    sources = MemorySources([dataset])
    plan = TrainingPlan(symbols=(dataset.symbol,), name=MODEL, set="robust", target="large_move@60s", model="logistic")
    judged = judge(plan, dataset, sources.ledger, sources, Quiet())
    assert judged.artifact is not None, judged.problem
    return sources, dataset, judged.artifact


def bench(provenance: Provenance = Provenance.SYNTHETIC, *, bad_share: float = 0.0, slow_share: float = 0.0) -> Bench:
    """Return a fresh copy of a trained, judged and smoked model; of the smoke's requests some fail or are slow."""
    judged, dataset, model = _judged(provenance)
    sources = MemorySources([dataset])
    sources.blobs._data.update(judged.blobs._data)
    clock = VirtualClock()
    sources.ledger = MemoryLedger(clock)
    start_ns, end_ns = window_of(judged, model, dataset)
    clock.set(start_ns)
    for record in judged.ledger.records():
        sources.ledger.append(record.kind, record.subject, record.provenance, record.body)
    made = Bench(sources, clock, dataset, model, start_ns, end_ns)
    rng = np.random.default_rng(7)
    status = np.where(rng.random(1_000) < bad_share, 500, 200).tolist()
    latency = np.where(rng.random(1_000) < slow_share, 200.0, 3.0).tolist()
    made.smoke(latency, status, provenance)
    return made


def quick(policy_name: str = "default") -> Policy:
    """Return a shipped policy spread over two days."""
    return spread(shipped_policy(policy_name), 2 * NS_PER_DAY // NS_PER_S)


def lenient(policy: Policy) -> Policy:
    """Return a policy whose proofs may be a month old: under a virtual clock days pass at once."""
    month = 30 * 86_400
    promotion = msgspec.structs.replace(
        policy.promotion, drift_age_max_s=month, verify_age_max_s=month, confirmation_ttl_s=month
    )
    return msgspec.structs.replace(policy, promotion=promotion)
