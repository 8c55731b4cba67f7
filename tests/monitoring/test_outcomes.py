"""What is joined while decisions are made is what the whole recording gives afterwards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.features import label_stream
from probatum.features.labels import Labels, Target, label, parse_target, segments
from probatum.monitoring import outcomes
from probatum.monitoring.outcomes import Apart, Joined, Made, OutcomeJoiner, apart, is_right, labels_at

MINUTE, HOUR = 60_000_000_000, 3_600_000_000_000
TARGETS = ["direction@60s", "direction@3m:drop-unchanged", "large_move@2m", "large_move@2h", "next_move"]

# Steps of one to three minutes, now and then a hole; mids that move by ticks, often not at all, and are unknown sometimes.
STEPS = st.lists(st.sampled_from([1] * 8 + [2, 3, 6, 7, 90]), min_size=1, max_size=120)


@st.composite
def markets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    steps = draw(STEPS)
    ts = MINUTE * np.cumsum(np.array(steps, dtype=np.int64))
    ticks = draw(st.lists(st.sampled_from([-2, -1, 0, 0, 0, 1, 3]), min_size=len(steps), max_size=len(steps)))
    mid = 100.0 + 0.01 * np.cumsum(ticks)
    for place in draw(st.lists(st.integers(0, len(steps) - 1), max_size=2)):
        mid[place] = math.nan
    return ts, mid


def batch(target: Target, ts: np.ndarray, mid: np.ndarray) -> Labels:
    return label(target, ts, mid, segments(ts, mid, np.zeros(len(ts), dtype=np.int64)), MINUTE)


def made(as_of: int, seq: int, symbol: str = "X", **scores: Any) -> Made:
    return Made(symbol, as_of, as_of + 5, seq, **{"baseline": 0.4, "score": 0.6, **scores})


@pytest.mark.parametrize("name", TARGETS)
@given(market=markets(), data=st.data())
@settings(deadline=None, max_examples=60)
def test_joining_while_it_happens_is_joining_afterwards(name: str, market: Any, data: st.DataObject) -> None:
    """On the same rows, whatever holes they have and however late each decision is told, the outcomes, their order and
    those that count apart are bitwise those of the batch join; and every decision is counted once."""
    ts, mid = market
    target = parse_target(name)
    labels = batch(target, ts, mid)
    n = data.draw(st.integers(0, 40))
    rows = data.draw(st.lists(st.integers(0, len(ts) - 1), min_size=n, max_size=n))
    late = data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    decisions = [
        made(int(ts[row]) + (7 if wait == 5 else 0), i) for i, (row, wait) in enumerate(zip(rows, late, strict=True))
    ]
    joiner = OutcomeJoiner(target, MINUTE)
    for i, (when, value) in enumerate(zip(ts.tolist(), mid.tolist(), strict=True)):
        joiner.row("X", when, value)
        joiner.row("X", when, value + 1.0)  # a second row of the same time is none
        for decision, row, wait in zip(decisions, rows, late, strict=True):
            if min(row + wait, len(ts) - 1) == i:
                joiner.decided(decision)
    found = joiner.release(final=True)
    as_of = np.array([item.as_of for item in decisions], dtype=np.int64)
    hit, known, on_grid = labels_at(ts, labels, as_of)
    expected = sorted((int(known[i]), int(as_of[i]), i, bool(hit[i])) for i in range(n) if known[i] >= 0)
    assert [(item.known, item.as_of, item.seq, item.hit) for item in found] == expected
    online = Apart()
    kept = [item.seq for item in found if online.takes(item.as_of, item.known)]
    valid = np.flatnonzero(known >= 0)
    chosen = valid[apart(as_of[valid], known[valid], valid)]
    assert sorted(kept) == sorted(chosen.tolist())
    counts = joiner.counts
    assert counts.joined == len(expected)
    assert counts.off_grid == int((~on_grid).sum())
    assert counts.joined + counts.unlabelled + counts.off_grid + counts.dropped + joiner.waiting == n


def test_a_day_of_minutes_has_the_medians_of_the_batch() -> None:
    """Over three days, past the window of 24 hours, every label of a large move is the batch's, unknown ones alike."""
    rng = np.random.default_rng(3)
    n = 4_500
    ts = MINUTE * np.arange(1, n + 1, dtype=np.int64)
    mid = np.round(100.0 * np.exp(np.cumsum(rng.normal(scale=3e-4, size=n))), 2)
    ts[2_000:] += 40 * MINUTE
    target = parse_target("large_move@60s")
    labels, stream = batch(target, ts, mid), label_stream.LabelStream(target, MINUTE)
    settled = [item for pair in zip(ts.tolist(), mid.tolist(), strict=True) for item in stream.push(*pair)]
    expected = [(int(ts[i]), bool(labels.label[i]) if labels.valid[i] else None) for i in range(n - 1)]
    assert [(row, hit) for row, hit, _ in settled] == expected
    assert int(labels.valid.sum()) > 3_500


