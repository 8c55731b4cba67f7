"""Say what each page of the dashboard says, as JSON-safe data: pure functions of what is remembered of the ledger and of what is live.

``live`` holds what no ledger says: ``controller`` (its status), ``executors`` (what each answers), ``jobs``, ``verifying``, ``retraining``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from probatum.monitoring.shadow import DELTA_EDGES, ShadowCounts
from probatum.pipeline.chronicle import Chronicle
from probatum.pipeline.control import KIND as DOCUMENT
from probatum.pipeline.heard import compared, executors_of, merge
from probatum.pipeline.ports import Record, Sources
from probatum.pipeline.promotion import ANY_MODEL, LATER, PROOF_KINDS, proofs_of, waiver_of
from probatum.pipeline.proposals import describe, proposals
from probatum.pipeline.registry import Version, aliases, versions
from probatum.pipeline.standing import standing
from probatum.pipeline.summary import (
    JUDGED,
    MODEL_KINDS,
    ModelSummary,
    checks_of,
    columns_of,
    mapping,
    mappings,
)
from probatum.rollout.blockers import WAIVABLE, find_blockers, open_blockers
from probatum.rollout.criteria import RETRAIN_ATTEMPTS_MAX
from probatum.rollout.machine import TERMINAL
from probatum.rollout.policy import shipped_policy

Live = Mapping[str, Any]
View = dict[str, Any]

ROLLOUTS_MAX = 12
MODELS_MAX = 30
PERIODIC = ("psi_snapshot", "match_report", "daily_report", "drill_reminder", "weekly_summary", "drill", "verification")
"""Kinds that come again and again; those that nobody has made yet are shown as missing."""
SHADOWED = ("shadow_replay", "shadow_smoke_1k")
_RUN_SHOWN = ("stage", "reason", "started", "ended", "reads", "phases", "against_baseline", "root_cause", "verdict")


class Known(NamedTuple):
    """Hold what a view is made from; ``name`` is what it was asked about."""

    chronicle: Chronicle
    sources: Sources
    now_ns: int
    live: Live
    name: str = ""


def overview(known: Known) -> View:
    """Say on one screen what is under way, what is judged how, and what asks for a human."""
    chronicle, live = known.chronicle, known.live
    return {
        "controller": live["controller"],
        "rollout": next((_standing(known, row["name"]) for row in _rows(known)), None),
        "models": models(known)["models"],
        "blockers": blockers(known)["models"],
        "notices": _notices(chronicle),
        "chain": _chain(chronicle),
        "executors": executors_of(live["executors"]),
    }


def rollouts(known: Known) -> View:
    """Say where a rollout stands: the one of a name, or the newest; and which others there are."""
    chronicle, live, name = known.chronicle, known.live, known.name
    rows = _rows(known)
    asked = name if name in chronicle.trails else next((row["name"] for row in rows), None)
    chosen = None if asked is None else _standing(known, asked)
    status = [
        item
        for item in mappings(live["controller"].get("rollouts"))
        if item.get("rollout") == (chosen or {}).get("name")
    ]
    run = chronicle.runs.get(chosen["name"]) if chosen else None
    return {
        "rollout": chosen,
        "source": status[0].get("source") if status else None,
        "run": {key: run.body["figures"].get(key) for key in _RUN_SHOWN} if run else None,
        "others": rows,
        "asked_for": name if name not in ("", *chronicle.trails) else "",
    }  # fmt: skip


def shadow(known: Known) -> View:
    """Say how challenger and baseline compare: what the executors have counted since they started, or the newest record of it."""
    chronicle, live, counts = known.chronicle, known.live, ShadowCounts()
    problems = [merge(counts, mapping(item)) for item in live["executors"]]
    executors = [
        {**item, "problem": problem or item["problem"]}
        for item, problem in zip(executors_of(live["executors"]), problems, strict=True)
    ]
    records = [record for kind in SHADOWED if (record := chronicle.latest(kind))]
    return {
        "executors": executors,
        "counted": compared(counts) if counts.attempts else None,
        "evidence": [{**_head(record), "figures": record.body["figures"]} for record in records],
        "delta_edges": list(DELTA_EDGES),
        "outcomes": [_outcome(record) for record in reversed(chronicle.of_kind("outcomes"))][:MODELS_MAX],
    }


def _outcome(record: Record) -> View:
    """Return how a model's logged decisions turned out, beside the baseline's and the champion's on the same ones."""
    figures = record.body["figures"]
    scorers = {name: mapping(figures.get(name)) for name in ("model", "baseline", "champion") if figures.get(name)}
    return {
        **_head(record),
        **_picked(record, ("verdict", "target", "logged", "joined", "start", "end", "losses", "calibration")),
        "scorers": [
            {"name": name, "auc": {**found, "value": found.get("auc")}, **{k: found.get(k) for k in ("brier", "ece")}}
            for name, found in scorers.items()
        ],
    }


