"""Online and batch, compiled and plain, whole and cut, saved and restored: one result, bit by bit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from feature_streams import MINUTE, SECOND, START, bars, head, same_bits, tail, ticks
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.core.errors import DataError, IntegrityError, ParameterError
from probatum.features import kernels
from probatum.features.events import available, dataset_events
from probatum.features.fold import FeatureFrame, fold
from probatum.features.jit import load_plain
from probatum.features.sets import FEATURE_SETS, FeatureSet, get_feature_set
from probatum.features.state import FeatureState
from probatum.market.dataset import Dataset
from probatum.market.events import BAR, QUOTE, TIMER, TRADE, Events

SETS = sorted(FEATURE_SETS)
TICK = 0.01


def online(feature_set: FeatureSet, events: Events, tick_size: float | None) -> FeatureFrame:
    """Feed one event after the other, and keep every vector."""
    state = FeatureState(feature_set, tick_size)
    rows = zip(events.ts.tolist(), events.kind.tolist(), events.values.tolist(), strict=True)
    ready, values = zip(*[(state.update(ts, kind, *row), state.values) for ts, kind, row in rows], strict=True)
    return FeatureFrame(events.ts, np.array(values), np.array(ready), np.empty(0), feature_set)


@cache
def stream(name: str) -> Events:
    """Return a stream with holes that readies the set: bars of 30 hours, or two minutes' worth of warm-up in ticks."""
    return ticks(700, silent=(200, 260)) if name == "book" else bars(1800, holes=((500, 3), (900, 5), (1300, 9)))


@pytest.mark.parametrize(
    ("market", "name"),
    [(m, n) for m in ("btc", "gbp") for n in ("v1.8-b0", "v1.8.1", "robust")] + [("bac", "book"), ("bac", "v1.8-b0")],
)
def test_online_equals_batch_over_a_full_real_file(market: str, name: str, request: pytest.FixtureRequest) -> None:
    """Event by event, every column of at least 10,000 ready rows of recorded data is bitwise the same."""
    dataset: Dataset = request.getfixturevalue(market)
    feature_set = get_feature_set(name, available(dataset))
    events = dataset_events(dataset, grid_ns=SECOND if market == "bac" else None)
    batch = fold(feature_set, events, tick_size=dataset.tick_size, every_event=True)
    single = online(feature_set, events, dataset.tick_size)
    assert int(batch.ready.sum()) >= 10_000
    assert (single.ready == batch.ready).all()
    assert same_bits(single.values, batch.values)


@pytest.mark.parametrize("name", SETS)
def test_compiled_equals_plain_python(name: str) -> None:
    """The same kernel uncompiled gives the same bits in every row, the same readiness and the same state."""
    events = ticks(150) if name == "book" else head(stream(name), 700)
    feature_set, plain = FEATURE_SETS[name], load_plain(kernels.__name__)
    assert not hasattr(plain.step, "py_func")
    batch = fold(feature_set, events, tick_size=TICK, every_event=True)
    state = plain.new_state(
        kernels.CODES[name], spread=True, volume=name != "book", sizes=name == "book", tick_size=TICK
    )
    out = np.empty(kernels.WIDTHS[kernels.CODES[name]])
    for i, (ts, kind) in enumerate(zip(events.ts, events.kind, strict=True)):
        ready = plain.step(state, out, int(ts), int(kind), *events.values[i].tolist())
        assert ready == batch.ready[i]
        assert same_bits(out[None, :], batch.values[i : i + 1])
    final = FeatureState(feature_set, TICK)
    fold(feature_set, events, state=final)
    assert final.arrays[0].tobytes() == state.tobytes()
    assert batch.ready.sum() > 100


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_feature_looks_ahead(name: str, data: st.DataObject) -> None:
    """Whatever comes after t, every feature at t is unchanged: data cut at t, or with another future, give the same."""
    events, feature_set = stream(name), FEATURE_SETS[name]
    cut = data.draw(st.integers(1, len(events) - 1))
    whole = fold(feature_set, events, tick_size=TICK, every_event=True)
    other = events.values.copy()
    other[cut:, :2] *= 1.5
    for changed in (head(events, cut), Events(events.ts, events.kind, other)):
        frame = fold(feature_set, changed, tick_size=TICK, every_event=True)
        for j, feature in enumerate(feature_set.names):
            assert same_bits(frame.values[:cut, j].copy(), whole.values[:cut, j].copy()), feature


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_saved_and_restored_goes_on_as_if_nothing_had_happened(name: str, data: st.DataObject) -> None:
    """A state saved anywhere and restored into a new process yields the same bits from there on, and the same digest."""
    events, feature_set = stream(name), FEATURE_SETS[name]
    cut = data.draw(st.integers(1, len(events) - 1))
    whole = fold(feature_set, events, tick_size=TICK, every_event=True)
    first, second = FeatureState(feature_set, TICK), FeatureState(feature_set, TICK)
    fold(feature_set, head(events, cut), state=first, every_event=True)
    second.restore(first.save())
    assert same_bits(second.values[None, :], whole.values[cut - 1 : cut])
    rest = fold(feature_set, tail(events, cut), state=second, every_event=True)
    assert same_bits(rest.values, whole.values[cut:])
    fold(feature_set, tail(events, cut), state=first, every_event=True)
    assert first.fingerprint() == second.fingerprint()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("late", [1, 137, 601])
