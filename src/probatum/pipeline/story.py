"""Tell the story of a dataset: which models are tried on it, in which order, and what came of each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from probatum.core.clock import NS_PER_S
from probatum.core.errors import InputError
from probatum.core.verdict import Provenance
from probatum.features.events import available
from probatum.market.dataset import Dataset
from probatum.pipeline.drift import snapshot
from probatum.pipeline.gate import run_gate
from probatum.pipeline.ports import Ledger, Progress, Record, Sources
from probatum.pipeline.promotion import check_promotion
from probatum.pipeline.summary import checks_of, reasons_of
from probatum.pipeline.training import TrainingPlan, train
from probatum.rollout.confirm import DEMO
from probatum.rollout.policy import shipped_policy

MINUTE_GRID_NS = 60 * NS_PER_S
BOOK_GRID_NS = NS_PER_S
BOOK_DAYS_MAX = 10
"""``book`` decides every second; beyond this many days the story would take minutes without saying more."""


class Judged(msgspec.Struct, frozen=True):
    """Hold what came of one model: its records, or why there are none."""

    name: str
    target: str
    provenance: Provenance
    artifact: str | None
    gate: Record | None
    drift: Record | None
    proofs: tuple[Record, ...] = ()
    promotion: Record | None = None
    problem: str = ""

    @property
    def reasons(self) -> list[str]:
        """Return one line for everything that is no PASS: the reason, and what would settle it."""
        if self.problem:
            return [f"not measured: {self.problem}"]
        lines = [str(reason) for record in self.proofs for reason in reasons_of(record.body["figures"])]
        tags = [record.body["figures"] for record in self.proofs if record.kind == "release"]
        lines += [f"{tag['tag']} not tagged: {tag['reason']}" for tag in tags if not tag["tagged"]]
        return [*lines, *self._warnings, *([str(self.promotion.body["figures"]["summary"])] if self.promotion else [])]

    def proof(self, kind: str) -> Record | None:
        """Return the newest record of a kind about this model, or nothing."""
        return next((record for record in reversed(self.proofs) if record.kind == kind), None)

    @property
    def _warnings(self) -> list[str]:
        """Return the watched checks that promotion enforces."""
        checks = checks_of(self.gate.body["figures"]) if self.gate else []
        return [
            f"{check['name']} {check['verdict']}: {check['reason']}. Promotion enforces it."
            for check in checks
            if check["name"] == "level_features" and check["verdict"] != "PASS"
        ]


def candidates(dataset: Dataset) -> list[TrainingPlan]:
    """Return what is tried on a dataset, the seed's own model first; sets that the data cannot feed are left out."""
    grid_ns = None if dataset.quotes is None else MINUTE_GRID_NS
    symbols = (dataset.symbol,)
    tried = [
        TrainingPlan(symbols=symbols, name=name, set=feature_set, target=target, model=model, grid_ns=grid_ns)
        for name, feature_set, target, model in (
            ("v1.8-b0", "v1.8-b0", "direction@60s", "fixed"),
            ("v1.8.1-direction", "v1.8.1", "direction@60s", "logistic"),
            ("v1.8.1", "v1.8.1", "large_move@60s", "logistic"),
            ("robust", "robust", "large_move@60s", "logistic"),
        )
    ]
    if "sizes" in available(dataset) and _days(dataset) <= BOOK_DAYS_MAX:
        tried.append(
            TrainingPlan(
                symbols=symbols,
                name="book",
                set="book",
                target="direction@10s:drop-unchanged",
                model="logistic",
                grid_ns=BOOK_GRID_NS,
                by="session",
            )
        )
    return tried


def judge(plan: TrainingPlan, dataset: Dataset, ledger: Ledger, sources: Sources, progress: Progress) -> Judged:
    """Train one model, judge it on the test part, and compare that part with what it was trained on.

    A model that the data cannot support is reported as not measured; the others go on.
    """
    try:
        trained = train(ledger, sources, plan, progress)
        gate = run_gate(ledger, sources, trained.digest, progress=progress)
        drift = snapshot(ledger, sources, trained.digest, window="test", progress=progress)
    except InputError as error:
        return Judged(plan.subject, plan.target, dataset.provenance, None, None, None, problem=error.message)
    proofs = (trained.record, gate, drift)
    return Judged(plan.subject, plan.target, dataset.provenance, trained.digest, gate, drift, proofs)


def conclude(
    judged: Judged, further: Sequence[Record], ledger: Ledger, sources: Sources, *, now_ns: int, asked_by: str = DEMO
) -> Judged:
    """Append what blocks the model's promotion, given what was proven of it since it was judged."""
    if judged.artifact is None:
        return judged
    proofs = (*judged.proofs, *further)
    policy = shipped_policy("default")
    promotion = check_promotion(ledger, sources, judged.artifact, policy=policy, now_ns=now_ns, asked_by=asked_by)
    return msgspec.structs.replace(judged, proofs=proofs, promotion=promotion)


def best(judged: Sequence[Judged]) -> Judged | None:
    """Return the judged model to go on with: the last that passed gate and drift, else the last that was measured."""
    measured = [item for item in judged if item.gate is not None and item.drift is not None]
    passed = [item for item in measured if _passed(item.gate) and _passed(item.drift)]
    return (passed or measured)[-1] if measured else None


def _passed(record: Record | None) -> bool:
    return record is not None and record.body["figures"]["verdict"] == "PASS"


def _days(dataset: Dataset) -> int:
    ts = dataset.frames[dataset.spine]["ts_event"]
    return int((ts[-1] - ts[0]) // (86_400 * NS_PER_S)) + 1
