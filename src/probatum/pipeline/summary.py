"""Gather from the chain what is known of each model: the rows that report, GREEN_EVIDENCE.md and ``probatum run`` show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from probatum.core.verdict import Provenance
from probatum.pipeline.ports import Record

NOT_MEASURED = "not measured"
JUDGED = {
    "offline_report": "Offline gate",
    "psi_snapshot": "Drift",
    "smoke_1k": "Smoke test of the engine",
    "shadow_smoke_1k": "Smoke test of the shadow",
    "shadow_replay": "Shadow of a replayed day",
    "canary_preflight": "Canary preflight",
    "canary_dryrun_observe": "Canary dry-run",
    "canary_run": "Canary",
    "validation": "Validation",
    "outcomes": "Live outcomes",
    "alert_history": "Alert history",
}
MODEL_KINDS = ("train", *JUDGED, "promote_check")


class Reason(msgspec.Struct, frozen=True):
    """Say why a check is no PASS, and what would settle it."""

    check: str
    verdict: str
    reason: str
    settle: str

    def __str__(self) -> str:
        settle = f" Would settle it: {self.settle}" if self.settle else ""
        return f"{self.check} {self.verdict}: {self.reason or 'no reason recorded'}.{settle}".replace("..", ".")


class ModelSummary(msgspec.Struct, frozen=True):
    """Hold the newest record of each kind about one model."""

    subject: str
    records: dict[str, Record]

    def figures(self, kind: str) -> dict[str, Any]:
        """Return the figures of the newest record of a kind, or nothing."""
        return self.records[kind].body["figures"] if kind in self.records else {}

    def verdict(self, kind: str) -> str:
        """Return the recorded verdict, or "not measured"."""
        return str(self.figures(kind).get("verdict") or NOT_MEASURED)

    def check(self, kind: str, *names: str) -> dict[str, Any]:
        """Return the first check of one of these names, or nothing."""
        checks = checks_of(self.figures(kind))
        return next((check for name in names for check in checks if check.get("name") == name), {})

    @property
    def target(self) -> str:
        """Return the target the model was judged on."""
        return next((str(t) for kind in MODEL_KINDS if (t := self.figures(kind).get("target"))), NOT_MEASURED)

    @property
    def provenance(self) -> Provenance:
        """Return the weakest class among the records."""
        return Provenance.weakest(record.provenance for record in self.records.values())

    @property
    def reasons(self) -> list[Reason]:
        """Return one reason for each enforced check that is no PASS; promotion sums these up and is left out."""
        return [reason for kind in JUDGED for reason in reasons_of(self.figures(kind))]


def summarise(records: Iterable[Record]) -> list[ModelSummary]:
    """Return what is known of each model, in the order in which the models appear."""
    found: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.kind in MODEL_KINDS:
            found.setdefault(record.subject, {})[record.kind] = record
    return [ModelSummary(subject, newest) for subject, newest in found.items()]


def mapping(value: Any) -> dict[str, Any]:
    """Return a JSON object as it is, and nothing for anything else: records may be older, or forged."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects of a JSON list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def checks_of(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the checks in a judging record's figures."""
    return mappings(figures.get("checks"))


def columns_of(drift: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a drift snapshot says of each column, the score last."""
    columns = [*mappings(drift.get("features")), mapping(drift.get("score"))]
    return [column for column in columns if mapping(column.get("check"))]


def reasons_of(figures: dict[str, Any]) -> Iterator[Reason]:
    """Yield why each enforced check that is no PASS is none."""
    for check in checks_of(figures):
        if check.get("enforced") and check.get("verdict") != "PASS":
            yield Reason(*(str(check.get(name) or "") for name in ("name", "verdict", "reason", "settle")))


def newest(records: Iterable[Record], kind: str) -> list[Record]:
    """Return the newest record of a kind for each subject, in order of first appearance."""
    return list({record.subject: record for record in records if record.kind == kind}.values())


def provenance_banner(records: Sequence[Record]) -> str:
    """Say in capitals what class of data stands behind the records."""
    classes = sorted({record.provenance for record in records}, key=list(Provenance).index)
    if not classes:
        return "No evidence yet: the chain is empty."
    texts = {
        Provenance.SYNTHETIC: "SYNTHETIC: made by a seeded market model. Proves that the machinery works, nothing about a market.",
        Provenance.REPLAY: "REPLAY: recorded real data, replayed. Never enough to promote.",
        Provenance.LIVE: "LIVE: measured on live data.",
    }
    if len(classes) == 1:
        return texts[classes[0]]
    counts = ", ".join(f"{sum(r.provenance is c for r in records)} {c.upper()}" for c in classes)
    return f"MIXED PROVENANCE ({counts}): each record states its class. {texts[classes[0]]}"
