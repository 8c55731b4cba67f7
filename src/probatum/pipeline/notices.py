"""Enter what Alertmanager says into the chain, each firing and each resolving once, and ask for what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from probatum.core.clock import NS_PER_S, parse_utc
from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance
from probatum.pipeline.evidence import prove_once
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.pipeline.proposals import open_proposal
from probatum.rollout.notices import Notice, propose

KIND = "alert"


def record_alert(ledger: Ledger, sources: Sources, notice: Notice) -> Record:
    """Append ``alert``, or return the record that says the same: told again, or told to another controller.

    The class is synthetic, for what comes in over HTTP may come from anywhere.
    """
    inputs = msgspec.to_builtins(notice)
    return prove_once(
        ledger,
        sources,
        kind=KIND,
        subject=notice.name,
        provenance=Provenance.SYNTHETIC,
        inputs=inputs,
        derive=figures,
        standing=lambda records: next((r for r in records if key(r.body["inputs"]) == key(inputs)), None),
    )


def key(inputs: dict[str, Any]) -> tuple[str, str, str]:
    """Return what makes two notices the same."""
    return inputs["fingerprint"], inputs["starts"], inputs["status"]


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:  # noqa: ARG001
    """Return what a notice says: which alert, how grave, whether it holds, and how long it held."""
    notice = msgspec.convert(inputs, Notice)
    lasted_s = None if notice.ends is None else (parse_utc(notice.ends) - parse_utc(notice.starts)) / NS_PER_S
    return {
        "alert": notice.name,
        "severity": notice.labels.get("severity"),
        "status": notice.status,
        "lasted_s": lasted_s,
    }


def take(ledger: Ledger, sources: Sources, notices: Sequence[Notice], now_ns: int) -> dict[str, Any]:
    """Record notices and open the proposals that they ask for; calling it again with the same changes nothing.

    A proposal for a model that is not in the workspace is not made, and named in what is returned.
    """
    records = [record_alert(ledger, sources, notice) for notice in notices]
    proposals, problems = [], []
    for notice, record in zip(notices, records, strict=True):
        if (model := propose(notice)) is None:
            continue
        try:
            proposals.append(
                open_proposal(ledger, sources, model=model, trigger="drift", evidence=record, now_ns=now_ns).hash
            )
        except IntegrityError as error:
            problems.append(error.message)
    return {"records": [record.hash for record in records], "proposals": sorted(set(proposals)), "problems": problems}
