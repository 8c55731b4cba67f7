"""Judging streams: what passes, what aborts, and what silence is worth."""

from __future__ import annotations

from typing import Any

import pytest

from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance, Verdict
from probatum.rollout.measurement import Judgement, RateCriterion, RateMeasurement, Stream, assess

ERRORS = RateCriterion("error_rate", "errors", "below", slo=0.01, abort=0.02)
MATCH = RateCriterion("match_rate", "mismatches", "at_least", slo=0.95, abort=0.9)
WATCHED = RateCriterion("psi", "psi", "below", slo=0.01, enforced=False)


def judge(criteria: list[RateCriterion], *, share_next: float = 1.0, **streams: Stream) -> Judgement:
    return assess(criteria, streams, alpha=0.05, share_next=share_next, phases=1, with_bounds=True)


@pytest.mark.parametrize(
    ("n", "bad", "verdict", "missing"),
    [(375, 0, "PASS", 0), (374, 0, "INCONCLUSIVE", 1), (622, 1, "PASS", 0), (100, 1, "INCONCLUSIVE", 522)],
)
def test_samples_decide(n: int, bad: int, verdict: str, missing: int) -> None:
    """PASS comes exactly at the number of samples that prove the bound; before it the check says how many are missing."""
    check = judge([ERRORS], errors=Stream(((n, bad),))).checks[0]
    assert (check.verdict.value, check.missing) == (verdict, missing)
    assert (check.value, check.bound, check.n, check.bad) == (bad / n, 0.01, n, bad)
    assert (check.settle == "") == (verdict == "PASS")


def test_at_least_is_shown_in_its_own_direction() -> None:
    """Match is judged on mismatches and shown as match: 74 without a mismatch prove 95 %."""
    check = judge([MATCH], mismatches=Stream(((74, 0),))).checks[0]
    assert check.verdict is Verdict.PASS
    assert (check.value, check.bound) == (1.0, 0.95)
    assert check.lower is not None
    assert 0.95 < check.lower < check.upper == pytest.approx(1.0)


def test_ladder_asks_for_less_at_small_shares() -> None:
    """A ladder criterion must prove its budget over the next share, and never less than one good in two."""
    ladder = RateCriterion("error_rate", "errors", "below", slo=0.01, ladder=True)
    assert [ladder.bound_at(share) for share in (0.1, 0.25, 0.5, 1.0)] == [0.1, 0.04, 0.02, 0.01]
    assert ladder.bound_at(0.001) == 0.5
    assert ERRORS.bound_at(0.1) == 0.01
    assert judge([ladder], share_next=0.1, errors=Stream(((36, 0),))).verdict is Verdict.PASS


def test_abort_criteria_share_alpha() -> None:
    """Three errors in eighteen abort when one criterion may; where three share the 5 %, one more is needed."""
    three = [ERRORS, MATCH, RateCriterion("slow", "slow", "below", abort=0.05)]
    fine = {"mismatches": Stream(((10, 0),)), "slow": Stream(((10, 0),))}
    assert judge([ERRORS], errors=Stream(((18, 3),))).aborts
    assert not judge(three, errors=Stream(((18, 3),)), **fine).aborts
    assert judge(three, errors=Stream(((18, 4),)), **fine).aborts


def test_worst_enforced_check_is_the_verdict() -> None:
    """A monitored criterion shows its failure and changes nothing."""
    watched = RateCriterion("error_rate_watched", "errors", "below", slo=0.01, abort=0.02, enforced=False)
    judgement = judge([MATCH, watched], mismatches=Stream(((74, 0),)), errors=Stream(((50, 25),)))
    assert judgement.verdict is Verdict.PASS
    assert [check.verdict for check in judgement.checks] == [Verdict.PASS, Verdict.FAIL]
    assert judgement.aborts == ()


def test_empty_list_is_an_error() -> None:
    """Nothing enforced proves nothing."""
    for criteria in ([], [WATCHED]):
        with pytest.raises(ParameterError, match="at least one that is enforced"):
            judge(criteria)


@pytest.mark.parametrize(
    ("streams", "verdict"),
    [
        ({}, Verdict.ERROR),
        ({"errors": Stream(((0, 0),))}, Verdict.INCONCLUSIVE),
        ({"errors": Stream(((9_999, 0),), "read 90 s ago", measured=False)}, Verdict.ERROR),
        ({"errors": Stream(((9_999, 0),), quiet="no new sample for 90 s")}, Verdict.INCONCLUSIVE),
        ({"errors": Stream(((50, 25),), "not measured", measured=False)}, Verdict.FAIL),
    ],
)
def test_silence_is_no_success(streams: dict[str, Stream], verdict: Verdict) -> None:
    """Missing, stale and quiet streams never pass, however good their past; what was proven bad stays so."""
    assert judge([ERRORS], **streams).verdict is verdict


def test_quiet_does_not_stop_a_rare_abort_criterion() -> None:
    """A criterion with only an abort bound waits for no samples, but its source must answer."""
    rare = RateCriterion("outcome", "losses", "below", abort=0.6)
    good = {"errors": Stream(((375, 0),))}
    assert judge([ERRORS, rare], losses=Stream(((2, 1),), quiet="long ago"), **good).verdict is Verdict.PASS
    assert judge([ERRORS, rare], **good).verdict is Verdict.ERROR


GOOD = {
    "measure": "errors", "n": 10, "bad": 1, "first_ts": 1, "last_ts": 2, "read_ts": 3, "source": "s", "query": "q",
    "provenance": Provenance.LIVE,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": float("nan")}, "n must be an integer"),
        ({"bad": 11}, r"bad must be an integer in \[0, n = 10\]"),
        ({"raw": {"up": float("nan")}}, r"raw\[up\] must be a finite number"),
        ({"first_ts": None}, "in this order"),
        ({"last_ts": 4}, "in this order"),
    ],
)
def test_measurements_are_valid_from_birth(change: dict[str, Any], message: str) -> None:
    """NaN, impossible counts and times out of order cannot be measurements."""
    with pytest.raises(ParameterError, match=message):
        RateMeasurement(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "at least one of them"),
        ({"slo": 1.5}, r"x: slo must be a number in \(0, 1\)"),
        ({"slo": 0.02, "abort": 0.01}, "x: abort must be no better than the SLO bound"),
        ({"slo": 0.02, "samples_min": -1}, "samples_min"),
    ],
)
def test_criteria_are_valid_from_birth(change: dict[str, Any], message: str) -> None:
    """A criterion that asks nothing, or for the impossible, is refused by name."""
    with pytest.raises(ParameterError, match=message):
        RateCriterion("x", "m", "below", **change)
    if "abort" in change:
        assert RateCriterion("x", "m", "at_least", slo=0.95, abort=0.9).abort_bad == 0.1
