"""Say what stands between a model and promotion, from the records in the ledger alone, and promote where nothing does.

Kinds: ``promote_check`` (the gate), and what people and tools contribute to it: ``review``, ``waiver`` and ``verification``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from probatum.core.clock import format_utc, parse_utc
from probatum.core.errors import ConfirmationError, IntegrityError
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.evidence import GENESIS, prove, record_hash
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.pipeline.registry import load_artifact
from probatum.pipeline.rollout import Effects, Rollout, accept
from probatum.rollout import confirm, machine
from probatum.rollout.blockers import REQUIREMENTS, Blocker, Proof, Waiver, find_blockers, open_blockers
from probatum.rollout.criteria import Check
from probatum.rollout.events import PromotionAsked
from probatum.rollout.plan import Policy

GATE = "promote_check"
PROOF_KINDS = ("offline_report", "psi_snapshot", "canary_run", "validation", "alert_history", "review")
ANY_MODEL = ("drill", "verification")
"""Proofs that are about the machinery, whatever the model."""

LATER = frozenset({"validation", "alerts", "review", "evidence_verified", "drill"})
"""Requirements that can only be met after a canary: they stop a promotion, not a release candidate."""


# --- the gate -------------------------------------------------------------------------------------------------------


def check_promotion(
    ledger: Ledger, sources: Sources, model: str, *, policy: Policy, now_ns: int, asked_by: str, subject: str = ""
) -> Record:
    """Append ``promote_check``: every blocker of a promotion of ``model`` (digest) that ``asked_by`` asks for."""
    proofs = _proof_records(ledger, model)
    inputs = {
        "artifact": model,
        "proofs": [record.hash for record in proofs if _is_market(record)],
        "statements": [record.hash for record in proofs if not _is_market(record)],
        "waivers": [r.hash for r in ledger.records(kind="waiver") if r.body["inputs"]["artifact"] == model],
        "policy": msgspec.to_builtins(policy),
        "now": format_utc(now_ns),
        "asked_by": asked_by,
    }
    artifact = load_artifact(sources, model)
    return prove(
        ledger,
        sources,
        kind=GATE,
        subject=subject or artifact.name,
        provenance=Provenance.weakest([artifact.data.provenance, *(r.provenance for r in proofs if _is_market(r))]),
        inputs=inputs,
        derive=figures,
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute the blockers from the records that ``inputs`` name by hash."""
    found = {record.hash: record for record in sources.ledger.records()}
    named = (*inputs["proofs"], *inputs["statements"])
    missing = [name for name in (*named, *inputs["waivers"]) if name not in found]
    if missing:
        raise IntegrityError(GATE, f"names a record that the ledger does not hold: {missing[0][:12]}…")
    policy = msgspec.convert(inputs["policy"], Policy)
    proofs = [proof for name in named for proof in proofs_of(found[name], inputs["artifact"])]
    waivers = [waiver_of(found[name]) for name in inputs["waivers"]]
    blockers = find_blockers(
        inputs["artifact"], proofs, policy, parse_utc(inputs["now"]), asked_by=inputs["asked_by"], waivers=waivers
    )
    return {
        "verdict": Verdict.FAIL if open_blockers(blockers) else Verdict.PASS,
        "checks": msgspec.to_builtins([_check(name, blockers) for name in _names()]),
        "blockers": msgspec.to_builtins(blockers),
        "summary": _summary(open_blockers(blockers)),
        "policy": policy.name,
    }


def proofs_of(record: Record, model: str) -> Iterator[Proof]:
    """Yield what one record proves about a model."""
    found, inputs = record.body["figures"], record.body["inputs"]
    verdict = Verdict(found["verdict"]) if "verdict" in found else Verdict.PASS

    def proof(name: str, verdict: Verdict, **more: Any) -> Proof:
        market = record.provenance if _is_market(record) else None
        about = {"model": model, "evidence": record.hash, "ts": parse_utc(record.ts), "provenance": market}
        return Proof(name=name, verdict=verdict, **{**about, **more})

    match record.kind:
        case "offline_report":
            yield proof("offline_gate", verdict)
            yield proof("level_features", _verdict_of(found, "level_features"))
        case "psi_snapshot":
            yield proof("drift", verdict)
        case "canary_run":
            yield proof("canary", verdict)
            yield proof("outcome", _non_inferior(found))
        case "validation":
            yield proof("validation", verdict, figures={"seconds": found["validation_s"]})
        case "alert_history":
            numbers = {name: float(found[name]) for name in ("critical", "warning", "window_s")}
            measured = Verdict.ERROR if found["problem"] else Verdict.PASS  # how many are too many says the policy
            yield proof("alerts", measured, figures=numbers)
        case "review":
            yield proof("review", verdict, by=inputs["by"])
        case "drill":
            yield proof("drill", verdict)
        case "verification":
            yield proof("evidence_verified", verdict)


