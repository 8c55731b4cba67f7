"""Ask for a retraining, on evidence: a proposal is a record, and the champion stays until its successor is proven.

Kinds: ``retrain_proposal``, and ``retrain_request``, what a person says when asking for one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import msgspec

from probatum.core.clock import format_utc
from probatum.core.errors import IntegrityError, ParameterError
from probatum.core.verdict import Provenance
from probatum.pipeline.evidence import prove_once, same_inputs
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.pipeline.registry import CHALLENGER, aliases, load_artifact
from probatum.rollout.criteria import DRIFT_CRITERIA, RETRAIN_ATTEMPTS_MAX

KIND, REQUEST, ATTEMPT = "retrain_proposal", "retrain_request", "retrain_attempt"
OPEN = "open"

Trigger = Literal["drift", "schedule", "asked"]
State = Literal["open", "on trial", "passed", "exhausted"]


class Proposal(msgspec.Struct, frozen=True):
    """Hold a proposal with the attempts made on it, and what became of it.

    ``on trial``: an attempt passed, and its model still is the challenger; ``passed``: it no longer is. ``exhausted``: all
    attempts were made in vain.
    """

    record: Record
    attempts: tuple[Record, ...]
    state: State

    @property
    def model(self) -> str:
        """Return the digest of the artifact to be replaced."""
        return str(self.record.body["inputs"]["artifact"])


def proposals(records: Iterable[Record]) -> list[Proposal]:
    """Return every proposal in the order of the ledger."""
    known = list(records)
    challenger = aliases(known).get(CHALLENGER)
    made: dict[str, list[Record]] = {record.hash: [] for record in known if record.kind == KIND}
    for record in known:
        if record.kind == ATTEMPT and record.body["inputs"]["proposal"] in made:
            made[record.body["inputs"]["proposal"]].append(record)
    asked = [record for record in known if record.kind == KIND]
    return [Proposal(item, tuple(made[item.hash]), _state(made[item.hash], challenger)) for item in asked]


def describe(proposal: Proposal) -> dict[str, Any]:
    """Return a proposal as people and programs are shown it, JSON-safe."""
    inputs, found = proposal.record.body["inputs"], proposal.record.body["figures"]
    return {
        "proposal": proposal.record.hash,
        "model": proposal.record.subject,
        "artifact": proposal.model,
        "trigger": inputs["trigger"],
        "opened": inputs["now"],
        "state": proposal.state,
        "reason": found["reason"],
        "attempts": [describe_attempt(item) for item in proposal.attempts],
    }


def describe_attempt(record: Record) -> dict[str, Any]:
    """Return an attempt as people and programs are shown it, JSON-safe."""
    return {"record": record.hash, **{name: record.body["figures"][name] for name in ("number", "verdict")}}


def _state(attempts: list[Record], challenger: str | None) -> State:
    passed = [item.body["inputs"]["artifact"] for item in attempts if item.body["figures"]["verdict"] == "PASS"]
    if passed:
        return "on trial" if passed[-1] == challenger else "passed"
    return "exhausted" if len(attempts) >= RETRAIN_ATTEMPTS_MAX else "open"


def open_proposal(
    ledger: Ledger, sources: Sources, *, model: str, trigger: Trigger, evidence: Record, now_ns: int
) -> Record:
    """Append ``retrain_proposal`` for a model (digest) because of a record, or return the one that stands already.

    While a proposal of the same model is open, or its challenger on trial, there is no second; after an exhausted one only
    a person may ask again, for a machine would spend alpha after alpha. One piece of evidence asks but once, whatever
    became of its proposal. Raises IntegrityError where the model is not there.
    """
    if trigger not in get_args(Trigger):
        raise ParameterError("trigger", f"one of {', '.join(get_args(Trigger))}", trigger)
    artifact = load_artifact(sources, model)
    unsettled = (OPEN, "on trial") if trigger == "asked" else (OPEN, "on trial", "exhausted")

    def standing(records: list[Record]) -> Record | None:
        same = [item for item in proposals(ledger.records()) if item.model == model and item.record in records]
        asked = [item.record for item in same if item.record.body["inputs"]["because"] == evidence.hash]
        still = [item.record for item in same[-1:] if item.state in unsettled]
        return next(iter([*asked, *still]), None)

    return prove_once(
        ledger,
        sources,
        kind=KIND,
        subject=artifact.name,
        provenance=Provenance.weakest([artifact.data.provenance, evidence.provenance]),
        inputs={"artifact": model, "trigger": trigger, "because": evidence.hash, "now": format_utc(now_ns)},
        derive=figures,
        standing=standing,
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Return a proposal's reason in words; model and evidence must be there, and a snapshot that is one must show drift."""
    artifact = load_artifact(sources, inputs["artifact"])
    because = next((r for r in sources.ledger.records() if r.hash == inputs["because"]), None)
    if because is None:
        raise IntegrityError(KIND, f"names a record that the ledger does not hold: {inputs['because'][:12]}…")
    if because.kind == "psi_snapshot" and not has_drifted(because):
        raise IntegrityError(KIND, f"rests on record {because.seq}, which shows no drift")
    reason = f"{inputs['trigger']}: record {because.seq} ({because.kind} of {because.subject}) about {artifact.name}"
    return {"status": OPEN, "reason": reason, "target": artifact.target}


def has_drifted(snapshot: Record) -> bool:
    """Return whether a drift snapshot asks for a retraining: a FAIL, or an overall PSI that MLPSICritical fires on.

    An alert follows the estimate where a gate follows the bound: asking harms nothing, and a raw price, whose PSI no null
    can explain or condemn, would never be asked about else.
    """
    found = snapshot.body["figures"]
    overall, worst = DRIFT_CRITERIA
    alerts = found["rows"] >= overall.count_min and (found["overall_psi"] or 0.0) > worst.bound
    return found["verdict"] == "FAIL" or alerts


def propose_on_drift(ledger: Ledger, sources: Sources, snapshot: Record, now_ns: int) -> Record | None:
    """Open a proposal where a snapshot of a model that bears an alias has drifted; return the one that stands."""
    model = snapshot.body["inputs"]["artifact"]
    if model not in aliases(ledger.records(kind="alias")).values() or not has_drifted(snapshot):
        return None
    return open_proposal(ledger, sources, model=model, trigger="drift", evidence=snapshot, now_ns=now_ns)


def ask(ledger: Ledger, sources: Sources, *, model: str, reason: str, now_ns: int) -> Record:
    """Open a proposal because a person asks for one, in words that are kept; return the one that stands."""
    if not 0 < len(reason.strip()) <= 200 or not reason.isprintable():
        raise ParameterError("reason", "1 to 200 printable characters", reason)
    artifact = load_artifact(sources, model)
    inputs = {"artifact": model, "reason": reason.strip()}
    request = prove_once(
        ledger,
        sources,
        kind=REQUEST,
        subject=artifact.name,
        provenance=artifact.data.provenance,
        inputs=inputs,
        derive=request_figures,
        standing=same_inputs(inputs),
    )
    return open_proposal(ledger, sources, model=model, trigger="asked", evidence=request, now_ns=now_ns)


def request_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Return what a request is about; the model must be there."""
    artifact = load_artifact(sources, inputs["artifact"])
    return {"model": artifact.name, "target": artifact.target, "reason": inputs["reason"]}
