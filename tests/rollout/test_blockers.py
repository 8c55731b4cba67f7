"""What stands between a model and promotion: every way a proof can be missing, and what a waiver can and cannot do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.clock import NS_PER_DAY, NS_PER_HOUR, NS_PER_S
from probatum.core.errors import ParameterError
from probatum.core.verdict import Provenance, Verdict
from probatum.rollout.blockers import REQUIREMENTS, WAIVABLE, Blocker, Proof, Waiver, find_blockers, open_blockers
from probatum.rollout.policy import shipped_policy

MODEL, NOW = "a" * 64, 1_700_000_000 * NS_PER_S
POLICY = shipped_policy("default")
FIGURES = {
    "validation": {"seconds": 90_000.0},
    "alerts": {"critical": 0.0, "warning": 2.0, "window_s": 86_400.0},
}
NO_MARKET = ("review", "drill", "evidence_verified", "level_features")


def proofs(**changes: dict[str, Any]) -> list[Proof]:
    return [
        Proof(**{
            "name": item.name,
            "model": MODEL,
            "verdict": Verdict.PASS,
            "evidence": f"hash-{item.name}",
            "ts": NOW - NS_PER_HOUR,
            "provenance": None if item.name in NO_MARKET else Provenance.LIVE,
            "figures": FIGURES.get(item.name, {}),
            "by": "grace" if item.name == "review" else "",
            **changes.get(item.name, {}),
        })
        for item in REQUIREMENTS
    ]  # fmt: skip


def blockers(given_proofs: list[Proof], **options: Any) -> tuple[Blocker, ...]:
    return find_blockers(MODEL, given_proofs, POLICY, NOW, **{"asked_by": "ada", **options})


def test_everything_proven() -> None:
    """With every proof live, fresh and passed, nothing blocks."""
    assert blockers(proofs()) == ()


def test_nothing_proven() -> None:
    """Without proofs every requirement is listed, with what clears it."""
    found = blockers([])
    assert [item.name for item in found] == [*(item.name for item in REQUIREMENTS), "provenance_live"]
    assert {item.value for item in found} == {"missing"}
    assert all(item.clears and item.bound for item in found)


@pytest.mark.parametrize(
    ("name", "change", "value"),
    [
        ("offline_gate", {"verdict": Verdict.INCONCLUSIVE}, "INCONCLUSIVE"),
        ("canary", {"model": "b" * 64}, "missing"),
        ("drift", {"ts": NOW - 3 * NS_PER_HOUR}, "10,800 s old, at most 7,200 s"),
        ("drift", {"ts": NOW + NS_PER_HOUR}, "-3,600 s old, at most 7,200 s"),
        ("validation", {"figures": {"seconds": 3_600.0}}, "1.0 h of fresh data, at least 24 h"),
        ("validation", {"figures": {}}, "0.0 h of fresh data, at least 24 h"),
        ("validation", {"figures": {"seconds": float("nan")}}, "nan h of fresh data, at least 24 h"),
        ("alerts", {"verdict": Verdict.ERROR}, "ERROR"),
        ("alerts", {"figures": {}}, "alert history not measured"),
        ("alerts", {"figures": {"critical": 1.0, "warning": 0.0, "window_s": 86_400.0}}, "1 critical, 0 warnings; 0 and"),
        ("alerts", {"figures": {"critical": 0.0, "warning": 3.0, "window_s": 86_400.0}}, "0 critical, 3 warnings; 0 and"),
        ("alerts", {"figures": {"critical": 0.0, "warning": 0.0, "window_s": 60.0}}, "window of 60 s, at least 86400 s"),
        ("outcome", {"verdict": Verdict.FAIL}, "FAIL"),
        ("drill", {"ts": NOW - 31 * NS_PER_DAY}, "2,678,400 s old, at most 2,592,000 s"),
        ("review", {"by": " ADA "}, "reviewed by ADA, who asks"),
        ("review", {"by": ""}, "reviewed by nobody, who asks"),
        ("evidence_verified", {"verdict": Verdict.FAIL}, "FAIL"),
        ("level_features", {"verdict": Verdict.FAIL}, "FAIL"),
    ],
)  # fmt: skip
def test_one_thing_missing(name: str, change: dict[str, Any], value: str) -> None:
    """Each insufficient proof is the one blocker, with what was found and the hash of its record."""
    found = blockers(proofs(**{name: change}))
    assert [item.name for item in found] == [name]
    assert found[0].value.startswith(value)
    assert found[0].evidence == ("" if value == "missing" else f"hash-{name}")


@pytest.mark.parametrize("provenance", [Provenance.SYNTHETIC, Provenance.REPLAY])
def test_one_weak_record_blocks(provenance: Provenance) -> None:
    """One record that is not live makes the whole chain weak, and it is named."""
    found = blockers(proofs(canary={"provenance": provenance}))
    assert [(item.name, item.value, item.evidence) for item in found] == [
        ("provenance_live", f"{provenance.value} (canary)", "hash-canary")
    ]


def test_the_newest_proof_counts() -> None:
    """An old PASS does not outlive a newer FAIL, in whatever order they come."""
    failed = msgspec.structs.replace(proofs()[0], verdict=Verdict.FAIL, ts=NOW - 1)
    for order in ([failed, *proofs()], [*proofs(), failed]):
        assert [item.name for item in blockers(order)] == ["offline_gate"]


def waiver(blocker: str = "validation", **changes: Any) -> Waiver:
    fields = {
        "blocker": blocker, "model": MODEL, "by": "grace", "reason": "quiet week", "ts": NOW - 1, "expires_ts": NOW + 9,
        "evidence": "w",
    }  # fmt: skip
    return Waiver(**{**fields, **changes})


def test_waivers_stand_for_a_while() -> None:
    """A waiver covers its blocker of its model while it lasts, and the blocker stays listed with the name."""
    short = proofs(validation={"figures": {}})
    covered = blockers(short, waivers=[waiver()])
    assert open_blockers(covered) == ()
    assert covered[0].waived_by == "grace until 2023-11-14T22:13:20.000000009Z: quiet week"
    for other in (waiver(expires_ts=NOW), waiver(model="b" * 64), waiver(ts=NOW + 1), waiver("drill")):
        assert len(open_blockers(blockers(short, waivers=[other]))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": " "}, "a waiver has a name"),
        ({"reason": ""}, "a waiver has a name"),
        ({"expires_ts": NOW - 1}, "later than ts"),
        ({"blocker": "provenance_live"}, "one that may be waived"),
        ({"blocker": "review"}, "one that may be waived"),
        ({"blocker": "evidence_verified"}, "one that may be waived"),
    ],
)
def test_waivers_are_valid_from_birth(change: dict[str, Any], message: str) -> None:
    """A waiver needs name, reason and end; provenance, review and verification cannot be waived."""
    with pytest.raises(ParameterError, match=message):
        waiver(**change)


@given(st.lists(st.sampled_from(sorted(WAIVABLE))), st.sampled_from([Provenance.SYNTHETIC, Provenance.REPLAY]))
def test_no_waivers_make_weak_evidence_live(names: list[str], provenance: Provenance) -> None:
    """Whatever is waived, evidence that is not live blocks."""
    weak = proofs(offline_gate={"provenance": provenance})
    found = blockers(weak, waivers=[waiver(name) for name in names])
    assert [item.name for item in open_blockers(found, "critical")] == ["provenance_live"]


def test_severities() -> None:
    """A stale drill is a warning: it blocks promotion, not the rc tag."""
    found = blockers(proofs(drill={"verdict": Verdict.FAIL}))
    assert open_blockers(found, "critical") == ()
    assert [item.name for item in open_blockers(found)] == ["drill"]
