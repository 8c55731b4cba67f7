"""Train a successor again and again until one is proven, on an alpha that all attempts share. The champion stays.

Figures of ``retrain_attempt``: ``verdict`` and ``checks`` (those of the chosen candidate's gate, and its holdout PSI, watched);
``number``, ``attempts_max``, ``alpha`` (this attempt's), ``alpha_spent``, ``alpha_total``; ``replaces``, ``because``; ``data`` {start, end};
``candidates`` [{set, model, name, artifact, rows, validate_auc, auc, precision_at_20, verdict, chosen}]; ``not_trained``; ``holdout`` {verdict,
overall_psi, max_psi, rows}; ``timeline`` [{step, start, end}] and ``next_steps``, computed from the plan and the checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from probatum.core.canonical import canonical_json
from probatum.core.clock import NS_PER_DAY, NS_PER_S, format_utc, parse_utc
from probatum.core.errors import BlockedError, DataError, InputError, IntegrityError, ParameterError
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.canary import make_plan, rate_of
from probatum.pipeline.drift import KIND as DRIFT
from probatum.pipeline.drift import TEST, snapshot
from probatum.pipeline.evidence import prove_once
from probatum.pipeline.gate import run_gate
from probatum.pipeline.ports import Ledger, Progress, Record, Sources
from probatum.pipeline.proposals import ATTEMPT, OPEN, Proposal, proposals
from probatum.pipeline.registry import CHALLENGER, CHAMPION, aliases, load_artifact, move_alias
from probatum.pipeline.retrain_data import KIND as DATA
from probatum.pipeline.retrain_data import check_data
from probatum.pipeline.rollout import read_plan
from probatum.pipeline.summary import reasons_of
from probatum.pipeline.training import TrainingPlan, train
from probatum.rollout.criteria import ALPHA, RETRAIN_ATTEMPTS_MAX
from probatum.rollout.plan import Plan, planned_s
from probatum.rollout.policy import shipped_policy

TARGET = "large_move@60s"
CANDIDATES = (("v1.8.1", "logistic"), ("robust", "logistic"))
"""Sets and models that are compared; a user's own model, installed as an entry point, joins as SET:MODEL."""

ALPHA_EACH = ALPHA / RETRAIN_ATTEMPTS_MAX
"""The equal share: whatever the dependence between attempts, the chance that any passes wrongly is at most ALPHA."""


class Outcome(msgspec.Struct, frozen=True):
    """Hold what came of a run: the data check, and the attempt where the data allowed one."""

    data: Record
    attempt: Record | None

    @property
    def verdict(self) -> Verdict:
        """Return the verdict of the attempt, or of the data that did not allow it."""
        return Verdict((self.attempt or self.data).body["figures"]["verdict"])


def choose_proposal(records: Sequence[Record], reference: str = "") -> Proposal:
    """Return the proposal of this hash (eight digits or more) or subject, or the newest open one; BlockedError for none."""
    known = proposals(records)
    if not reference:
        found = [item for item in known if item.state == OPEN]
    else:
        by_hash = [item for item in known if len(reference) >= 8 and item.record.hash.startswith(reference)]
        found = by_hash or [item for item in known if item.record.subject == reference]
    if not found:
        about = f"no proposal {reference}" if reference else "no retrain proposal is open"
        raise BlockedError(f"{about}: `probatum retrain ls` lists them, `probatum retrain propose` opens one")
    return found[-1]


def plans_of(
    symbols: Sequence[str],
    candidates: Sequence[tuple[str, str]] = CANDIDATES,
    *,
    target: str = TARGET,
    grid_ns: int | None = None,
) -> list[TrainingPlan]:
    """Return what is trained: each candidate on the same symbols, target and split."""
    if not candidates or len(set(candidates)) != len(candidates):
        raise ParameterError("candidates", "at least one SET:MODEL, each once", candidates)
    return [
        TrainingPlan(symbols=tuple(symbols), set=feature_set, model=model, target=target, grid_ns=grid_ns)
        for feature_set, model in candidates
    ]


def run_retrain(
    ledger: Ledger,
    sources: Sources,
    proposal: Proposal,
    candidates: Sequence[tuple[str, str]] = CANDIDATES,
    *,
    target: str = TARGET,
    progress: Progress | None = None,
) -> Outcome:
    """Check the newest data, train and gate every candidate, and append ``retrain_attempt``; on PASS move ``challenger``.

    The candidate is chosen by its validation AUC, so the test part is looked at once an attempt, by the chosen one. On the
    same data there is one attempt: an interrupted run goes on where it stopped. Raises BlockedError where the proposal is
    settled, DataError where no candidate could be trained.
    """
    replaced = load_artifact(sources, proposal.model)
    plans = plans_of(replaced.data.symbols, candidates, target=target, grid_ns=replaced.grid_ns)
    data = check_data(ledger, sources, proposal.model, plans, progress)
    made = next((item for item in proposal.attempts if item.body["inputs"]["data"] == data.hash), None)
    if made is None and proposal.state != OPEN:
        raise BlockedError(f"proposal {proposal.record.hash[:12]} is {proposal.state}: there is nothing to try")
    if data.body["figures"]["verdict"] == "PASS" and made is None:
        made = _attempt(ledger, sources, proposal, plans, data, progress)
    if made is not None:
        _make_challenger(ledger, sources, made)
    return Outcome(data, made)


