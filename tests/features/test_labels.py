"""A label is what came after, known when it says, and never over a break."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from probatum.core.errors import ParameterError
from probatum.features.labels import Labels, Target, label, parse_target, segments

SECOND, MINUTE, HOUR = 1_000_000_000, 60_000_000_000, 3_600_000_000_000
START = 1_704_067_200_000_000_000


def rows(mid: list[float], step: int = MINUTE) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return times, mids and one unbroken segment."""
    ts = START + step * np.arange(1, len(mid) + 1)
    return ts, np.array(mid), np.zeros(len(mid), dtype=np.int64)


def shown(labels: Labels) -> list[int | None]:
    return [int(y) if ok else None for y, ok in zip(labels.label, labels.valid, strict=True)]


TARGETS = st.one_of(
    st.builds(Target, st.just("direction"), st.integers(1, 86_400_000).map(lambda n: n * 1_000_000), st.booleans()),
    st.builds(Target, st.just("large_move"), st.integers(1, 86_400_000).map(lambda n: n * 1_000_000)),
    st.just(Target("next_move")),
)


@given(TARGETS)
def test_the_name_says_everything(target: Target) -> None:
    """A target can be rebuilt from its name."""
    assert parse_target(target.name) == target


@pytest.mark.parametrize(
    "name",
    [
        "direction",
        "direction@0s",
        "direction@-5s",
        "direction@25h",
        "direction@60",
        "direction@60s:drop",
        "large_move@60s:drop-unchanged",
        "next_move@60s",
        "next_move:drop-unchanged",
        "up@60s",
        "",
        "direction@9999999s",
        "direction@60s\n",
        "direction@٣s",
    ],
)
def test_a_name_that_is_no_target_is_refused(name: str) -> None:
    """What is not a target raises an error that shows the forms."""
    with pytest.raises(ParameterError, match="direction@H"):
        parse_target(name)


def test_direction_is_the_sign_of_what_follows() -> None:
    """Up is 1, down and unchanged are 0; the last rows, whose horizon is not over, have no label."""
    ts, mid, segment = rows([10, 11, 11, 10, 12])
    found = label(parse_target("direction@60s"), ts, mid, segment, MINUTE)
    assert shown(found) == [1, 0, 0, 1, None]
    assert found.fwd_return[0] == pytest.approx(math.log(1.1))
    assert (found.label_end[found.valid] == ts[found.valid] + MINUTE).all()
    assert shown(label(parse_target("direction@120s"), ts, mid, segment, MINUTE)) == [1, 0, 1, None, None]


def test_dropping_unchanged_rows_drops_them_only() -> None:
    """With the name's suffix, rows without a move have no label, and the others keep theirs."""
    ts, mid, segment = rows([10, 11, 11, 10, 12])
    assert shown(label(parse_target("direction@60s:drop-unchanged"), ts, mid, segment, MINUTE)) == [1, None, 0, 1, None]


def test_next_move_is_the_next_change() -> None:
    """The label waits for the next other mid, and says when that was."""
    ts, mid, segment = rows([10, 10, 10, 11, 11, 9, 9])
    found = label(parse_target("next_move"), ts, mid, segment, MINUTE)
    assert shown(found) == [1, 1, 1, 0, 0, None, None]
    assert found.label_end[:5].tolist() == ts[[3, 3, 3, 5, 5]].tolist()
    assert found.fwd_return[4] == pytest.approx(math.log(9 / 11))


@pytest.mark.parametrize("name", ["direction@180s", "next_move"])
def test_no_label_crosses_a_break(name: str) -> None:
    """A horizon that ends in another session, or behind a hole of six minutes, or in the unknown, is not labelled."""
    ts, mid, _ = rows([10.0 + i for i in range(40)])
    session = np.where(np.arange(40) < 10, 0, 1)
    ts[20:] += 6 * MINUTE
    mid[30] = np.nan
    found = label(parse_target(name), ts, mid, segments(ts, mid, session), MINUTE)
    for i in np.flatnonzero(found.valid):
        for place in (10, 20, 30):
            assert not (i < place and found.label_end[i] >= ts[place]), (name, i, place)
    lost = 3 if name == "direction@180s" else 1
    assert np.flatnonzero(~found.valid).tolist() == sorted(
        [*range(10 - lost, 10), *range(20 - lost, 20), *range(30 - lost, 31), *range(40 - lost, 40)]
    )


