"""The rules decide when no model may, so each is held to its table."""

from __future__ import annotations

import math

import pytest

from probatum.core.errors import ParameterError, UnknownNameError
from probatum.features.sets import FEATURE_SETS
from probatum.models.baseline import Heuristic, QueueRule, VolatilityRule, bind, get_baseline, rule_beside


@pytest.mark.parametrize(
    ("rsi14", "vol1m", "spread_bp", "score"),
    [
        (50.0, 0.0, 1.0, 0.5),
        (70.1, 0.0, 1.0, 0.6),
        (70.0, 0.0, 1.0, 0.5),
        (29.9, 0.0, 1.0, 0.4),
        (50.0, 1.1e7, 1.0, 0.55),
        (50.0, 1e7, 10.0, 0.5),
        (50.0, 0.0, 10.1, 0.45),
        (80.0, 2e7, 20.0, 0.6),
    ],
)
def test_heuristic_is_the_seeds(rsi14: float, vol1m: float, spread_bp: float, score: float) -> None:
    """Facts §1: the same score under the seed's names and under each feature set's names."""
    rule = Heuristic()
    assert rule.score_one({"rsi14": rsi14, "vol1m": vol1m, "spreadBp": spread_bp}) == pytest.approx(score)
    assert rule.score_one({"rsi14": rsi14, "vol1m": vol1m, "spread_bp": spread_bp}) == pytest.approx(score)
    scaled = {"rsi14_z": (rsi14 - 50) / 30, "vol1m_log": math.log1p(vol1m), "spread_bp": spread_bp}
    if rsi14 != 70.0 and vol1m != 1e7:  # on an edge the rounding of the scaled value decides
        assert rule.score_one(scaled) == pytest.approx(score)


def test_heuristic_without_volume_or_spread() -> None:
    """What a snapshot does not hold is left out, not taken for zero or refused."""
    assert Heuristic().score_one({"rsi14": 80.0}) == pytest.approx(0.6)


def test_volatility_rule_is_the_share_of_recent_volatility() -> None:
    """score = rv10/(rv10 + rv60), so 0.5 is where they are equal; no ratio overflows."""
    assert VolatilityRule().score_one({"log_rv10_rv60": math.log(3.0)}) == pytest.approx(0.75)
    assert VolatilityRule().score_one({"log_rv10_rv60": -1e6}) == 0.0


@pytest.mark.parametrize(("imbalance", "score"), [(-1.0, 0.0), (0.0, 0.5), (0.5, 0.75), (7.0, 1.0)])
def test_queue_rule_follows_the_longer_queue(imbalance: float, score: float) -> None:
    """The side of 0.5 is the sign of the imbalance, and the score stays within [0, 1]."""
    assert QueueRule().score_one({"queue_imbalance": imbalance}) == score


@pytest.mark.parametrize(
    ("target", "name"), [("direction@60s", "v1.8-b0"), ("large_move@60s", "robust"), ("next_move", "book")]
)
def test_rules_read_the_feature_sets(target: str, name: str) -> None:
    """Each target's rule finds its inputs by name in the set meant for it."""
    names = FEATURE_SETS[name].names
    rule = bind(get_baseline(target), names)
    assert rule is not None
    assert 0.0 <= rule([0.1] * len(names)) <= 1.0


def test_rule_without_inputs_is_none() -> None:
    """A set that lacks the rule's inputs gives no rule, rather than a made-up score."""
    assert bind(get_baseline("large_move@60s"), FEATURE_SETS["v1.8.1"].names) is None


def test_unknown_target_lists_the_known() -> None:
    """A target without a rule is refused by name."""
    with pytest.raises(UnknownNameError, match="large_move"):
        get_baseline("larg_move@60s")


@pytest.mark.parametrize(
    ("target", "feature_set", "kind"),
    [
        ("direction@60s", "v1.8-b0", "direction"),
        ("large_move@60s", "robust", "large_move"),
        ("large_move@60s", "v1.8.1", "direction"),
        ("direction@10s:drop-unchanged", "book", "next_move"),
    ],
)
def test_some_rule_can_run_beside_every_set(target: str, feature_set: str, kind: str) -> None:
    """The target's own where the features hold its inputs, else one that reads them: an executor needs a rule."""
    assert rule_beside(target, FEATURE_SETS[feature_set].names) == kind
    with pytest.raises(ParameterError, match="what some baseline reads"):
        rule_beside(target, ["bias"])