def test_outcomes_that_overlap_count_once() -> None:
    """Of sixty neighbours with a horizon of sixty rows one counts, and the next begins where that was known."""
    begin = np.arange(0, 600, dtype=np.int64)
    assert np.flatnonzero(apart(begin, begin + 60)).tolist() == list(range(0, 600, 60))
    twice = np.repeat(begin, 2)
    assert int(apart(twice, twice + 60, np.arange(1_200)).sum()) == 10


def test_two_symbols_share_one_market() -> None:
    """Outcomes of two symbols over the same time are no two independent samples."""
    joiner = OutcomeJoiner(parse_target("direction@2m"), MINUTE)
    for i in range(1, 9):
        for symbol in ("A", "B"):
            joiner.row(symbol, i * MINUTE, 100.0 + i)
            joiner.decided(made(i * MINUTE, i, symbol))
    found = joiner.release(final=True)
    one = Apart()
    assert len(found) == 12
    assert [(item.symbol, item.as_of // MINUTE) for item in found if one.takes(item.as_of, item.known)] == [
        ("A", 1), ("A", 3), ("A", 5),
    ]  # fmt: skip


def test_a_late_decision_finds_its_place() -> None:
    """What became known since the call before is held back, so that a decision told a call later is still in order."""
    joiner = OutcomeJoiner(parse_target("next_move"), MINUTE)
    for i in range(1, 4):
        joiner.row("X", i * MINUTE, 100.0 + i)
    joiner.decided(made(2 * MINUTE, 2))
    assert joiner.release() == []
    joiner.decided(made(MINUTE, 1))
    assert [item.seq for item in joiner.release()] == [1, 2]


def test_memory_is_bounded_and_what_is_dropped_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many symbols, rows, and decisions that wait: none grows without end, and the counts still add up."""
    monkeypatch.setattr(outcomes, "SYMBOLS_MAX", 2)
    monkeypatch.setattr(outcomes, "WAITING_MAX", 5)
    monkeypatch.setattr(outcomes, "LATE_ROWS", 3)
    monkeypatch.setattr(label_stream, "WAITING_MAX", 10)
    joiner = OutcomeJoiner(parse_target("direction@1h"), MINUTE)
    for i in range(1, 31):
        for symbol in ("A", "B", "C"):
            joiner.row(symbol, i * MINUTE, 100.0)
            joiner.decided(made(i * MINUTE, i, symbol))
    assert joiner.waiting <= 5
    counts = joiner.counts
    assert counts.off_grid == 30
    assert counts.dropped > 0
    assert counts.unlabelled > 0
    assert counts.joined + counts.unlabelled + counts.off_grid + counts.dropped + joiner.waiting == 90
    waiting = joiner.waiting
    joiner.forget()
    assert joiner.counts.dropped == counts.dropped
    assert joiner.waiting == 0
    assert joiner.counts.joined + joiner.counts.unlabelled + joiner.counts.off_grid + joiner.counts.dropped == 90
    assert waiting > 0


def test_right_is_above_a_half_where_the_label_is_one() -> None:
    """A score of exactly 0.5 decides no."""
    assert is_right(np.array([0.4, 0.5, 0.6, 0.6]), np.array([0, 1, 1, 0])).tolist() == [True, False, True, False]


def test_outcomes_are_ordered_by_when_they_were_known() -> None:
    """Known first, then begun, then the symbol's name, then made: the order of the batch."""
    one = made(MINUTE, 1)
    assert Joined(2, 1, "B", 0, 0, True, one) < Joined(3, 0, "A", 0, 0, True, one)
    assert Joined(2, 1, "A", 9, 9, True, one) < Joined(2, 1, "B", 0, 0, True, one)