def test_a_hole_that_features_carry_over_is_labelled() -> None:
    """Within five missing minutes the mid at the horizon is the one in force then."""
    ts, mid, segment = rows([10, 11, 12, 13])
    ts[2:] += 5 * MINUTE
    found = label(parse_target("direction@60s"), ts, mid, segments(ts, mid, segment), MINUTE)
    assert shown(found) == [1, 0, 1, None]


def naive_large_moves(mid: NDArray[np.float64], horizon: int, step: int) -> list[int | None]:
    """Label one unbroken stretch with plain loops: |return| against the median of those that had ended by then."""
    ahead = horizon // step
    size = [abs(math.log(mid[i + ahead] / mid[i])) if i + ahead < len(mid) else None for i in range(len(mid))]
    result: list[int | None] = []
    for i, own in enumerate(size):
        known = [s for s in size[max(0, i - ahead - 24 * HOUR // step + 1) : max(0, i - ahead + 1)] if s is not None]
        enough = own is not None and len(known) >= 6 * HOUR // step
        result.append(int(own > np.median(known)) if enough and own is not None else None)
    return result


@pytest.mark.parametrize("name", ["large_move@60s", "large_move@300s"])
def test_large_move_is_judged_by_what_was_known(name: str) -> None:
    """Each label is the naive one: the median of the 24 hours of returns that had ended, at least six hours."""
    rng = np.random.default_rng(3)
    ts, mid, segment = rows(np.round(100 * np.exp(np.cumsum(rng.normal(0, 1e-3, 2200))), 1).tolist())
    target = parse_target(name)
    found = label(target, ts, mid, segment, MINUTE)
    assert shown(found) == naive_large_moves(mid, target.horizon_ns, MINUTE)
    assert 0.1 < found.label[found.valid].mean() < 0.9


@given(cut=st.integers(500, 900), seed=st.integers(0, 99))
def test_a_label_is_known_at_its_end(cut: int, seed: int) -> None:
    """Whatever happens after label_end changes neither label nor return."""
    rng = np.random.default_rng(seed)
    ts, mid, segment = rows((100 * np.exp(np.cumsum(rng.integers(-1, 2, 1000) * 1e-3))).tolist())
    other = mid.copy()
    other[cut:] *= rng.uniform(0.5, 2.0, 1000 - cut)
    for name in ("direction@300s", "direction@60s:drop-unchanged", "large_move@60s", "next_move"):
        a, b = (label(parse_target(name), ts, m, segment, MINUTE) for m in (mid, other))
        known = a.valid & (a.label_end < ts[cut])
        assert known.any()
        assert b.valid[known].all()
        assert (a.label[known] == b.label[known]).all()
        assert (a.fwd_return[known] == b.fwd_return[known]).all()
        assert (a.label_end[known] == b.label_end[known]).all()


def test_a_horizon_between_rows_is_refused() -> None:
    """Ten seconds ahead on minute rows would compare a price with itself."""
    with pytest.raises(ParameterError, match="whole number of rows"):
        label(parse_target("direction@10s"), *rows([10, 11, 12]), MINUTE)


def test_times_must_ascend() -> None:
    """Rows out of order are refused rather than labelled wrongly."""
    ts, mid, segment = rows([10, 11, 12])
    with pytest.raises(ParameterError, match="ascending"):
        label(parse_target("direction@60s"), ts[::-1].copy(), mid, segment, MINUTE)


@pytest.mark.parametrize("name", ["direction@60s", "large_move@60s", "next_move"])
@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_have_no_label(name: str, n: int) -> None:
    """No row and one row are no error, and no label."""
    ts, mid, session = rows([10.0] * n)
    assert not label(parse_target(name), ts, mid, segments(ts, mid, session), MINUTE).valid.any()
