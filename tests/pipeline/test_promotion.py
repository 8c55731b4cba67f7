"""Nothing is promoted that is not proven."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.ports import Record
from probatum.pipeline.promotion import check_promotion, figures
from probatum.testing.fakes import MemorySources

KINDS = ("offline_report", "psi_snapshot", "smoke_1k", "shadow_smoke_1k", "canary_run", "validation")


def _proof(sources: MemorySources, kind: str, verdict: str, provenance: Provenance, level: str = "PASS") -> Record:
    body: dict[str, Any] = {"verdict": verdict, "checks": [{"name": "level_features", "verdict": level}]}
    return sources.ledger.append(kind, "m", provenance, {"inputs": {}, "figures": body})


@given(
    verdicts=st.lists(st.sampled_from(list(Verdict)), min_size=6, max_size=6),
    classes=st.lists(st.sampled_from(list(Provenance)), min_size=6, max_size=6),
    level=st.sampled_from(["PASS", "FAIL"]),
    absent=st.sets(st.sampled_from(KINDS), max_size=5),
)
def test_promotion_opens_only_when_everything_is_proven_live(
    verdicts: list[Verdict], classes: list[Provenance], level: str, absent: set[str]
) -> None:
    """The gate opens exactly when each record is there, passed, live, and no level feature is left."""
    sources = MemorySources()
    proofs = [
        _proof(sources, kind, verdict.value, provenance, level)
        for kind, verdict, provenance in zip(KINDS, verdicts, classes, strict=True)
        if kind not in absent
    ]
    found = check_promotion("m", "a" * 64, proofs, sources.ledger, sources).body["figures"]
    everything = (
        not absent and set(verdicts) == {Verdict.PASS} and set(classes) == {Provenance.LIVE} and level == "PASS"
    )
    assert (found["verdict"] == "PASS") is everything
    assert bool(found["blockers"]) is not everything


def test_a_synthetic_record_blocks_by_name() -> None:
    """One synthetic link makes the whole chain of proofs synthetic, and the summary says so first."""
    sources = MemorySources()
    proofs = [
        _proof(sources, kind, "PASS", Provenance.SYNTHETIC if kind == "psi_snapshot" else Provenance.LIVE)
        for kind in KINDS
    ]
    found = check_promotion("m", "a" * 64, proofs, sources.ledger, sources).body["figures"]
    assert found["summary"] == "promote blocked: evidence is synthetic"


def test_a_proof_that_the_ledger_does_not_hold_is_refused() -> None:
    """A hash that leads nowhere is an integrity error, not an absent proof."""
    with pytest.raises(IntegrityError, match="does not hold"):
        figures({"artifact": "a" * 64, "proofs": ["b" * 64]}, MemorySources())
