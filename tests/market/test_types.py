"""A market event is valid from birth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.errors import ParameterError
from probatum.market.types import Bar, Quote, Trade

BAD_PRICES = [math.nan, math.inf, -math.inf, 0.0, -1.0]


@pytest.mark.parametrize("price", BAD_PRICES)
def test_no_event_holds_an_impossible_price(price: float) -> None:
    """NaN, infinity, zero and negative prices are refused by name, in every field that holds a price."""
    with pytest.raises(ParameterError, match="bid"):
        Quote(0, 0, "X", price, 2.0, 1.0, 1.0)
    with pytest.raises(ParameterError, match="price"):
        Trade(0, 0, "X", price, 1.0)
    with pytest.raises(ParameterError, match="close"):
        Bar(0, 0, "X", 1.0, 1.0, 1.0, price)


@pytest.mark.parametrize("size", [math.nan, math.inf, -0.1])
def test_no_event_holds_an_impossible_size(size: float) -> None:
    """Sizes and volumes are finite and not negative."""
    with pytest.raises(ParameterError, match="ask_size"):
        Quote(0, 0, "X", 1.0, 2.0, 1.0, size)
    with pytest.raises(ParameterError, match="size"):
        Trade(0, 0, "X", 1.0, size)
    with pytest.raises(ParameterError, match="volume"):
        Bar(0, 0, "X", 1.0, 1.0, 1.0, 1.0, volume=size)


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6))
def test_a_crossed_quote_is_refused_and_a_locked_one_is_not(bid: float, ask: float) -> None:
    """The ask may equal the bid but never lie below it."""
    if ask < bid:
        with pytest.raises(ParameterError, match="ask"):
            Quote(0, 0, "X", bid, ask, 1.0, 1.0)
    else:
        assert Quote(0, 0, "X", bid, ask, 1.0, 1.0).ask >= bid


def test_a_side_and_a_range_are_checked() -> None:
    """A trade's side is known or 0; a bar's high and low lie around its open and close."""
    with pytest.raises(ParameterError, match="side"):
        Trade(0, 0, "X", 1.0, 1.0, side=2)
    with pytest.raises(ParameterError, match="around open and close"):
        Bar(0, 0, "X", 1.0, 1.0, 1.0, 2.0)