def test_values_depend_on_the_window_not_on_the_start(name: str, late: int) -> None:
    """A process that starts later gives bitwise the same values once memory_minutes have passed."""
    feature_set = FEATURE_SETS[name]
    events = ticks(2000) if name == "book" else bars(4000)
    from_event = int(np.searchsorted(events.ts, START + late * (SECOND if name == "book" else MINUTE)))
    whole = fold(feature_set, events, tick_size=TICK)
    later = fold(feature_set, tail(events, from_event), tick_size=TICK)
    known = later.ts >= later.ts[0] + (feature_set.memory_minutes + 1) * MINUTE
    assert known.sum() > 500
    assert same_bits(later.values[known], whole.values[-len(later) :][known])


@pytest.mark.parametrize("name", SETS)
def test_a_variant_computes_the_same_columns(name: str) -> None:
    """Leaving out what the data cannot support changes no other column."""
    events, full = stream(name), FEATURE_SETS[name]
    part = full.variant(frozenset({"sizes"}) if name == "book" else frozenset())
    assert len(part.names) < len(full.names)
    a, b = fold(full, events, tick_size=TICK), fold(part, events, tick_size=TICK)
    assert same_bits(np.ascontiguousarray(a.values[:, [full.names.index(n) for n in part.names]]), b.values)


def test_rows_are_bars_or_timers_or_every_event() -> None:
    """A row per bar; with timers, a row per timer; on demand, per event."""
    feature_set = FEATURE_SETS["v1.8-b0"]
    assert len(fold(feature_set, bars(20))) == 20
    assert len(fold(feature_set, ticks(90))) == 90
    assert len(fold(feature_set, ticks(90), every_event=True)) == len(ticks(90))
    assert len(fold(feature_set, head(bars(20), 0))) == 0


GOOD = (START + 10, QUOTE, 100.0, 100.1, 5.0, 5.0)


@pytest.mark.parametrize(
    "event",
    [
        (START - 1_000, QUOTE, 100.0, 100.1, 5.0, 5.0),
        (START + 20, QUOTE, float("nan"), 100.1, 5.0, 5.0),
        (START + 20, QUOTE, 100.2, 100.1, 5.0, 5.0),
        (START + 20, QUOTE, -1.0, 100.1, 5.0, 5.0),
        (START + 20, QUOTE, 100.0, float("inf"), 5.0, 5.0),
        (START + 20, TRADE, 100.0, -1.0, 0.0, 0.0),
        (START + 20, TRADE, 100.0, 1.0, float("nan"), 0.0),
        (START + 20, BAR, 0.0, 0.1, 5.0, 0.0),
        (START + 20, BAR, 100.0, -0.1, 5.0, 0.0),
        (START + 20, BAR, 100.0, 0.1, float("inf"), 0.0),
        (START + 20, 9, 100.0, 0.1, 5.0, 0.0),
        (START + 20, -1, 100.0, 0.1, 5.0, 0.0),
    ],
)
@pytest.mark.parametrize("name", SETS)
def test_an_impossible_event_is_refused_and_changes_nothing(name: str, event: tuple[float, ...]) -> None:
    """Time that goes back, NaN, crossed or negative values raise DataError, online and in batch, and leave the state."""
    state = FeatureState(FEATURE_SETS[name], TICK)
    state.update(*GOOD)
    before = state.fingerprint()
    with pytest.raises(DataError):
        state.update(*event)
    assert state.fingerprint() == before
    rows = (GOOD, event)
    events = Events(
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows], dtype=np.int8),
        np.array([row[2:] for row in rows], dtype=np.float64),
    )
    with pytest.raises(DataError, match="row 1"):
        fold(FEATURE_SETS[name], events, tick_size=TICK)


