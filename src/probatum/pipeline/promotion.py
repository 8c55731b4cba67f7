"""Say what stands between a model and promotion, from the records in the ledger alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.evidence import prove
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.rollout.criteria import PROMOTE_CRITERIA, Assessment, Check, Measurement, assess

KINDS = {
    "offline_gate": "offline_report",
    "drift": "psi_snapshot",
    "level_features": "offline_report",
    "smoke": "smoke_1k",
    "shadow": "shadow_smoke_1k",
    "canary": "canary_run",
    "validation": "validation",
}
"""Which kind of record proves what."""

# What a missing or refused record needs, in the words of the person who has to bring it.
SETTLES = {
    "provenance_live": "the same steps on a live feed",
    "offline_gate": "an offline gate that passes",
    "drift": "a drift snapshot that passes",
    "level_features": "a feature set without price or volume levels",
    "smoke": "`probatum smoke` on an engine that serves this artifact",
    "shadow": "`probatum shadow smoke` on an executor beside it",
    "canary": "a completed canary of this artifact",
    "validation": "24-48 h of validation on fresh data",
}


def check_promotion(subject: str, artifact: str, proofs: Sequence[Record], ledger: Ledger, sources: Sources) -> Record:
    """Append ``promote_check``: every blocker, computed from ``proofs``, the records about this artifact."""
    inputs = {"artifact": artifact, "proofs": [record.hash for record in proofs]}
    provenance = Provenance.weakest(record.provenance for record in proofs)
    return prove(
        ledger, sources, kind="promote_check", subject=subject, provenance=provenance, inputs=inputs, derive=figures
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute the blockers from the records that ``inputs`` name by hash."""
    found = {record.hash: record for record in sources.ledger.records()}
    missing = [proof for proof in inputs["proofs"] if proof not in found]
    if missing:
        raise IntegrityError("promote_check", f"names a record that the ledger does not hold: {missing[0][:12]}…")
    proofs = [found[proof] for proof in inputs["proofs"]]
    assessment = assess(PROMOTE_CRITERIA, _measure(proofs))
    blockers = [_blocker(check, proofs) for check in assessment.checks if check.verdict is not Verdict.PASS]
    return {
        "verdict": Verdict.FAIL.value if blockers else Verdict.PASS.value,
        "checks": msgspec.to_builtins(_with_words(assessment, proofs).checks),
        "blockers": blockers,
        "summary": _summary(blockers),
    }


def _measure(proofs: Sequence[Record]) -> dict[str, Measurement]:
    """Count 1 for what is proven and 0 for what is not; a record that is absent proves nothing."""
    by_kind = {record.kind: record for record in proofs}
    proven = {name: _passed(by_kind.get(kind)) for name, kind in KINDS.items()}
    proven["level_features"] = _no_levels(by_kind.get("offline_report"))
    proven["provenance_live"] = Provenance.weakest(record.provenance for record in proofs) is Provenance.LIVE
    return {name: Measurement.counted(float(value), len(proofs)) for name, value in proven.items()}


def _passed(record: Record | None) -> bool:
    return record is not None and record.body["figures"]["verdict"] == Verdict.PASS.value


def _no_levels(report: Record | None) -> bool:
    checks = [] if report is None else report.body["figures"]["checks"]
    return any(check["name"] == "level_features" and check["verdict"] == Verdict.PASS.value for check in checks)


def _with_words(assessment: Assessment, proofs: Sequence[Record]) -> Assessment:
    checks = tuple(
        check
        if check.verdict is Verdict.PASS
        else msgspec.structs.replace(check, reason=_reason(check.name, proofs), settle=SETTLES[check.name])
        for check in assessment.checks
    )
    return Assessment(assessment.verdict, checks)


def _reason(name: str, proofs: Sequence[Record]) -> str:
    if name == "provenance_live":
        return f"evidence is {Provenance.weakest(record.provenance for record in proofs).value}"
    record = next((record for record in proofs if record.kind == KINDS.get(name)), None)
    if record is None:
        return "not measured"
    if name == "level_features":
        return "the model rests on a price or volume level"
    return f"the verdict is {record.body['figures']['verdict']}"


def _blocker(check: Check, proofs: Sequence[Record]) -> dict[str, Any]:
    return {"name": check.name, "reason": _reason(check.name, proofs), "clears": SETTLES[check.name]}


def _summary(blockers: Sequence[dict[str, Any]]) -> str:
    if not blockers:
        return "promote open: every blocker is cleared"
    return "promote blocked: " + "; ".join(
        blocker["reason"] if blocker["name"] == "provenance_live" else f"{blocker['name']} {blocker['reason']}"
        for blocker in blockers
    )