def drift(known: Known) -> View:
    """Say how far each model's inputs have moved: newest snapshot with its null, and the snapshots before it."""
    chronicle = known.chronicle
    return {
        "models": [_drift(record, chronicle) for record in reversed(chronicle.of_kind("psi_snapshot")[-MODELS_MAX:])]
    }


def models(known: Known) -> View:
    """Say which artifacts there are, who points at them, and how each was judged; and which retrainings are proposed."""
    chronicle = known.chronicle
    found = versions(chronicle.registry)[::-1][:MODELS_MAX]
    return {
        "models": [
            {"name": item.name, "digest": item.digest, "aliases": list(item.aliases), "gate": item.verdict,
             "trained": _head(item.record), "target": item.record.body["figures"].get("target"),
             **_judged(_summary(chronicle, item))}
            for item in found
        ],
        "aliases": aliases(chronicle.registry),
        "proposals": [describe(item) for item in reversed(proposals(chronicle.registry))][:MODELS_MAX],
        "attempts_max": RETRAIN_ATTEMPTS_MAX,
        "retraining": known.live["retraining"],
    }  # fmt: skip


def evidence(known: Known) -> View:
    """Say how long the chain is, when it was verified last, and what was appended last."""
    chronicle, live = known.chronicle, known.live
    verified = chronicle.latest("verification")
    return {
        "chain": _chain(chronicle),
        "kinds": dict(chronicle.counts.most_common()),
        "verified": {**_head(verified), **_picked(verified, ("verdict", "records", "head"))} if verified else None,
        "verifying": live["verifying"],
        "recent": [_head(record) for record in reversed(chronicle.recent)],
    }


def jobs(known: Known) -> View:
    """Say what runs by the clock and when it last did, and what was alerted."""
    chronicle, live = known.chronicle, known.live
    latest = {kind: chronicle.latest(kind) for kind in PERIODIC}
    return {
        "jobs": live["jobs"],
        "periodic": [{"kind": kind, "last": _head(record) if record else None} for kind, record in latest.items()],
        "notices": _notices(chronicle),
    }


def blockers(known: Known) -> View:
    """Say what stands between each model and promotion, as of now: the gate's own function on the newest proofs."""
    chronicle, policy = known.chronicle, shipped_policy("default")
    waivers = [waiver_of(record) for record in chronicle.registry if record.kind == "waiver"]
    found = []
    for version in versions(chronicle.registry)[::-1][:MODELS_MAX]:
        records = [chronicle.proofs.get((kind, version.digest)) for kind in PROOF_KINDS]
        records += [chronicle.latest(kind) for kind in ANY_MODEL]
        proofs = [proof for record in records if record for proof in proofs_of(record, version.digest)]
        open_now = find_blockers(version.digest, proofs, policy, known.now_ns, asked_by="", waivers=waivers)
        found.append({
            "name": version.name, "digest": version.digest, "aliases": list(version.aliases),
            "open": len(open_blockers(open_now)), "blockers": msgspec.to_builtins(open_now),
        })  # fmt: skip
    return {"models": found, "policy": policy.name, "waivable": sorted(WAIVABLE), "later": sorted(LATER)}


