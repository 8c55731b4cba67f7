"""What is learnt was known before what is judged."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.errors import DataError, ParameterError
from probatum.features.labels import parse_target
from probatum.features.samples import Samples
from probatum.features.sets import FEATURE_SETS
from probatum.features.splits import split, walk_forward

MINUTE, DAY = 60_000_000_000, 86_400_000_000_000


def samples(ts: list[int], spans: list[int]) -> Samples:
    """Return rows at these times whose labels are known that much later."""
    at = np.array(sorted(ts), dtype=np.int64)
    n = len(at)
    return Samples(
        ts=at,
        symbol=np.full(n, "X"),
        values=np.zeros((n, 1)),
        label=np.zeros(n, dtype=np.int8),
        fwd_return=np.zeros(n),
        label_end=at + np.array(spans, dtype=np.int64),
        feature_set=FEATURE_SETS["robust"],
        target=parse_target("direction@60s"),
    )


TIMES = st.lists(st.integers(0, 400), min_size=10, max_size=120)


@st.composite
def some_samples(draw: st.DrawFn) -> Samples:
    ts = draw(TIMES)
    return samples(ts, draw(st.lists(st.integers(0, 60), min_size=len(ts), max_size=len(ts))))


def apart(rows: Samples, earlier: np.ndarray, later: np.ndarray, embargo: int) -> bool:
    """Say whether every label span [ts, label_end] of one part ends before the other part begins, embargo included."""
    return bool(rows.label_end[earlier].max() + embargo < rows.ts[later].min())


@given(rows=some_samples(), embargo=st.integers(0, 50), by=st.sampled_from(["rows", "session"]))
def test_no_label_span_of_one_part_meets_one_of_another(rows: Samples, embargo: int, by: str) -> None:
    """For any times, label spans and embargo, the parts are disjoint, ordered, purged and embargoed, or refused."""
    try:
        found = split(rows, embargo_ns=embargo, by=by)  # type: ignore[arg-type]
    except DataError:
        return
    parts = (found.train, found.validate, found.test)
    for earlier, later in combinations(parts, 2):
        assert apart(rows, earlier, later, embargo)
        assert not np.intersect1d(earlier, later).size
    assert all((np.diff(part) > 0).all() for part in parts)


@given(rows=some_samples(), embargo=st.integers(0, 50), folds=st.integers(1, 5))
def test_walk_forward_never_learns_from_what_it_tests(rows: Samples, embargo: int, folds: int) -> None:
    """In each fold the training spans end before the test begins, and the tests follow each other without overlap."""
    try:
        found = walk_forward(rows, folds, embargo)
    except DataError:
        return
    assert len(found) == folds
    for train, test in found:
        assert apart(rows, train, test, embargo)
    tests = np.concatenate([test for _, test in found])
    assert (np.diff(tests) > 0).all()


def test_shares_are_shares_of_the_rows() -> None:
    """60/20/20 of 1,000 rows, with labels a minute long and an hour's embargo, lose 61 rows at each cut and no more."""
    rows = samples([MINUTE * i for i in range(1000)], [MINUTE] * 1000)
    found = split(rows, embargo_ns=60 * MINUTE)
    assert [len(part) for part in (found.train, found.validate, found.test)] == [600 - 61, 200 - 61, 200]
    assert found.test.tolist() == list(range(800, 1000))


def test_sessions_stay_whole() -> None:
    """Five trading days of unequal length are cut 3 / 1 / 1."""
    ts = [day * DAY + MINUTE * i for day, n in enumerate((100, 300, 200, 150, 50)) for i in range(n)]
    rows = samples(ts, [MINUTE] * len(ts))
    found = split(rows, embargo_ns=10 * MINUTE, by="session")
    days = [sorted(set((rows.ts[part] // DAY).tolist())) for part in (found.train, found.validate, found.test)]
    assert days == [[0, 1, 2], [3], [4]]
    assert len(found.train) == 600


def test_rows_of_one_time_stay_together() -> None:
    """Two instruments at one instant are never on two sides of a cut."""
    rows = samples([MINUTE * (i // 3) for i in range(300)], [1] * 300)
    found = split(rows, embargo_ns=0)
    for earlier, later in combinations((found.train, found.validate, found.test), 2):
        assert not set(rows.ts[earlier]) & set(rows.ts[later])


def test_a_shuffled_split_is_refused() -> None:
    """Shuffling is not an option, and the message says why."""
    with pytest.raises(ParameterError, match="leak"):
        split(samples([MINUTE * i for i in range(100)], [1] * 100), embargo_ns=0, shuffle=True)


@pytest.mark.parametrize(
    "shares", [(0.6, 0.2, 0.3), (1.0, 0.0, 0.0), (0.8, 0.3, -0.1), (float("nan"), 0.2, 0.2), (0.5, 0.25, 0.2)]
)
def test_shares_must_be_shares(shares: tuple[float, float, float]) -> None:
    """Shares that are not positive or do not sum to one are refused."""
    with pytest.raises(ParameterError):
        split(
            samples([MINUTE * i for i in range(100)], [1] * 100),
            train=shares[0],
            validate=shares[1],
            test=shares[2],
            embargo_ns=0,
        )


def test_too_few_rows_are_refused_rather_than_empty() -> None:
    """An embargo longer than a part leaves nothing to learn from: an error, not an empty array."""
    rows = samples([MINUTE * i for i in range(100)], [1] * 100)
    for action in (
        lambda: split(rows, embargo_ns=60 * MINUTE),
        lambda: split(samples([], []), embargo_ns=0),
        lambda: split(samples([5], [1]), embargo_ns=0),
        lambda: walk_forward(rows, 5, 60 * MINUTE),
        lambda: split(rows, embargo_ns=0, by="session"),
    ):
        with pytest.raises(DataError):
            action()


def test_nonsense_settings_are_refused() -> None:
    """A negative embargo, no folds, an unknown unit."""
    rows = samples([MINUTE * i for i in range(100)], [1] * 100)
    for action in (
        lambda: split(rows, embargo_ns=-1),
        lambda: walk_forward(rows, 0, 0),
        lambda: split(rows, embargo_ns=0, by="week"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ParameterError):
            action()
