"""The values that everything rests on."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core import errors
from probatum.core.canonical import canonical_json, digest, parse_json
from probatum.core.clock import VirtualClock, format_utc, parse_utc
from probatum.core.errors import ParameterError, ProbatumError, UnknownNameError
from probatum.core.verdict import Provenance, Verdict

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_is_json_and_has_one_spelling(value: Any) -> None:
    """Reading the bytes gives the value back, and writing that gives the same bytes."""
    data = canonical_json(value)
    assert parse_json(data) == value
    assert canonical_json(parse_json(data)) == data


@given(st.dictionaries(st.text(), st.integers(0, 9), min_size=2), st.randoms())
def test_digest_ignores_the_order_of_keys(value: dict[str, int], random: Any) -> None:
    """Two dictionaries that are equal have the same digest, however they were built."""
    items = list(value.items())
    random.shuffle(items)
    assert digest(dict(items)) == digest(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, {"a": -math.inf}, {1: "key"}, object()])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    """NaN, infinity, large integers and what is not JSON raise, instead of being rounded or dropped."""
    with pytest.raises(ParameterError):
        canonical_json(value)


def test_rfc8785_vectors() -> None:
    """The RFC's own example: numbers in their shortest form, keys by UTF-16 code units."""
    numbers = [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001]
    assert canonical_json(numbers) == b"[333333333.3333333,1e+30,4.5,0.002,1e-27]"
    keys = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical_json(keys)).values()) == [2, 4, 6, 7, 1, 5, 3]


@given(st.integers(0, 2**62))
def test_times_survive_their_text(ns: int) -> None:
    """A time is the same after it was written and read, to the nanosecond."""
    assert parse_utc(format_utc(ns)) == ns


@given(st.integers(0, 2**62), st.integers(-14 * 60, 14 * 60))
def test_a_zone_moves_the_clock_not_the_instant(ns: int, minutes: int) -> None:
    """The same instant in another zone reads as the same number."""
    sign = "-" if minutes < 0 else "+"
    zone = f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    local = format_utc(ns + minutes * 60 * 10**9) if ns + minutes * 60 * 10**9 >= 0 else None
    if local is not None:
        assert parse_utc(local.removesuffix("Z") + zone) == ns


@pytest.mark.parametrize(
    "text", ["", "2024-01-01", "2024-01-01T00:00:00", "2024-13-01T00:00:00Z", "2024-02-30T00:00:00Z", "x" * 99]
)
def test_a_time_without_a_zone_or_a_date_is_refused(text: str) -> None:
    """There is no default zone and no guessed date."""
    with pytest.raises(ParameterError):
        parse_utc(text)


def test_virtual_time_does_not_run_backwards() -> None:
    """A clock that is set back says so."""
    clock = VirtualClock(5)
    with pytest.raises(ParameterError):
        clock.set(4)


@given(st.lists(st.sampled_from(list(Verdict)), min_size=1))
def test_the_worst_verdict_wins(verdicts: list[Verdict]) -> None:
    """PASS needs every one; one ERROR is enough to have measured nothing."""
    worst = Verdict.worst(verdicts)
    assert (worst is Verdict.PASS) == all(verdict is Verdict.PASS for verdict in verdicts)
    assert (worst is Verdict.ERROR) == (Verdict.ERROR in verdicts)


def test_no_evidence_is_not_good_evidence() -> None:
    """An empty test is an error, not a PASS; an empty chain has no class."""
    with pytest.raises(ParameterError):
        Verdict.worst([])
    with pytest.raises(ParameterError):
        Provenance.weakest([])


@given(st.lists(st.sampled_from(list(Provenance)), min_size=1))
def test_one_synthetic_link_makes_the_chain_synthetic(classes: list[Provenance]) -> None:
    """Evidence is as live as its least live part."""
    assert (Provenance.weakest(classes) is Provenance.LIVE) == (set(classes) == {Provenance.LIVE})
    assert (Provenance.weakest(classes) is Provenance.SYNTHETIC) == (Provenance.SYNTHETIC in classes)


def test_the_error_tree_is_the_one_that_is_drawn() -> None:
    """Each error stands in the tree of the docstring with its exit code, and nothing else does."""
    drawn = errors.__doc__ or ""
    classes = {
        name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, ProbatumError)
    }
    assert [name for name in classes if name not in drawn] == []
    for name, cls in classes.items():
        line = next(line for line in drawn.splitlines() if name in line.split())
        if "exit" in line:
            assert f"exit {cls.exit_code}" in line


def test_unknown_names_list_the_known() -> None:
    """The message names what was asked for and everything that could have been meant."""
    with pytest.raises(UnknownNameError, match=r"unknown thing 'b'; known: a, c"):
        raise UnknownNameError("thing", "b", ["c", "a"])
