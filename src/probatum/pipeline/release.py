"""Mark in the source tree what was proven: a release candidate after a canary, a release after a promotion."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from probatum.core.clock import format_utc
from probatum.core.errors import StorageError
from probatum.pipeline.evidence import prove
from probatum.pipeline.ports import Record, Sources
from probatum.pipeline.promotion import check_promotion, rc_blockers
from probatum.pipeline.registry import load_artifact
from probatum.pipeline.rollout import Rollout

KIND = "release"


class SourceTree(Protocol):
    """A version-controlled work tree."""

    def mark(self, tag: str, message: str, entry: str) -> str:
        """Write the entry into CHANGELOG.md, tag the present commit, and return its hash; StorageError where refused."""
        ...


def tag_source(rollout: Rollout, kind: str, tree: SourceTree | None, *, now_ns: int, asked_by: str) -> Record:
    """Tag ``rc`` or ``release`` and append the record, once for the rollout's newest event.

    A candidate is tagged where no critical blocker stands; without a tree, or with a blocker, the record says why not.
    """
    last = rollout.head.hash if rollout.head else ""
    known = list(rollout.ledger.records(kind=KIND))
    if done := next((record for record in known if record.body["inputs"]["last"] == last), None):
        return done
    reason = _against(rollout, now_ns, asked_by) if kind == "rc" else ""
    tag = _next_tag([record.body["figures"] for record in known], kind)
    artifact = load_artifact(rollout.sources, rollout.plan.model)
    inputs = {
        "rollout": rollout.name,
        "artifact": rollout.plan.model,
        "name": artifact.name,
        "last": last,
        "release": kind,
        "tag": tag,
        "day": format_utc(now_ns)[:10],
        "plan": rollout.plan.digest,
        "commit": None,
        "reason": reason or ("" if tree else "no git work tree was given (--repo)"),
    }
    if tree is not None and not reason:
        try:
            inputs["commit"] = tree.mark(tag, f"{kind} of {artifact.name} {rollout.plan.model[:12]}", _entry(inputs))
        except StorageError as error:
            inputs["reason"] = error.message
    return prove(
        rollout.ledger, rollout.sources, kind=KIND, subject=artifact.name, provenance=rollout.provenance,
        inputs=inputs, derive=figures,
    )  # fmt: skip


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:  # noqa: ARG001
    """Return the tag, whether it was set, and the entry of the change log."""
    tagged = inputs["commit"] is not None
    return {
        "tag": inputs["tag"],
        "tagged": tagged,
        "reason": "" if tagged else inputs["reason"],
        "release": inputs["release"],
        "entry": _entry(inputs),
    }


def _against(rollout: Rollout, now_ns: int, asked_by: str) -> str:
    check = check_promotion(
        rollout.ledger,
        rollout.sources,
        rollout.plan.model,
        policy=rollout.plan.policy,
        now_ns=now_ns,
        asked_by=asked_by,
    )
    return "; ".join(f"{item.name} {item.value}" for item in rc_blockers(check))


def _next_tag(known: list[dict[str, Any]], kind: str) -> str:
    """Return v1-rc1, v1-rc2, … until v1 is released, then v2-rc1: numbers count what this ledger tagged."""
    set_ = [found for found in known if found["tagged"]]
    version = 1 + sum(found["release"] == "release" for found in set_)
    candidates = sum(found["tag"].startswith(f"v{version}-rc") for found in set_)
    return f"v{version}" if kind == "release" else f"v{version}-rc{candidates + 1}"


def _entry(inputs: dict[str, Any]) -> str:
    shown = {name: inputs[name] for name in ("artifact", "plan", "last")}
    lines = [f"## {inputs['tag']} ({inputs['day']})", "", f"- {inputs['release']} of model {inputs['name']}"]
    return "\n".join([*lines, *(f"- {name}: `{value}`" for name, value in msgspec.to_builtins(shown).items()), ""])
