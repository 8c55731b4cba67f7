"""Plans that cannot keep what they promise, each contradiction found by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from probatum.rollout.choose import Mode
from probatum.rollout.lint import Alert, Finding, Surroundings, lint_plan, lint_policy_text, time_to_samples
from probatum.rollout.plan import Ladder, Plan, Policy
from probatum.rollout.policy import POLICY_NAMES, shipped_policy

SOUND = Surroundings(
    timeout_ms=250.0,
    buckets_ms=(60.0, 80.0, 120.0),
    alerts=(Alert("MLCanaryShadowMatchLow", 600.0),),
    measures=frozenset(
        {"errors", "slower_than_80ms", "slower_than_120ms", "mismatches", "uncovered", "outcome_losses"}
    ),
)


def plan(policy: Policy | None = None, **changes: Any) -> Plan:
    fields = {"name": "x", "mode": Mode.OBSERVE, "policy": policy or shipped_policy("default"), "model": "a" * 64}
    return Plan(**{**fields, **changes})


def with_ladder(**changes: Any) -> Policy:
    policy = shipped_policy("default")
    return msgspec.structs.replace(policy, canary=msgspec.structs.replace(policy.canary, **changes))


def places(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.place) for finding in findings]


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_shipped_policies_are_sound(name: str) -> None:
    """Both shipped policies, in the surroundings that we ship, have no finding."""
    assert lint_plan(plan(shipped_policy(name)), SOUND) == []


def test_unobservable_bound() -> None:
    """With the seed's 60 ms timeout neither 80 nor 120 ms is ever seen."""
    findings = lint_plan(plan(), msgspec.structs.replace(SOUND, timeout_ms=60.0))
    assert places(findings) == [("error", "latency_p95_80ms"), ("error", "latency_p95_120ms")]
    assert findings[0].problem == "calls end at 60 ms, so none is ever seen slower than 80 ms"


def test_alert_longer_than_a_phase() -> None:
    """The seed's PSI alerts wait an hour in phases of thirty minutes."""
    findings = lint_plan(plan(), msgspec.structs.replace(SOUND, alerts=(Alert("MLCanaryPSIWarning", 3_600.0),)))
    assert places(findings) == [("error", "MLCanaryPSIWarning")]


def test_buckets_without_the_bound() -> None:
    """A histogram without an edge at the bound cannot count what is slower."""
    findings = lint_plan(plan(), msgspec.structs.replace(SOUND, buckets_ms=(50.0, 100.0, 120.0)))
    assert places(findings) == [("error", "latency_p95_80ms")]


def test_phases_that_cannot_reach_their_samples() -> None:
    """At a tenth of the rate that the plan expects, the small shares hold before they have proven anything."""
    findings = lint_plan(plan(rate_per_s=1 / 60), SOUND, rate_per_s=1 / 600)
    assert {place for severity, place in places(findings) if severity == "error"} >= {"phase 5 %"}
    assert "36 samples take 432,000 s" in findings[0].problem


def test_measure_that_nobody_takes() -> None:
    """A criterion on a measure that does not exist is found before it waits for ever."""
    findings = lint_plan(plan(), msgspec.structs.replace(SOUND, measures=SOUND.measures - {"uncovered"}))
    assert places(findings) == [("error", "coverage")]


def test_level_features() -> None:
    """A model on a price level is warned about."""
    findings = lint_plan(plan(), msgspec.structs.replace(SOUND, level_features=("mid",)))
    assert places(findings) == [("warning", "feature mid")]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"source_deadline_s": 60}, "canary.source_deadline_s"),
        ({"poll_s": 90}, "canary.poll_s"),
        ({"phase_s": 10}, "canary.poll_s"),
        ({"shares_percent": (5, 50)}, "canary.shares_percent"),
    ],
)
def test_ladders_that_do_not_fit(change: dict[str, Any], place: str) -> None:
    """Deadlines, polls and last steps that contradict each other are found."""
    assert place in [finding.place for finding in lint_plan(plan(with_ladder(**change)), SOUND)]


def test_no_abort_bound() -> None:
    """A policy that nothing can abort is warned about."""
    policy = shipped_policy("default")
    slo_only = tuple(msgspec.structs.replace(item, abort=None) for item in policy.criteria if item.slo is not None)
    assert places(lint_plan(plan(msgspec.structs.replace(policy, criteria=slo_only)), SOUND)) == [
        ("warning", "criteria")
    ]


def test_empty_criteria() -> None:
    """A policy file with an empty list of criteria is a finding, not a crash."""
    policy, findings = lint_policy_text(
        'name = "x"\ncriteria = []\n[canary]\nshares_percent = [5]\n[exposure]\nshares_percent = [5]', place="p.toml"
    )
    assert policy is None
    assert places(findings) == [("error", "p.toml")]
    assert "nothing asked is nothing proven" in findings[0].problem
    assert lint_policy_text('nam = "x"', place="p.toml")[1][0].problem.startswith("unknown key in p.toml 'nam'")


def test_time_to_samples() -> None:
    """The plan says how long it takes at each rate: 34 hours at one decision a minute, two and a half at one a second."""
    hours = {rate: seconds / 3_600 for rate, seconds in time_to_samples(plan(), (1.0, 1 / 60)).items()}
    assert hours[1.0] == 2.5
    assert hours[1 / 60] == pytest.approx(34.5, abs=0.1)


def test_long_phases_are_warned_about() -> None:
    """A phase of more than a week is said before it starts."""
    ladder = Ladder((5, 100))
    policy = msgspec.structs.replace(shipped_policy("seed-v1.8"), canary=ladder)
    findings = lint_plan(plan(policy, rate_per_s=1 / 600), SOUND)
    assert ("warning", "phase 5 %") in places(findings)
