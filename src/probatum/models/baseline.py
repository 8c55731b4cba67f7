"""Decide without a model: the deterministic rule of each target, always available, no IO.

A rule reads a snapshot, a mapping from names to floats. It takes the seed's names and the names of the feature sets alike
(``spreadBp`` or ``spread_bp``, ``rsi14`` or ``rsi14_z``), so that the executor and the gate ask the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from probatum.core.errors import ParameterError, UnknownNameError


class Baseline(Protocol):
    """A rule that scores one snapshot."""

    @property
    def name(self) -> str:
        """Name the rule in records."""
        ...

    def reads(self, names: Sequence[str]) -> bool:
        """Say whether a snapshot of these names holds what the rule needs."""
        ...

    def score_one(self, snapshot: Mapping[str, float]) -> float:
        """Return a score in [0, 1]; above 0.5 the rule decides yes."""
        ...


class Heuristic:
    """Score direction as the seed does: 0.5, moved by an extreme RSI, a large volume and a wide spread.

    A snapshot without volume or spread (bars often have neither) leaves those terms out.

    >>> Heuristic().score_one({"rsi14": 75.0, "vol1m": 2e7, "spreadBp": 1.0})
    0.65
    """

    name = "heuristic-v1.8"

    def reads(self, names: Sequence[str]) -> bool:
        return "rsi14" in names or "rsi14_z" in names

    def score_one(self, snapshot: Mapping[str, float]) -> float:
        rsi = snapshot["rsi14"] if "rsi14" in snapshot else 50.0 + 30.0 * snapshot["rsi14_z"]
        score = 0.5
        if rsi > 70.0:
            score += 0.1
        elif rsi < 30.0:
            score -= 0.1
        if _volume(snapshot) > 1e7:
            score += 0.05
        if snapshot.get("spread_bp", snapshot.get("spreadBp", 0.0)) > 10.0:
            score -= 0.05
        return min(max(score, 0.0), 1.0)


class VolatilityRule:
    """Score a large move as rv10/(rv10 + rv60): yes when the last ten minutes moved more than the last hour did.

    Volatility clusters (Engle 1982), so this is the rule a model has to beat.

    >>> VolatilityRule().score_one({"log_rv10_rv60": 0.0})
    0.5
    """

    name = "volatility-rule"

    def reads(self, names: Sequence[str]) -> bool:
        return "log_rv10_rv60" in names

    def score_one(self, snapshot: Mapping[str, float]) -> float:
        return 0.5 + 0.5 * math.tanh(snapshot["log_rv10_rv60"] / 2.0)


class QueueRule:
    """Score the next move by the side of the longer queue; the distance from 0.5 is half the imbalance.

    >>> QueueRule().score_one({"queue_imbalance": -1.0})
    0.0
    """

    name = "queue-imbalance-sign"

    def reads(self, names: Sequence[str]) -> bool:
        return "queue_imbalance" in names

    def score_one(self, snapshot: Mapping[str, float]) -> float:
        return min(max(0.5 + 0.5 * snapshot["queue_imbalance"], 0.0), 1.0)


BASELINES: dict[str, Baseline] = {
    "direction": Heuristic(),
    "large_move": VolatilityRule(),
    "next_move": QueueRule(),
}


def get_baseline(target: str) -> Baseline:
    """Return the rule of a target by its name (``large_move@60s``); UnknownNameError lists the known kinds."""
    kind = target.split("@")[0].split(":")[0]
    if kind not in BASELINES:
        raise UnknownNameError("kind of target", kind, BASELINES)
    return BASELINES[kind]


def rule_beside(target: str, names: Sequence[str]) -> str:
    """Return the kind of rule to run beside a model: its target's own, else the first whose inputs its features hold.

    Raises ParameterError where they hold no rule's.

    >>> rule_beside("direction@10s:drop-unchanged", ["queue_imbalance"])
    'next_move'
    """
    own = get_baseline(target)
    fitting = [kind for kind, rule in BASELINES.items() if rule.reads(names)]
    if not fitting:
        raise ParameterError("features", "what some baseline reads", list(names))
    return next((kind for kind in fitting if BASELINES[kind] is own), fitting[0])


def bind(baseline: Baseline, names: Sequence[str]) -> Callable[[Sequence[float]], float] | None:
    """Return the rule as a function of a feature vector in the order of ``names``; None where the set lacks its inputs."""
    if not baseline.reads(names):
        return None
    keys = tuple(names)
    return lambda row: baseline.score_one(dict(zip(keys, row, strict=True)))


def _volume(snapshot: Mapping[str, float]) -> float:
    if "vol1m" in snapshot:
        return snapshot["vol1m"]
    return math.expm1(snapshot.get("log_vol1m", snapshot.get("vol1m_log", 0.0)))
