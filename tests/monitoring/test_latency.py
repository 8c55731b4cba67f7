"""The latency sketch against exact order statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.errors import ParameterError
from probatum.monitoring.latency import RELATIVE_ERROR, LatencySketch

values = st.lists(st.integers(0, (1 << 44) - 1) | st.integers(0, 10**7), min_size=1, max_size=80)


def sketch_of(items: list[int]) -> LatencySketch:
    sketch = LatencySketch()
    for item in items:
        sketch.add(item)
    return sketch


@given(items=values, q=st.floats(0, 1))
def test_a_quantile_is_within_the_stated_error(items: list[int], q: float) -> None:
    """Every quantile lies within RELATIVE_ERROR of the exact order statistic, for every input."""
    exact = sorted(items)[max(1, math.ceil(q * len(items))) - 1]
    assert abs(sketch_of(items).quantile_ns(q) - exact) <= RELATIVE_ERROR * exact


@given(first=values, second=values)
def test_merging_is_adding(first: list[int], second: list[int]) -> None:
    """The sketch of two processes, merged through their stored counts, is the sketch of one that saw everything."""
    merged = sketch_of(first)
    merged.merge(sketch_of(second).counts())
    assert merged.counts() == sketch_of(first + second).counts()
    assert merged.count == len(first) + len(second)


def test_lognormal_latencies_match_numpy() -> None:
    """On a realistic sample P50, P95 and P99 agree with numpy's inverted CDF within the bound."""
    items = (np.random.default_rng(7).lognormal(0.0, 1.0, 50_000) * 1e6).astype(np.int64)
    sketch = sketch_of(items.tolist())
    for q in (0.5, 0.95, 0.99):
        exact = float(np.quantile(items, q, method="inverted_cdf"))
        assert sketch.quantile_ns(q) == pytest.approx(exact, rel=RELATIVE_ERROR)


def test_what_cannot_be_is_clamped_or_refused() -> None:
    """A clock that stepped back counts as 0, a day counts in the last bucket; foreign buckets are refused whole."""
    sketch = sketch_of([-5, -(10**18), 10**18])
    assert (sketch.count, sketch.quantile_ns(0.5)) == (3, 0.0)
    assert sketch.quantile_ns(1.0) == pytest.approx(2**44, rel=RELATIVE_ERROR)
    assert math.isnan(LatencySketch().quantile_ns(0.5))
    for bad in ({5: 1, 99_999: 1}, {5: 1, 6: -1}):
        with pytest.raises(ParameterError, match="counts"):
            sketch.merge(bad)
    assert sketch.count == 3
    with pytest.raises(ParameterError, match="q must be"):
        sketch.quantile_ns(1.5)