def judge_candidate(
    ledger: Ledger, sources: Sources, plan: TrainingPlan, progress: Progress | None = None
) -> dict[str, str]:
    """Train one candidate and judge it at an attempt's alpha; return the hashes of both records."""
    trained = train(ledger, sources, plan, progress)
    champion = aliases(ledger.records(kind="alias")).get(CHAMPION)
    gate = run_gate(ledger, sources, trained.digest, champion=champion, alpha=ALPHA_EACH, progress=progress)
    return {"train": trained.record.hash, "gate": gate.hash}


def _attempt(
    ledger: Ledger,
    sources: Sources,
    proposal: Proposal,
    plans: Sequence[TrainingPlan],
    data: Record,
    progress: Progress | None,
) -> Record:
    judged, problems = [], {}
    for plan in plans:
        try:
            judged.append(judge_candidate(ledger, sources, plan, progress))
        except InputError as error:
            problems[plan.subject] = error.message
    if not judged:
        raise DataError(f"no candidate could be trained: {next(iter(problems.values()))}")
    by_hash = {record.hash: record for record in ledger.records()}
    digest = _chosen([by_hash[item["train"]] for item in judged]).body["figures"]["artifact"]
    artifact = load_artifact(sources, digest)
    dataset = sources.datasets.load(artifact.data.symbols[0], artifact.data.sha256[0])
    canary = make_plan(sources, digest, shipped_policy("default"), rate_per_s=rate_of(dataset))
    inputs = {
        "artifact": digest,
        "proposal": proposal.record.hash,
        "previous": proposal.attempts[-1].hash if proposal.attempts else None,
        "data": data.hash,
        "candidates": judged,
        "not_trained": problems,
        "holdout": snapshot(ledger, sources, digest, window=TEST, progress=progress).hash,
        "rollout_plan": sources.blobs.put("rollout_plan", canonical_json(msgspec.to_builtins(canary))),
    }
    return prove_once(
        ledger,
        sources,
        kind=ATTEMPT,
        subject=artifact.name,
        provenance=Provenance.weakest([artifact.data.provenance, data.provenance]),
        inputs=inputs,
        derive=figures,
        standing=lambda records: next((r for r in records if _same_place(r.body["inputs"], inputs)), None),
    )


def _same_place(known: dict[str, Any], asked: dict[str, Any]) -> bool:
    return all(known[name] == asked[name] for name in ("proposal", "data"))


def _chosen(trainings: Sequence[Record]) -> Record:
    """Return the training whose model ranked the validation rows best; of equals the first."""
    return max(trainings, key=lambda record: record.body["figures"]["metrics"].get("validate_auc", 0.0))