def _proof_records(ledger: Ledger, model: str) -> list[Record]:
    """Return the newest record of each proving kind, of the model or of the machinery."""
    newest: dict[str, Record] = {}
    for record in ledger.records():
        about = record.kind in ANY_MODEL or record.body["inputs"].get("artifact") == model
        if record.kind in (*PROOF_KINDS, *ANY_MODEL) and about:
            newest[record.kind] = record
    return sorted(newest.values(), key=lambda record: record.seq)


def _is_market(record: Record) -> bool:
    return record.kind not in (*ANY_MODEL, "review", "alert_history")


def _verdict_of(found: dict[str, Any], name: str) -> Verdict:
    check = next((check for check in found["checks"] if check["name"] == name), None)
    return Verdict.ERROR if check is None else Verdict(check["verdict"])


def _non_inferior(found: dict[str, Any]) -> Verdict:
    """Say whether it is proven that, where the two differ, the canary loses less often than its abort bound."""
    check = next((check for check in found["checks"] if check["name"] == "outcome"), None)
    if check is None or check["upper"] is None:
        return Verdict.ERROR
    if check["verdict"] == Verdict.FAIL:
        return Verdict.FAIL
    return Verdict.PASS if check["upper"] < check["bound"] else Verdict.INCONCLUSIVE


def _names() -> list[str]:
    return [*(item.name for item in REQUIREMENTS), "provenance_live"]


def _check(name: str, blockers: Sequence[Blocker]) -> Check:
    """Return a requirement as a check; one that is waived is shown, and enforces nothing."""
    found = next((item for item in blockers if item.name == name), None)
    value = float(found is None)
    if found is None:
        return Check(name, value, 1.0, value, value, 1, Verdict.PASS, True)
    reason = f"waived by {found.waived_by}" if found.waived_by else found.value
    return Check(name, value, 1.0, value, value, 1, Verdict.FAIL, not found.waived_by, reason, found.clears)


def _summary(blockers: Sequence[Blocker]) -> str:
    if not blockers:
        return "promote open: every blocker is cleared or waived"
    weak = [item for item in blockers if item.name == "provenance_live"]
    first = [f"evidence is {item.value}" for item in weak]
    return "promote blocked: " + "; ".join(
        [*first, *(f"{item.name} {item.value}" for item in blockers if item not in weak)]
    )


def blockers_of(check: Record) -> tuple[Blocker, ...]:
    """Return the blockers in a ``promote_check``."""
    return msgspec.convert(check.body["figures"]["blockers"], tuple[Blocker, ...])


def rc_blockers(check: Record) -> tuple[Blocker, ...]:
    """Return what stands against a release candidate: critical, open, and not something that only time can bring."""
    return tuple(item for item in open_blockers(blockers_of(check), "critical") if item.name not in LATER)


# --- promoting ------------------------------------------------------------------------------------------------------


def promotion_phrase(rollout: Rollout, check: Record, now_ns: int) -> str:
    """Return the phrase that an approver must give to promote on this gate's record."""
    expires_ts = now_ns + rollout.plan.policy.promotion.confirmation_ttl_s * 1_000_000_000
    return confirm.build_phrase(confirm.promote_permission(rollout.plan, check.hash, expires_ts))


def promote(rollout: Rollout, phrase: str, *, by: str, now_ns: int, handler: Effects) -> machine.State:
    """Move ``champion`` to the rollout's model. The gate is asked anew; the phrase names the record that was shown.

    Raises ConfirmationError (a void phrase) or BlockedError (what is open now); then nothing was moved.
    """
    prefix = confirm.parse_phrase(phrase).evidence
    records = rollout.ledger.records(kind=GATE)
    shown = next((r for r in records if r.hash.startswith(prefix) and len(prefix) == confirm.DIGEST_CHARS), None)
    if shown is None or shown.body["inputs"]["artifact"] != rollout.plan.model:
        raise ConfirmationError(
            "confirmation void: it names no gate of this model; nothing was moved", field="evidence"
        )
    policy = rollout.plan.policy
    fresh = check_promotion(
        rollout.ledger, rollout.sources, rollout.plan.model, policy=policy, now_ns=now_ns, asked_by=by
    )
    names = tuple(item.name for item in open_blockers(blockers_of(fresh)))
    event = PromotionAsked(now_ns, phrase, by, names, shown.hash, fresh.provenance)
    machine.check_promotion(rollout.plan, rollout.state, event)
    state, _ = accept(rollout.apply(event, handler))
    return state


