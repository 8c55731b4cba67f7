"""The phrase: what it binds, and everything that makes it void."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.clock import NS_PER_S
from probatum.core.errors import ConfirmationError, ParameterError
from probatum.core.verdict import Provenance
from probatum.rollout.choose import Mode
from probatum.rollout.confirm import (
    Permission,
    build_phrase,
    check_phrase,
    parse_phrase,
    phrase_id,
    promote_permission,
    start_permission,
)
from probatum.rollout.plan import Plan
from probatum.rollout.policy import shipped_policy

NOW = 1_700_000_000 * NS_PER_S
PLAN = Plan(name="x", mode=Mode.OBSERVE, policy=shipped_policy("default"), model="a" * 64)
EVIDENCE = "e" * 64
EXPECTED = start_permission(PLAN, EVIDENCE, NOW + 3_600 * NS_PER_S)
PHRASE = build_phrase(EXPECTED)


def check(phrase: str = PHRASE, **changes: Any) -> Permission:
    options = {
        "shares": PLAN.ladder.shares_percent, "now_ns": NOW, "used": (), "approver": "ada", "provenance": Provenance.LIVE,
    }  # fmt: skip
    return check_phrase(phrase, EXPECTED, **{**options, **changes})


def test_phrase_has_the_published_form() -> None:
    """The phrase reads as the specification gives it, and passes."""
    assert (
        f"ONAY: Canary START 5..100%/30m observe-only model={'a' * 16} plan={PLAN.digest[:16]} evidence={'e' * 16} "
        "expires=2023-11-14T23:13:20Z"
    ) == PHRASE
    assert check() == EXPECTED


def test_synonym_and_white_space() -> None:
    """CONFIRM: and any white space mean the same, and are the same use."""
    other = PHRASE.replace("ONAY:", "  CONFIRM:").replace(" ", "   ")
    assert check(other) == EXPECTED
    assert phrase_id(other) == phrase_id(PHRASE)


VOID = {
    "wrong model": (PHRASE.replace("model=a", "model=b"), {}, "model is b"),
    "wrong evidence": (PHRASE.replace("evidence=e", "evidence=f"), {}, "evidence is f"),
    "edited plan": (PHRASE.replace(PLAN.digest[:16], "0" * 16), {}, f"but {PLAN.digest[:16]} stands now"),
    "second use": (PHRASE, {"used": (phrase_id(PHRASE),)}, "it was used before"),
    "expired": (PHRASE, {"now_ns": EXPECTED.expires_ts}, "it expired at 2023-11-14T23:13:20Z"),
    "lives too long": (PHRASE.replace("2023", "2033"), {}, "the longest allowed"),
    "begins elsewhere": (PHRASE.replace("5..100", "10..100"), {}, "first is 10, but 5 stands now"),
    "no step": (PHRASE.replace("5..100", "5..60"), {}, r"phases 5..60% lie outside 5..100%"),
    "beyond the plan": (PHRASE.replace("5..100", "5..200"), {}, r"phases 5..200% lie outside"),
    "backwards": (PHRASE.replace("5..100", "5..1"), {}, r"phases 5..1% lie outside"),
    "other duration": (PHRASE.replace("30m", "5m"), {}, "phase_s is 300, but 1800"),
    "other mode": (PHRASE.replace("observe-only", "gated"), {}, "mode is gated"),
    "other action": (PHRASE.replace("Canary", "Exposure"), {}, "action is Exposure"),
    "promotion": (build_phrase(promote_permission(PLAN, EVIDENCE, NOW + NS_PER_S)), {}, "action is Promote"),
    "nobody": (PHRASE, {"approver": "  "}, "an approver must be named"),
    "demo on live": (PHRASE, {"approver": "demo"}, "synthetic and replayed rollouts only"),
    "demo on nothing": (PHRASE, {"approver": " demo", "provenance": None}, "synthetic and replayed rollouts only"),
    "not a phrase": ("yes", {}, "must begin with ONAY: or CONFIRM:"),
    "empty": ("", {}, "must begin with ONAY: or CONFIRM:"),
    "huge": (PHRASE + " " * 2_000, {}, "must begin with ONAY: or CONFIRM:"),
    "the seed's": ("ONAY: Canary START 5%/30dk observe-only (v1.8 ml-shadow)", {}, "must end with model=…"),
    "no expiry": (PHRASE.rpartition(" ")[0], {}, "must end with model=…"),
    "bad expiry": (PHRASE.replace("-11-14", "-13-14"), {}, "a date that exists"),
    "bad phases": (PHRASE.replace("5..100%/30m", "all"), {}, "phases must look like"),
    "bad head": (PHRASE.replace("START", "GO"), {}, "it must say 'Canary START"),
}


@pytest.mark.parametrize("case", VOID)
def test_void(case: str) -> None:
    """Everything that differs from what stands now makes a phrase void, with exit code 5, and says what."""
    phrase, options, reason = VOID[case]
    with pytest.raises(ConfirmationError, match=reason) as caught:
        check(phrase, **options)
    assert caught.value.exit_code == 5
    assert caught.value.message.startswith("confirmation void: ")
    assert caught.value.message.endswith("nothing was moved")


def test_demo_on_replay() -> None:
    """The demo approver may start replayed and synthetic rollouts."""
    for provenance in (Provenance.REPLAY, Provenance.SYNTHETIC):
        assert check(approver="demo", provenance=provenance) == EXPECTED


def test_edited_limit_voids() -> None:
    """A limit edited after confirming changes the plan's digest, and with it what is expected."""
    policy = msgspec.structs.replace(PLAN.policy, alpha=0.2)
    edited = start_permission(msgspec.structs.replace(PLAN, policy=policy), EVIDENCE, EXPECTED.expires_ts)
    with pytest.raises(ConfirmationError, match="plan is"):
        check_phrase(
            PHRASE, edited, shares=(100,), now_ns=NOW, used=(), approver="ada", provenance=Provenance.LIVE
        )  # fmt: skip


def test_range_must_be_a_step() -> None:
    """A phrase is not offered for a share that the plan does not have."""
    assert start_permission(PLAN, EVIDENCE, NOW, last=25).last == 25
    with pytest.raises(ParameterError, match="one of the plan's shares"):
        start_permission(PLAN, EVIDENCE, NOW, last=30)


@given(
    st.sampled_from(["Canary", "Exposure"]),
    st.integers(1, 100),
    st.integers(1, 100),
    st.sampled_from([10, 60, 1800, 5400, 86_400]),
    st.sampled_from(["observe-only", "gated"]),
    st.text("0123456789abcdef", min_size=1, max_size=16),
    st.integers(0, 4_000_000_000),
)
def test_round_trip(action: str, first: int, last: int, phase_s: int, mode: str, digest: str, expires_s: int) -> None:
    """Every permission survives being written and read."""
    permission = Permission(action, first, last, phase_s, mode, digest, digest, digest, expires_s * NS_PER_S)
    assert parse_phrase(build_phrase(permission)) == permission


@given(st.text(max_size=200))
def test_any_text_is_refused_politely(text: str) -> None:
    """No text that is not the phrase passes, and none raises anything but ConfirmationError."""
    with pytest.raises(ConfirmationError):
        check(f"ONAY: {text}")
