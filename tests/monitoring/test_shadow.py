"""Shadow counts add up, whatever happens, and agree with scipy where scipy has a word."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from probatum.core.clock import NS_PER_MS
from probatum.monitoring.shadow import MATCH_DELTA, Outcome, ShadowCounts, is_match, spearman

scores = st.floats(0, 1)
heard = st.tuples(scores, scores, st.integers(0, 10**6), st.integers(0, 300 * NS_PER_MS))
missed = st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.OK])
stream = st.lists(heard | missed, max_size=60)


def counted(items: list[object]) -> ShadowCounts:
    counts = ShadowCounts()
    for item in items:
        if isinstance(item, Outcome):
            counts.missed(item)
        else:
            counts.heard(*item)  # type: ignore[misc]
    return counts


@given(items=stream)
def test_outcomes_sum_to_attempts(items: list[object]) -> None:
    """Nothing is lost or counted twice: outcomes, matches, deltas, latencies and slow calls all add up."""
    counts = counted(items)
    answered = [item for item in items if not isinstance(item, Outcome)]
    assert counts.attempts == len(items)
    assert counts.matches + counts.mismatches == sum(counts.deltas) == counts.shadow_latency.count == len(answered)
    assert counts.matches == sum(abs(b - s) < MATCH_DELTA for b, s, _, _ in answered)
    timeouts = items.count(Outcome.TIMEOUT)
    assert counts.slow == [sum(ns > ms * NS_PER_MS for *_, ns in answered) + timeouts for ms in (60, 80, 120)]
    assert (counts.match_rate is None) == (not answered)


@given(first=stream, second=stream)
def test_merged_counts_are_the_counts_of_both(first: list[object], second: list[object]) -> None:
    """Two processes' stored counts (through JSON) add up to those of one that saw everything."""
    merged = counted(first)
    merged.merge(json.loads(json.dumps(counted(second).to_dict())))
    assert merged.to_dict() == counted(first + second).to_dict()


def test_match_is_strict() -> None:
    """A difference of exactly 0.05 is no match, on either side."""
    assert not is_match(0.05, 0.0)
    assert not is_match(0.0, 0.05)
    assert is_match(0.0499999, 0.0)


@given(pairs=st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), scores), min_size=3, max_size=50))
def test_rank_correlation_is_scipys(pairs: list[tuple[float, float]]) -> None:
    """Ties included, Spearman's correlation equals scipy's; constant scores have none."""
    a, b = np.array(pairs).T
    ours = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_rank_correlation_forgets() -> None:
    """The rank window is bounded: what lies 1,024 decisions back no longer speaks."""
    counts = ShadowCounts()
    for i in range(500):
        counts.heard(i / 500, 1 - i / 500, 0, 0)
    assert counts.rank_correlation() == pytest.approx(-1.0)
    for i in range(1024):
        counts.heard(i / 1024, i / 1024, 0, 0)
    assert counts.rank_correlation() == pytest.approx(1.0)