VIEWS: dict[str, Callable[[Known], View]] = {
    "overview": overview,
    "rollout": rollouts,
    "shadow": shadow,
    "drift": drift,
    "models": models,
    "evidence": evidence,
    "jobs": jobs,
    "blockers": blockers,
}
"""The pages, in the order of the menu."""


# --- parts ----------------------------------------------------------------------------------------------------------


def _rows(known: Known) -> list[View]:
    """Return the newest rollouts in brief, those first that executors follow and that are not over."""
    found = []
    for name in [*known.chronicle.trails][::-1][:ROLLOUTS_MAX]:
        state = known.chronicle.trails[name].record.body["figures"]["state"]
        brief = {key: state.get(key) for key in ("stage", "share_percent", "verdict", "ts")}
        found.append({"name": name, "live": (DOCUMENT, name) in known.chronicle.newest, **brief})
    return sorted(found, key=lambda row: not row["live"] or row["stage"] in TERMINAL)


def _standing(known: Known, name: str) -> View:
    live = (DOCUMENT, name) in known.chronicle.newest
    return standing(known.chronicle.trails[name], known.sources, known.now_ns, live=live)


def _drift(record: Record, chronicle: Chronicle) -> View:
    figures = record.body["figures"]
    return {
        **_head(record),
        **{key: figures.get(key) for key in ("verdict", "status", "rows", "reference_rows")},
        "window": {key: mapping(figures.get("window")).get(key) for key in ("span", "start", "end")},
        "checks": checks_of(figures),
        "columns": [{**column["check"], "constant": bool(column.get("constant"))} for column in columns_of(figures)],
        "history": list(chronicle.drift.get(record.subject, ())),
    }


def _summary(chronicle: Chronicle, version: Version) -> ModelSummary:
    """Return the newest records about one artifact: of two of one name each keeps its own."""
    named = {kind: chronicle.newest.get((kind, version.name)) for kind in MODEL_KINDS}
    proofs = {kind: chronicle.proofs.get((kind, version.digest)) for kind in PROOF_KINDS}
    about = {
        kind: record
        for kind, record in named.items()
        if record and mapping(record.body["inputs"]).get("artifact") == version.digest
    }
    about |= {kind: record for kind, record in proofs.items() if record and kind in MODEL_KINDS}
    return ModelSummary(version.name, {kind: about[kind] for kind in MODEL_KINDS if kind in about})


def _judged(item: ModelSummary) -> View:
    checks = {name: item.check("offline_report", name) for name in ("auc", "precision_at_20")}
    return {
        **{
            name: {key: check.get(key) for key in ("value", "lower", "upper", "bound")}
            for name, check in checks.items()
        },
        "psi": mapping(item.figures("psi_snapshot").get("overall")).get("psi"),
        "verdicts": {kind: item.verdict(kind) for kind in (*JUDGED, "promote_check") if kind in item.records},
        "reasons": [msgspec.to_builtins(reason) for reason in item.reasons],
    }


def _notices(chronicle: Chronicle) -> list[View]:
    return [_notice(record) for record in reversed(chronicle.notices)][:20]


def _notice(record: Record) -> View:
    """Return an alert or a proposal; what is in it is another part's business, so plain values are shown as they are."""
    body = {**mapping(record.body.get("inputs")), **mapping(record.body.get("figures"))}
    return {
        **_head(record),
        "says": {key: value for key, value in body.items() if isinstance(value, str | int | float)},
    }


def _chain(chronicle: Chronicle) -> View:
    return {"records": chronicle.seq, "head": chronicle.head, "ts": chronicle.head_ts,
            "unreadable": chronicle.unreadable, "provenance": dict(chronicle.classes)}  # fmt: skip


def _head(record: Record) -> View:
    return {"seq": record.seq, "ts": record.ts, "kind": record.kind, "subject": record.subject,
            "provenance": record.provenance.value, "hash": record.hash}  # fmt: skip


def _picked(record: Record, names: Sequence[str]) -> View:
    return {name: record.body["figures"].get(name) for name in names}
