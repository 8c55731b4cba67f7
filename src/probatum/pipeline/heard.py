"""Read what executors answer about their shadows: they are other processes, so nothing in it is taken for granted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probatum.monitoring.shadow import SLOW_BOUNDS_MS, ShadowCounts
from probatum.pipeline.summary import mapping

View = dict[str, Any]


def executors_of(said: Sequence[Any]) -> list[View]:
    """Return each executor in brief; whatever it answered, numbers are numbers and texts are texts."""
    return [_executor(mapping(item)) for item in said]


def _executor(said: View) -> View:
    rollout, breaker = mapping(said.get("rollout")), mapping(said.get("breaker"))
    numbers = {"share": rollout.get("share"), "sequence": rollout.get("sequence"), "match_rate": said.get("match_rate")}
    texts = {"url": said.get("url"), "problem": said.get("problem"), "breaker": breaker.get("state")}
    return {
        **{key: str(value or "") for key, value in texts.items()},
        **{key: value if isinstance(value, int | float) else None for key, value in numbers.items()},
    }


def merge(counts: ShadowCounts, said: View) -> str:
    """Add what an executor counted, and return why that cannot be done where it answers something else."""
    if said.get("counts") is None:
        return ""
    try:
        ShadowCounts().merge(said["counts"])  # all of it or none
        counts.merge(said["counts"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return f"its counts cannot be read ({type(error).__name__})"
    return ""


def compared(counts: ShadowCounts) -> View:
    """Return counts with what is derived from them."""
    sketches = (("baseline", counts.baseline_latency), ("shadow", counts.shadow_latency))
    return {
        "attempts": counts.attempts,
        "outcomes": {outcome.value: count for outcome, count in counts.outcomes.items()},
        "matches": counts.matches,
        "mismatches": counts.mismatches,
        "match_rate": counts.match_rate,
        "agreements": counts.agreements,
        "deltas": list(counts.deltas),
        "latency_ms": {
            name: {f"p{round(q * 100)}": sketch.quantile_ms(q) if sketch.count else None for q in (0.5, 0.95, 0.99)}
            for name, sketch in sketches
        },
        "slower_than_ms": dict(zip(map(str, SLOW_BOUNDS_MS), counts.slow, strict=True)),
    }