def test_sizes_are_asked_for_only_where_they_are_used() -> None:
    """A quote without sizes serves the minute sets, and is refused by the book."""
    quote = (START + 10, QUOTE, 100.0, 100.1, float("nan"), float("nan"))
    FeatureState(FEATURE_SETS["robust"], None).update(*quote)
    with pytest.raises(DataError):
        FeatureState(FEATURE_SETS["book"], TICK).update(*quote)


def test_a_second_bar_of_one_minute_is_refused() -> None:
    """Which of two bars is the minute's is not for us to choose."""
    state = FeatureState(FEATURE_SETS["v1.8-b0"], None)
    state.update(START + MINUTE, BAR, 100.0, 0.1, 1.0, 0.0)
    with pytest.raises(DataError):
        state.update(START + MINUTE, BAR, 101.0, 0.1, 1.0, 0.0)


def test_an_integer_price_is_a_price() -> None:
    """An int where a float is expected gives the same, without a second compilation in the middle of trading."""
    one, two = (FeatureState(FEATURE_SETS["v1.8-b0"], None) for _ in range(2))
    for minute in range(1, 20):
        one.update(START + minute * MINUTE, BAR, 100, 0, 5, 0)
        two.update(START + minute * MINUTE, BAR, 100.0, 0.0, 5.0, 0.0)
    assert one.fingerprint() == two.fingerprint()
    assert len(kernels.step.signatures) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: data[:-1],
        lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
        lambda data: b"x" + data,
    ],
)
def test_damaged_state_is_refused(damage: object) -> None:
    """A flipped bit or a missing byte is found, and the state that was there stays."""
    state = FeatureState(FEATURE_SETS["v1.8-b0"], None)
    before = state.fingerprint()
    with pytest.raises(IntegrityError):
        state.restore(damage(state.save()))  # type: ignore[operator]
    assert state.fingerprint() == before


def test_the_state_of_another_set_or_tick_is_refused() -> None:
    """A state names the columns and the tick that it was built for."""
    saved = FeatureState(FEATURE_SETS["book"], 0.01).save()
    for state in (
        FeatureState(FEATURE_SETS["robust"], None),
        FeatureState(FEATURE_SETS["book"].variant(frozenset({"sizes"})), None),
        FeatureState(FEATURE_SETS["book"], 0.05),
    ):
        with pytest.raises(IntegrityError):
            state.restore(saved)
    with pytest.raises(ParameterError):
        fold(FEATURE_SETS["robust"], bars(5), state=FeatureState(FEATURE_SETS["v1.8.1"], None))


@pytest.mark.parametrize("tick_size", [None, 0.0, -0.01, float("nan"), float("inf")])
def test_a_set_that_counts_in_ticks_needs_the_tick(tick_size: float | None) -> None:
    """Spread in ticks without a tick is a usage error, not a NaN."""
    with pytest.raises(ParameterError, match="tick_size"):
        FeatureState(FEATURE_SETS["book"], tick_size)


def test_timers_after_the_data_do_not_invent_a_market() -> None:
    """Five silent minutes carry the mid; from the sixth on it is unknown, and nothing is ready."""
    ticked = ticks(1200, grid=MINUTE)
    last = ticked.ts[ticked.kind != TIMER].max()
    timers = START + np.arange(21, 40) * MINUTE
    longer = Events(
        np.concatenate([ticked.ts, timers]),
        np.concatenate([ticked.kind, np.full(19, TIMER, dtype=np.int8)]),
        np.concatenate([ticked.values, np.zeros((19, 4))]),
    )
    frame = fold(FEATURE_SETS["v1.8-b0"], longer)
    silent = frame.ts > last
    assert frame.ready[silent].tolist() == [True] * 6 + [False] * 14
    assert np.isnan(frame.mid[silent][6:]).all()
