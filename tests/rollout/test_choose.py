"""Whose score is acted on, in what share."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from probatum.rollout.choose import Decision, Mode, Route, choose, is_in_share

scores = st.floats(0, 1)
anything = st.none() | st.floats()


@given(baseline=scores, champion=anything, challenger=anything, other=anything)
def test_the_challenger_changes_nothing(baseline: float, champion: float, challenger: float, other: float) -> None:
    """Two challengers, one decision, in every mode."""
    for mode in Mode:
        assert choose(mode, baseline, champion, challenger) == choose(mode, baseline, champion, other)


@given(baseline=scores, champion=anything, challenger=anything)
def test_only_gated_lets_a_finite_champion_decide(baseline: float, champion: float, challenger: float) -> None:
    """Off and observe return the baseline; gated the champion where there is one, and never a NaN."""
    for mode in (Mode.OFF, Mode.OBSERVE):
        assert choose(mode, baseline, champion, challenger) == Decision(baseline, Route.BASELINE)
    usable = champion is not None and math.isfinite(champion)
    expected = Decision(champion, Route.CHAMPION) if usable else Decision(baseline, Route.BASELINE)
    assert choose(Mode.GATED, baseline, champion, challenger) == expected


@given(unit=st.text(), salt=st.text(), low=st.floats(0, 1), high=st.floats(0, 1))
def test_shares_are_nested_and_sticky(unit: str, salt: str, low: float, high: float) -> None:
    """Who is in at a small share is in at a larger one, at every asking; nobody at 0, all at 1."""
    low, high = sorted((low, high))
    assert is_in_share(unit, high, salt) or not is_in_share(unit, low, salt)
    assert is_in_share(unit, 1.0, salt)
    assert not is_in_share(unit, 0.0, salt)


def test_share_is_a_share_and_plans_differ() -> None:
    """5 % of ids are within five standard errors of 5 %; another plan's 5 % is drawn independently."""
    ids = [f"run-{i}" for i in range(40_000)]
    first = {i for i in ids if is_in_share(i, 0.05, "plan-a")}
    second = {i for i in ids if is_in_share(i, 0.05, "plan-b")}
    assert abs(len(first) - 2_000) < 5 * math.sqrt(40_000 * 0.05 * 0.95)
    assert len(first & second) < 0.01 * len(ids)
