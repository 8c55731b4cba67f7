"""Prove that faults take the model's influence to nothing in time: what ``drill`` measured on real services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.evidence import prove
from probatum.pipeline.ports import Ledger, Record, Sources
from probatum.rollout.criteria import Check

ZERO_MS = 1_000.0
"""From the fault to the last reply that the model decided."""


class Drilled(msgspec.Struct, frozen=True):
    """Hold what one fault did: replies before and after it by who decided, and when the model decided last."""

    fault: str
    replies: int
    by_model: int
    failed: int
    zero_after_ms: float


def record_drill(drilled: Sequence[Drilled], executors: int, ledger: Ledger, sources: Sources) -> Record:
    """Append ``drill``; its decisions are made up, so its class is synthetic, and it is about the machinery alone."""
    inputs = {"executors": executors, "faults": msgspec.to_builtins(list(drilled))}
    return prove(
        ledger, sources, kind="drill", subject="drill", provenance=Provenance.SYNTHETIC, inputs=inputs, derive=figures
    )


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:  # noqa: ARG001
    """Judge each fault: the model had decided before it, decided nothing a second later, and every decision was answered."""
    checks = [check for item in inputs["faults"] for check in _judge(msgspec.convert(item, Drilled))]
    verdict = Verdict.worst(check.verdict for check in checks)
    return {"verdict": verdict, "checks": msgspec.to_builtins(checks), "faults": inputs["faults"]}


def _judge(item: Drilled) -> list[Check]:
    measured = Verdict.PASS if item.zero_after_ms <= ZERO_MS else Verdict.FAIL
    measured = measured if item.by_model else Verdict.ERROR  # it had nothing to end
    answered = Verdict.PASS if not item.failed else Verdict.FAIL
    late, lost = float(item.zero_after_ms), float(item.failed)
    return [
        _check(
            f"{item.fault}_zero_ms", late, ZERO_MS, item.replies, measured, "the model decided for longer, or never"
        ),
        _check(
            f"{item.fault}_failed_replies", lost, 0.0, item.replies, answered, f"{item.failed} decisions not answered"
        ),
    ]


def _check(name: str, value: float, bound: float, n: int, verdict: Verdict, reason: str) -> Check:
    said = ("", "") if verdict is Verdict.PASS else (reason, "the fault found and mended, then another drill")
    return Check(name, value, bound, value, value, n, verdict, True, *said)
