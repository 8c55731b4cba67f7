"""A verdict follows from the bound, never from the estimate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.errors import ParameterError
from probatum.core.verdict import Verdict
from probatum.rollout.criteria import Criterion, Measurement, assess, check

AT_LEAST = Criterion("auc", "at_least", 0.62)
BELOW = Criterion("psi", "below", 0.2, count_min=1000)


@pytest.mark.parametrize(
    ("criterion", "value", "lower", "upper", "n", "verdict"),
    [
        (AT_LEAST, 0.674, 0.658, 0.69, 8000, "PASS"),
        (AT_LEAST, 0.63, 0.62, 0.64, 8000, "PASS"),
        (AT_LEAST, 0.633, 0.617, 0.65, 8000, "INCONCLUSIVE"),
        (AT_LEAST, 0.61, 0.59, 0.62, 8000, "INCONCLUSIVE"),
        (AT_LEAST, 0.51, 0.49, 0.53, 8000, "FAIL"),
        (AT_LEAST, 0.70, None, None, 50, "INCONCLUSIVE"),
        (AT_LEAST, None, None, None, 50, "ERROR"),
        (AT_LEAST, math.nan, 0.6, 0.7, 50, "ERROR"),
        (BELOW, 0.1, 0.05, 0.19, 5000, "PASS"),
        (BELOW, 0.1, 0.05, 0.2, 5000, "INCONCLUSIVE"),
        (BELOW, 0.3, 0.2, 0.4, 5000, "FAIL"),
        (BELOW, 0.1, 0.05, 0.19, 999, "INCONCLUSIVE"),
    ],
)
def test_the_bound_decides(
    criterion: Criterion, value: float, lower: float, upper: float, n: int, verdict: str
) -> None:
    """PASS when the near bound clears the threshold, FAIL when the far one misses it, else INCONCLUSIVE."""
    found = check(criterion, Measurement(value, lower, upper, n))
    assert found.verdict == verdict
    assert (found.reason == "") == (found.settle == "") == (verdict == "PASS")
    assert "\n" not in found.reason + found.settle


def test_missing_measurement_is_an_error() -> None:
    """What was not measured is an ERROR, not a pass: absence of evidence is no evidence."""
    assert assess([AT_LEAST], {}).verdict is Verdict.ERROR


def test_only_enforced_checks_decide() -> None:
    """The worst enforced check is the verdict; a watched one is reported only."""
    watched = Criterion("ece", "below", 0.05, enforced=False)
    found = assess(
        [AT_LEAST, watched], {"auc": Measurement(0.7, 0.68, 0.72, 100), "ece": Measurement.counted(0.3, 100)}
    )
    assert found.verdict is Verdict.PASS
    assert found.checks[1].verdict is Verdict.FAIL


@pytest.mark.parametrize("criteria", [[], [Criterion("ece", "below", 0.05, enforced=False)]])
def test_nothing_enforced_is_refused(criteria: list[Criterion]) -> None:
    """An empty list of enforced criteria proves nothing, so it is an error."""
    with pytest.raises(ParameterError):
        assess(criteria, {"ece": Measurement.counted(0.0, 1)})


@given(
    value=st.floats(0.0, 1.0),
    width=st.floats(0.001, 0.5),
    bound=st.floats(0.01, 0.99),
    direction=st.sampled_from(["at_least", "below"]),
)
def test_rows_needed_would_settle(value: float, width: float, bound: float, direction: str) -> None:
    """With the rows that an INCONCLUSIVE check asks for, and bounds shrinking by 1/√n, it is inconclusive no more."""
    n = 10_000
    criterion = Criterion("x", direction, bound)  # type: ignore[arg-type]
    found = check(criterion, Measurement(value, value - width, value + width, n))
    if found.verdict is not Verdict.INCONCLUSIVE or abs(value - bound) < 1e-3:
        return
    more = int(found.settle.split("about ")[1].split(" more")[0].replace(",", ""))
    shrunk = width * math.sqrt(n / (n + more)) * (1 - 1e-9)
    again = check(criterion, Measurement(value, value - shrunk, value + shrunk, n + more))
    passing = value > bound if direction == "at_least" else value < bound
    assert again.verdict is (Verdict.PASS if passing else Verdict.FAIL)
    assert ("cannot" in found.settle) == (not passing)
