"""List what stands between a model and promotion: a pure function of the proofs at hand, the clock and the waivers.

A proof that is missing, is about another model, is too old, or could not be measured blocks just as a failed one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from probatum.core.clock import NS_PER_S, format_utc
from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance, Verdict
from probatum.rollout.plan import Policy

Severity = Literal["critical", "warning"]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what one record proves about a model. ``provenance`` None: it is no market evidence (a review, a drill).

    ``figures`` are what a requirement compares: ``seconds`` (validation), ``critical``, ``warning``, ``window_s`` (alerts).
    ``by`` is the person behind a review.
    """

    name: str
    model: str
    verdict: Verdict
    evidence: str
    ts: int
    provenance: Provenance | None = None
    figures: dict[str, float] = {}
    by: str = ""


class Waiver(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one person's word that a blocker may stand for a while; it is evidence itself, and it expires."""

    blocker: str
    model: str
    by: str
    reason: str
    ts: int
    expires_ts: int
    evidence: str

    def __post_init__(self) -> None:
        for name in ("by", "reason"):
            if not getattr(self, name).strip():
                raise ParameterError(name, "given: a waiver has a name and a reason", getattr(self, name))
        if self.blocker not in WAIVABLE:
            raise ParameterError("blocker", f"one that may be waived: {', '.join(sorted(WAIVABLE))}", self.blocker)
        if self.expires_ts <= self.ts:
            raise ParameterError("expires_ts", "later than ts", self.expires_ts)


class Blocker(msgspec.Struct, frozen=True):
    """Hold one thing that is missing: what was found, what is required, where it stands, and what clears it."""

    name: str
    value: str
    bound: str
    evidence: str
    clears: str
    severity: Severity
    waived_by: str = ""


class Requirement(msgspec.Struct, frozen=True):
    """Declare one requirement of the promote gate. ``find`` returns what is wrong with its proof, or nothing."""

    name: str
    bound: str
    clears: str
    severity: Severity = "critical"
    waivable: bool = True
    find: Callable[[Proof, Policy, int], str] | None = None


def _too_old(field: str) -> Callable[[Proof, Policy, int], str]:
    def find(proof: Proof, policy: Policy, now_ns: int) -> str:
        age_s = (now_ns - proof.ts) // NS_PER_S
        allowed_s = getattr(policy.promotion, field)
        return f"{age_s:,} s old, at most {allowed_s:,} s" if not 0 <= age_s <= allowed_s else ""

    return find


def _validation(proof: Proof, policy: Policy, now_ns: int) -> str:  # noqa: ARG001
    seconds = proof.figures.get("seconds", 0.0)
    short = not seconds >= policy.validation.min_s
    return f"{seconds / 3600:.1f} h of fresh data, at least {policy.validation.min_s / 3600:g} h" if short else ""


def _alerts(proof: Proof, policy: Policy, now_ns: int) -> str:
    limits = policy.promotion
    critical, warning, window_s = (proof.figures.get(name) for name in ("critical", "warning", "window_s"))
    if critical is None or warning is None or window_s is None:
        return "alert history not measured"
    if not window_s >= limits.alert_window_s:
        return f"window of {window_s:g} s, at least {limits.alert_window_s} s"
    if critical or not warning <= limits.alert_warnings_max:
        return f"{critical:g} critical, {warning:g} warnings; 0 and at most {limits.alert_warnings_max} allowed"
    return _too_old("drift_age_max_s")(proof, policy, now_ns)


REQUIREMENTS: tuple[Requirement, ...] = (
    Requirement("offline_gate", "PASS", "an offline gate that passes"),
    Requirement("level_features", "PASS", "a feature set without price or volume levels"),
    Requirement("canary", "completed", "a completed canary of this model"),
    Requirement("drift", "PASS, fresh", "a drift snapshot that passes", find=_too_old("drift_age_max_s")),
    Requirement("validation", "PASS over its window", "validation on 24-48 h of fresh data", find=_validation),
    Requirement("alerts", "silent", "a day without alerts of enforced criteria, in Prometheus", find=_alerts),
    Requirement("outcome", "PASS: not worse than what decides now", "more decisions whose outcome is known"),
    Requirement("drill", "PASS, not stale", "a drill", severity="warning", find=_too_old("drill_age_max_s")),
    Requirement("review", "by a second person", "a review by somebody else than the one who asks", waivable=False),
    Requirement(
        "evidence_verified", "PASS, fresh", "'evidence verify' without a finding", waivable=False,
        find=_too_old("verify_age_max_s"),
    ),
)  # fmt: skip
"""The promote gate, in the order of the story. ``provenance_live`` is computed from all of them and cannot be waived."""

WAIVABLE = frozenset(item.name for item in REQUIREMENTS if item.waivable)
"""Blockers that a waiver may cover."""


def find_blockers(
    model: str,
    proofs: Iterable[Proof],
    policy: Policy,
    now_ns: int,
    *,
    asked_by: str,
    waivers: Sequence[Waiver] = (),
) -> tuple[Blocker, ...]:
    """Return every blocker of a promotion of ``model`` (digest) asked for by ``asked_by``; waived ones name who waived.

    Of several proofs of one name the newest counts: an old PASS does not outlive a newer FAIL.
    """
    newest: dict[str, Proof] = {}
    for proof in sorted(proofs, key=lambda item: item.ts):
        if proof.model == model:
            newest[proof.name] = proof
    found = [_blocker(item, newest.get(item.name), policy, now_ns, asked_by) for item in REQUIREMENTS]
    found.append(_provenance(newest))
    return tuple(_waived(item, model, waivers, now_ns) for item in found if item is not None)


def open_blockers(blockers: Iterable[Blocker], severity: Severity | None = None) -> tuple[Blocker, ...]:
    """Return the blockers that no waiver covers, of one severity or of any."""
    return tuple(item for item in blockers if not item.waived_by and severity in (None, item.severity))


def _blocker(item: Requirement, proof: Proof | None, policy: Policy, now_ns: int, asked_by: str) -> Blocker | None:
    problem = "missing" if proof is None else _problem(item, proof, policy, now_ns, asked_by)
    evidence = "" if proof is None else proof.evidence
    return Blocker(item.name, problem, item.bound, evidence, item.clears, item.severity) if problem else None


def _problem(item: Requirement, proof: Proof, policy: Policy, now_ns: int, asked_by: str) -> str:
    if proof.verdict is not Verdict.PASS:
        return proof.verdict.value
    if item.name == "review" and proof.by.strip().casefold() in ("", asked_by.strip().casefold()):
        return f"reviewed by {proof.by.strip() or 'nobody'}, who asks"
    return item.find(proof, policy, now_ns) if item.find else ""


def _provenance(newest: dict[str, Proof]) -> Blocker | None:
    """Return the blocker for evidence that is not live: the weakest record decides, and none at all is not live."""
    market = [proof for proof in newest.values() if proof.provenance is not None]
    weak = [proof for proof in market if proof.provenance is not Provenance.LIVE]
    if market and not weak:
        return None
    if not weak:
        return Blocker("provenance_live", "missing", "live", "", "the same steps on a live feed", "critical")
    weakest = Provenance.weakest(proof.provenance for proof in weak if proof.provenance)
    found = [proof for proof in weak if proof.provenance is weakest]
    value = f"{weakest.value} ({', '.join(proof.name for proof in found)})"
    return Blocker("provenance_live", value, "live", found[0].evidence, "the same steps on a live feed", "critical")


def _waived(blocker: Blocker, model: str, waivers: Sequence[Waiver], now_ns: int) -> Blocker:
    for waiver in waivers:
        if (waiver.blocker, waiver.model) == (blocker.name, model) and waiver.ts <= now_ns < waiver.expires_ts:
            word = f"{waiver.by} until {format_utc(waiver.expires_ts)}: {waiver.reason}"
            return msgspec.structs.replace(blocker, waived_by=word)
    return blocker
