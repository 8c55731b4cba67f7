"""Register each kind of evidence: what recomputes its figures, and which files it is exported to."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import msgspec

from probatum.core.errors import UnknownNameError
from probatum.pipeline.evidence import Derive


class EvidenceKind(msgspec.Struct, frozen=True):
    """Describe one kind. ``figures`` is "module:function", imported only when a figure is recomputed.

    ``file`` is the JSON file of the newest record ("": none). ``sums`` are (total, parts) over integer counts in the figures that
    must add up; ``judges`` marks kinds whose figures carry ``verdict`` and ``checks``.
    """

    figures: str
    file: str
    sums: tuple[tuple[str, tuple[str, ...]], ...] = ()
    judges: bool = False

    def derive(self) -> Derive:
        """Import and return the function that computes this kind's figures."""
        module, _, name = self.figures.partition(":")
        function: Derive = getattr(import_module(module), name)
        return function


_SHADOWED = (("shadow_attempts", ("shadow_matches", "shadow_mismatches", "shadow_errors")),)

KINDS: dict[str, EvidenceKind] = {
    "data_import": EvidenceKind(
        "probatum.pipeline.importing:figures",
        "data_quality.json",
        sums=(("rows_in", ("rows_stored", "rows_merged", "rows_ignored", "rows_quarantined")),),
    ),
    "train": EvidenceKind("probatum.pipeline.training:figures", "train.json"),
    "offline_report": EvidenceKind("probatum.pipeline.gate:figures", "offline_report.json", judges=True),
    "psi_snapshot": EvidenceKind("probatum.pipeline.live_drift:figures", "psi_snapshot.json", judges=True),
    "smoke_1k": EvidenceKind(
        "probatum.pipeline.smoke:figures", "smoke_1k.json", (("total_requests", ("success", "errors")),), judges=True
    ),
    "shadow_smoke_1k": EvidenceKind(
        "probatum.pipeline.shadowing:figures",
        "shadow_smoke_1k.json",
        (("attempts", ("ok", "failures", "skipped")), ("ok", ("matches", "mismatches"))),
        judges=True,
    ),
    "shadow_replay": EvidenceKind(
        "probatum.pipeline.shadowing:figures",
        "shadow_replay.json",
        (("attempts", ("ok", "failures", "skipped")), ("ok", ("matches", "mismatches"))),
        judges=True,
    ),
    "outcomes": EvidenceKind(
        "probatum.pipeline.outcomes:figures",
        "outcomes.json",
        (("logged", ("unheard", "other_scores", "no_data", "off_grid", "unlabelled", "joined")),),
        judges=True,
    ),
    "skew": EvidenceKind(
        "probatum.pipeline.skew:figures",
        "skew.json",
        (("rows", ("ready", "unchecked")), ("ready", ("equal", "unequal"))),
        judges=True,
    ),
    "rollout_document": EvidenceKind("probatum.pipeline.control:figures", "rollout_document.json"),
    "alias": EvidenceKind("probatum.pipeline.registry:figures", "alias.json"),
    "canary_preflight": EvidenceKind(
        "probatum.pipeline.canary:preflight_figures", "canary_preflight.json", judges=True
    ),
    "canary_dryrun_observe": EvidenceKind(
        "probatum.pipeline.canary:dry_run_figures", "canary_dryrun_observe.json", judges=True
    ),
    "rollout_event": EvidenceKind("probatum.pipeline.rollout:figures", ""),
    "canary_run": EvidenceKind("probatum.pipeline.canary:run_figures", "canary_run.json", judges=True),
    "validation": EvidenceKind("probatum.pipeline.canary:run_figures", "validation.json", judges=True),
    "promote_check": EvidenceKind("probatum.pipeline.promotion:figures", "promote_check.json", judges=True),
    "review": EvidenceKind("probatum.pipeline.promotion:review_figures", "review.json"),
    "waiver": EvidenceKind("probatum.pipeline.promotion:waiver_figures", "waiver.json"),
    "alert_history": EvidenceKind("probatum.pipeline.alerts:figures", "alert_history.json", judges=True),
    "verification": EvidenceKind("probatum.pipeline.promotion:verification_figures", "verification.json", judges=True),
    "drill": EvidenceKind("probatum.pipeline.drill:figures", "drill.json", judges=True),
    "alert": EvidenceKind("probatum.pipeline.notices:figures", ""),
    "retrain_proposal": EvidenceKind("probatum.pipeline.proposals:figures", "retrain_proposal.json"),
    "retrain_request": EvidenceKind("probatum.pipeline.proposals:request_figures", ""),
    "retrain_data": EvidenceKind("probatum.pipeline.retrain_data:figures", "retrain_data.json", judges=True),
    "retrain_attempt": EvidenceKind("probatum.pipeline.retrain:figures", "retrain_attempt.json", judges=True),
    "job_run": EvidenceKind("probatum.pipeline.jobs:figures", ""),
    "daily_report": EvidenceKind("probatum.pipeline.periodic:daily_figures", "", _SHADOWED),
    "weekly_summary": EvidenceKind("probatum.pipeline.periodic:weekly_figures", "", _SHADOWED),
    "match_report": EvidenceKind("probatum.pipeline.periodic:match_figures", "match_report.json", _SHADOWED),
    "drill_reminder": EvidenceKind("probatum.pipeline.periodic:drill_figures", ""),
    "dashboard_picture": EvidenceKind("probatum.pipeline.picture:figures", ""),
    "release": EvidenceKind("probatum.pipeline.release:figures", "release.json"),
}

BLOB_KINDS: dict[str, str] = {
    "artifact": "json",
    "predictions": "parquet",
    "window": "parquet",
    "requests": "parquet",
    "metrics": "txt",
    "quarantine": "parquet",
    "counts": "json",
    "alerts": "json",
    "rollout_plan": "json",
    "decisions": "parquet",
    "picture": "png",
}
"""Kind of blob to its file extension. In a record, a key of this name holds the digest of such a blob."""


def get_kind(name: str) -> EvidenceKind:
    """Return a kind by name; UnknownNameError lists the known."""
    if name not in KINDS:
        raise UnknownNameError("evidence kind", name, KINDS)
    return KINDS[name]


def named_blobs(value: Any) -> list[tuple[str, str]]:
    """List the (kind, digest) of every blob that a record's body names, in order, each once.

    >>> named_blobs({"inputs": {"artifact": "ab" * 32}, "figures": {"window": None}})[0][0]
    'artifact'
    """
    found: dict[tuple[str, str], None] = {}
    _collect(value, found)
    return list(found)


def _collect(value: Any, found: dict[tuple[str, str], None]) -> None:
    if isinstance(value, list):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in BLOB_KINDS and _is_digest(item):
                found[(key, item)] = None
            else:
                _collect(item, found)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