def _make_challenger(ledger: Ledger, sources: Sources, attempt: Record) -> None:
    """Give a passed attempt's model the alias once: whoever moved it away later did so on purpose."""
    moved = {record.body["inputs"].get("because") for record in ledger.records(kind="alias")}
    if attempt.body["figures"]["verdict"] == "PASS" and attempt.hash not in moved:
        move_alias(ledger, sources, CHALLENGER, attempt.body["inputs"]["artifact"], because=attempt.hash)


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute an attempt from the records that it names.

    Raises IntegrityError where one is missing, a gate was laxer than the attempt's share of alpha, another candidate would
    have been chosen, or the attempts do not follow one another.
    """
    known = {record.hash: record for record in sources.ledger.records()}
    proposal, data, holdout = (_named(known, inputs[name]) for name in ("proposal", "data", "holdout"))
    pairs = [(_named(known, item["train"]), _named(known, item["gate"])) for item in inputs["candidates"]]
    number = _number(known, inputs)
    _require_fair(inputs, pairs, data, holdout, number)
    gate = next(gate for _, gate in pairs if gate.body["inputs"]["artifact"] == inputs["artifact"])
    found, drift = gate.body["figures"], holdout.body["figures"]
    plan = read_plan(sources, inputs["rollout_plan"])
    end = data.body["figures"]["span"]["end"]
    return {
        "verdict": found["verdict"],
        "checks": [*found["checks"], *({**check, "enforced": False} for check in drift["checks"])],
        "number": number,
        "attempts_max": RETRAIN_ATTEMPTS_MAX,
        "alpha": round(ALPHA_EACH, 10),
        "alpha_spent": round(number * ALPHA_EACH, 10),
        "alpha_total": ALPHA,
        "target": found["target"],
        "replaces": load_artifact(sources, proposal.body["inputs"]["artifact"]).name,
        "because": proposal.body["figures"]["reason"],
        "data": data.body["figures"]["span"],
        "candidates": [_candidate(*pair, inputs["artifact"]) for pair in pairs],
        "not_trained": inputs["not_trained"],
        "holdout": {name: drift[name] for name in ("verdict", "overall_psi", "max_psi", "rows")},
        "timeline": timeline(plan, parse_utc(end), passed=found["verdict"] == "PASS"),
        "next_steps": next_steps(gate.subject, found, number),
    }


def _named(known: dict[str, Record], name: str) -> Record:
    if name not in known:
        raise IntegrityError(ATTEMPT, f"names a record that the ledger does not hold: {name[:12]}…")
    return known[name]


def _number(known: dict[str, Record], inputs: dict[str, Any]) -> int:
    if inputs["previous"] is None:
        return 1
    previous = _named(known, inputs["previous"])
    if previous.kind != ATTEMPT or previous.body["inputs"]["proposal"] != inputs["proposal"]:
        raise IntegrityError(ATTEMPT, f"the attempt before it, record {previous.seq}, is of another proposal")
    return int(previous.body["figures"]["number"]) + 1


def _require_fair(
    inputs: dict[str, Any], pairs: list[tuple[Record, Record]], data: Record, holdout: Record, number: int
) -> None:
    if number > RETRAIN_ATTEMPTS_MAX:
        raise IntegrityError(ATTEMPT, f"is number {number} of at most {RETRAIN_ATTEMPTS_MAX}: its alpha is spent")
    if data.kind != DATA or data.body["figures"]["verdict"] != "PASS":
        raise IntegrityError(ATTEMPT, f"rests on data that did not pass, record {data.seq}")
    for trained, gate in pairs:
        if trained.body["inputs"]["datasets"] != data.body["inputs"]["datasets"]:
            raise IntegrityError(ATTEMPT, f"rests on a training on data that were not checked, record {trained.seq}")
        if gate.body["inputs"]["alpha"] > ALPHA_EACH:
            raise IntegrityError(ATTEMPT, f"rests on a gate at alpha {gate.body['inputs']['alpha']}, record {gate.seq}")
        if gate.body["inputs"]["artifact"] != trained.body["figures"]["artifact"]:
            raise IntegrityError(ATTEMPT, f"rests on a gate of another model, record {gate.seq}")
    if _chosen([trained for trained, _ in pairs]).body["figures"]["artifact"] != inputs["artifact"]:
        raise IntegrityError(ATTEMPT, "is about a candidate that was not the best on the validation part")
    if (holdout.kind, holdout.body["inputs"].get("artifact")) != (DRIFT, inputs["artifact"]):
        raise IntegrityError(ATTEMPT, f"rests on the drift of another model, record {holdout.seq}")


def _candidate(trained: Record, gate: Record, chosen: str) -> dict[str, Any]:
    training, found = trained.body["figures"], gate.body["figures"]
    bounds = {check["name"]: check["lower"] for check in found["checks"]}
    return {
        **{name: trained.body["inputs"][name] for name in ("set", "model", "name")},
        "artifact": training["artifact"],
        "rows": training["rows"],
        "validate_auc": training["metrics"].get("validate_auc"),
        **{f"{name}{suffix}": value for name in ("auc", "precision_at_20") for suffix, value in (("", found[name]), ("_lower", bounds[name]))},
        "verdict": found["verdict"],
        "chosen": training["artifact"] == chosen,
    }  # fmt: skip


def timeline(plan: Plan, end_ns: int, *, passed: bool) -> list[dict[str, Any]]:
    """Return the steps from the end of the data to the earliest promotion, by the plan's own forecast.

    Without a PASS it begins with the next attempt, a day of data later, and holds if that one passes.
    """
    watch = plan.policy.validation
    spans = [] if passed else [("next attempt", NS_PER_DAY // NS_PER_S)]
    spans += [("canary, without an error", planned_s(plan)), ("validation, at least", watch.min_s)]
    spans += [("validation, recommended", watch.recommended_s - watch.min_s)]
    steps, start = [], end_ns
    for step, seconds in spans:
        steps.append({"step": step, "start": format_utc(start), "end": format_utc(start + seconds * NS_PER_S)})
        start += seconds * NS_PER_S
    return steps


def next_steps(name: str, found: dict[str, Any], number: int) -> list[str]:
    """Return what to do now, in order: roll out, or what would settle what is open."""
    if found["verdict"] == "PASS":
        return [
            "serve the challenger and prove it: probatum engine --model challenger; probatum smoke; probatum shadow smoke",
            f"rehearse and start its canary: probatum canary preflight {name}; probatum canary dry-run {name}; probatum canary start",
            f"see what still blocks it: probatum blockers {name}",
        ]
    left = RETRAIN_ATTEMPTS_MAX - number
    again = f"try again on newer data: probatum retrain run ({left} of {RETRAIN_ATTEMPTS_MAX} attempts left)"
    spent = "the proposal is exhausted: look for other features or another target before asking again"
    return [*(str(reason) for reason in reasons_of(found)), again if left else spent]