# --- what people and tools contribute -------------------------------------------------------------------------------


def review(ledger: Ledger, sources: Sources, model: str, *, by: str, note: str) -> Record:
    """Append ``review``: somebody looked at the evidence of a model."""
    if not by.strip():
        raise ConfirmationError("a review has a name", field="by")
    inputs = {"artifact": model, "by": by, "note": note, "head": ledger.head()}
    return _append(ledger, sources, "review", model, inputs, review_figures)


def review_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Return what was looked at; the head must be a record of the chain."""
    if inputs["head"] not in {GENESIS, *(record.hash for record in sources.ledger.records())}:
        raise IntegrityError("review", "names a head that the ledger does not hold")
    return {"by": inputs["by"], "note": inputs["note"]}


def waive(
    ledger: Ledger, sources: Sources, model: str, blocker: str, *, by: str, reason: str, now_ns: int, expires_ns: int
) -> Record:
    """Append ``waiver``: one person's word that a blocker may stand until a time. ParameterError where it may not."""
    inputs = {
        "artifact": model,
        "blocker": blocker,
        "by": by,
        "reason": reason,
        "ts": format_utc(now_ns),
        "expires": format_utc(expires_ns),
    }
    return _append(ledger, sources, "waiver", model, inputs, waiver_figures)


def waiver_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:  # noqa: ARG001
    """Return how long a waiver stands; it must be one that may be given."""
    waiver = _waiver_from(inputs, "")
    return {"blocker": waiver.blocker, "by": waiver.by, "stands_s": (waiver.expires_ts - waiver.ts) / 1e9}


def record_verification(ledger: Ledger, sources: Sources, findings: Collection[object], *, by: str = "") -> Record:
    """Append ``verification``: the whole chain was recomputed up to its head, with this many findings, as ``by`` asked."""
    inputs = {"head": ledger.head(), "findings": len(findings), **({"by": by} if by else {})}
    return prove(
        ledger, sources, kind="verification", subject="chain", provenance=_class_of(ledger.records()), inputs=inputs,
        derive=verification_figures,
    )  # fmt: skip


def verification_figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute the hashes and links up to the head that was verified; figures are recomputed by ``evidence verify``."""
    prev, records = GENESIS, 0
    for record in sources.ledger.records():
        if prev == inputs["head"]:
            break
        if record.prev != prev or record_hash(record) != record.hash:
            raise IntegrityError(
                f"record {record.seq} ({record.kind})", "the chain breaks before a head that was verified"
            )
        prev, records = record.hash, records + 1
    bad = inputs["findings"] + (prev != inputs["head"])
    verdict = Verdict.FAIL if bad else Verdict.PASS
    said = ("", "") if not bad else (f"{bad} findings", "a chain without findings")
    check = Check("findings", float(bad), 0.0, float(bad), float(bad), records, verdict, True, *said)
    return {"verdict": verdict, "checks": msgspec.to_builtins([check]), "records": records, "head": inputs["head"]}


def _append(ledger: Ledger, sources: Sources, kind: str, model: str, inputs: dict[str, Any], derive: Any) -> Record:
    artifact = load_artifact(sources, model)
    return prove(
        ledger, sources, kind=kind, subject=artifact.name, provenance=artifact.data.provenance, inputs=inputs,
        derive=derive,
    )  # fmt: skip


def _class_of(records: Iterable[Record]) -> Provenance:
    return Provenance.weakest({record.provenance for record in records} or {Provenance.SYNTHETIC})


def waiver_of(record: Record) -> Waiver:
    """Return the waiver in a record; ParameterError where it is none that may be given."""
    return _waiver_from(record.body["inputs"], record.hash)


def _waiver_from(inputs: dict[str, Any], evidence: str) -> Waiver:
    return Waiver(
        blocker=inputs["blocker"],
        model=inputs["artifact"],
        by=inputs["by"],
        reason=inputs["reason"],
        ts=parse_utc(inputs["ts"]),
        expires_ts=parse_utc(inputs["expires"]),
        evidence=evidence,
    )
