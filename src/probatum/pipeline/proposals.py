"""Ask for a retraining, on evidence: a proposal is a record, and the champion stays until its successor is proven."""

from __future__ import annotations

from typing import Any, Literal, get_args

from probatum.core.clock import format_utc
from probatum.core.errors import IntegrityError, ParameterError
from probatum.core.verdict import Provenance
from probatum.pipeline.evidence import prove_once
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.pipeline.registry import load_artifact

KIND = "retrain_proposal"
OPEN = "open"

Trigger = Literal["drift", "schedule", "asked"]


def open_proposal(
    ledger: Ledger, sources: Sources, *, model: str, trigger: Trigger, evidence: Record, now_ns: int
) -> Record:
    """Append ``retrain_proposal`` for a model (digest) because of a record, or return the one that stands already.

    While a proposal of the same model and trigger is open there is no second, and one piece of evidence asks but once,
    whatever became of its proposal. Raises IntegrityError where the model is not there.
    """
    if trigger not in get_args(Trigger):
        raise ParameterError("trigger", f"one of {', '.join(get_args(Trigger))}", trigger)
    artifact = load_artifact(sources, model)
    about = {"artifact": model, "trigger": trigger}

    def standing(records: list[Record]) -> Record | None:
        same = [record for record in records if about.items() <= record.body["inputs"].items()]
        asked = [record for record in same if record.body["inputs"]["because"] == evidence.hash]
        still = [record for record in same[-1:] if record.body["figures"]["status"] == OPEN]
        return next(iter([*asked, *still]), None)

    return prove_once(
        ledger,
        sources,
        kind=KIND,
        subject=artifact.name,
        provenance=Provenance.weakest([artifact.data.provenance, evidence.provenance]),
        inputs={**about, "because": evidence.hash, "now": format_utc(now_ns)},
        derive=figures,
        standing=standing,
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Return a proposal's status and its reason in words; model and evidence must be there."""
    artifact = load_artifact(sources, inputs["artifact"])
    because = next((r for r in sources.ledger.records() if r.hash == inputs["because"]), None)
    if because is None:
        raise IntegrityError(KIND, f"names a record that the ledger does not hold: {inputs['because'][:12]}…")
    reason = f"{inputs['trigger']}: record {because.seq} ({because.kind} of {because.subject}) about {artifact.name}"
    return {"status": OPEN, "reason": reason}
