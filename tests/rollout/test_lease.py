"""A lease that was not renewed is worth nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.errors import ParameterError
from probatum.rollout.choose import Mode
from probatum.rollout.lease import LEASE_NS, RolloutDocument, leased_share


@given(share=st.floats(0, 1), renewed=st.integers(-(2**62), 2**62), now=st.integers(-(2**62), 2**62))
def test_share_is_the_documents_or_nothing(share: float, renewed: int, now: int) -> None:
    """Within 500 ms of the read the share holds; later, or with a clock that went backwards, it is 0."""
    served = leased_share(RolloutDocument(mode=Mode.GATED, share=share), renewed, now)
    assert served == (share if renewed <= now <= renewed + LEASE_NS else 0.0)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_outside_its_range_is_refused(share: float) -> None:
    """A document that allows more than everything is no document."""
    with pytest.raises(ParameterError, match="share"):
        RolloutDocument(share=share)
