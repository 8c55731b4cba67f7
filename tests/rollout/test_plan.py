"""Plans and policies: the published numbers, and what is refused."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import msgspec
import pytest

from probatum.core.errors import DataError, ParameterError, UnknownNameError
from probatum.rollout.choose import Mode
from probatum.rollout.plan import Plan, describe, forecast, planned_s, samples_needed
from probatum.rollout.policy import POLICY_NAMES, json_schema, parse_plan, parse_policy, shipped_policy

MODEL = "a" * 64
SMALL = """
name = "small"
[canary]
shares_percent = [50, 100]
[exposure]
shares_percent = [1, 100]
[[criteria]]
name = "error_rate"
measure = "errors"
direction = "below"
slo = 0.01
"""


def make(policy: str = "default", **changes: Any) -> Plan:
    return Plan(**{"name": "x", "mode": Mode.OBSERVE, "policy": shipped_policy(policy), "model": MODEL, **changes})


def test_slow_signal_takes_34_hours() -> None:
    """At one decision a minute the default plan needs 36, 93, 187 and 375 samples: about 34 hours without an error."""
    plan = make(rate_per_s=1 / 60)
    assert [phase.samples_needed for phase in forecast(plan)] == [36, 93, 187, 375, 375]
    assert planned_s(plan) / 3_600 == pytest.approx(34.5, abs=0.1)


def test_one_second_decisions_take_two_and_a_half_hours() -> None:
    """At one decision a second every phase lasts its thirty minutes."""
    assert [phase.planned_s for phase in forecast(make())] == [1_800] * 5
    assert sum(phase.planned_s for phase in forecast(make(), rate_per_s=100.0)) == 9_000


def test_phase_maximum() -> None:
    """A phase holds after thirty minutes or four times the planned samples over the expected rate, the longer."""
    phases = forecast(make(rate_per_s=1.0))
    assert [phase.max_s for phase in phases] == [2_880, 3_720, 2_992, 3_000, 1_800]


def test_seed_policy_needs_everything_at_once() -> None:
    """Without the ladder 375 samples are needed before the first step, and 622 with one error."""
    assert [samples_needed(make("seed-v1.8"), 0, bad) for bad in (0, 1)] == [375, 622]


def test_match_is_enforced_only_against_a_like_champion() -> None:
    """Agreement with the baseline, or with a champion that predicts something else, is only watched."""
    enforced = {
        (champion, same): next(
            item.enforced for item in make(champion=champion, same_target=same).criteria if item.name == "match_rate"
        )
        for champion in (None, "b" * 64)
        for same in (False, True)
    }
    assert enforced == {(None, False): False, (None, True): False, ("b" * 64, False): False, ("b" * 64, True): True}


def test_digest_names_the_plan() -> None:
    """Any change of a limit is another plan."""
    plan = make()
    policy = msgspec.structs.replace(plan.policy, alpha=0.01)
    assert plan.digest == make().digest
    assert plan.digest != msgspec.structs.replace(plan, policy=policy).digest


def test_description_is_json() -> None:
    """What evidence shows of a plan is plain JSON with digest and forecast."""
    shown = json.loads(json.dumps(describe(make())))
    assert shown["plan"] == make().digest
    assert shown["phases"][0] == {"share_percent": 5, "samples_needed": 36, "planned_s": 1800, "max_s": 2880}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "abc"}, "model must be an artifact digest"),
        ({"rate_per_s": 0.0}, "rate_per_s must be a finite number > 0"),
        ({"rate_per_s": float("nan")}, "rate_per_s must be a finite number > 0"),
        ({"mode": Mode.GATED}, "at least 500 sticky units, so that 5 are in the first step of 1 %"),
        ({"mode": Mode.GATED, "units": 499}, "at least 500 sticky units"),
        ({"mode": Mode.OFF}, "mode must be observe or gated"),
    ],
)
def test_plans_are_valid_from_birth(change: dict[str, Any], message: str) -> None:
    """A plan for too few units, no model or no traffic is refused by name."""
    with pytest.raises(ParameterError, match=message):
        make(**change)


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_shipped_policies_load(name: str) -> None:
    """Both shipped policies read, carry the seed's five shares, and the seed's one enforces everything."""
    policy = shipped_policy(name)
    assert (policy.name, policy.canary.shares_percent, policy.canary.phase_s) == (name, (5, 10, 25, 50, 100), 1_800)
    assert policy.exposure.shares_percent[0] == 1
    if name == "seed-v1.8":
        assert {(i.name, i.slo, i.abort, i.enforced, i.when) for i in policy.criteria} == {
            ("error_rate", 0.01, 0.02, True, "always"),
            ("latency_p95_80ms", 0.05, None, True, "always"),
            ("latency_p95_120ms", None, 0.05, True, "always"),
            ("match_rate", 0.95, 0.9, True, "always"),
        }


def test_unknown_policy() -> None:
    """A policy that is not shipped is refused with the known ones."""
    with pytest.raises(UnknownNameError, match=r"known: default, seed-v1\.8; did you mean 'default'"):
        shipped_policy("defualt")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (SMALL.replace("slo", "slow"), UnknownNameError, r"key in p.toml: criteria 'slow'; known: abort, .*did you mean 'slo'"),
        (SMALL + "\nalfa = 1", UnknownNameError, "key in p.toml: criteria 'alfa'"),
        ("alfa = 1\n" + SMALL, UnknownNameError, "key in p.toml 'alfa'; known: alpha, .*did you mean 'alpha'"),
        (SMALL.replace("50, 100", "100, 50"), DataError, "p.toml: shares_percent must be rising"),
        (SMALL.replace("50, 100", "0.5, 100"), DataError, r"p.toml: Expected `int`, got `float` - at `\$.canary"),
        (SMALL.replace('"below"', '"under"'), DataError, "p.toml: Invalid enum value 'under'"),
        (SMALL.replace("slo = 0.01", "abort = 0.01"), DataError, "at least one enforced SLO"),
        (SMALL.replace("slo = 0.01", "slo = nan"), DataError, "error_rate: slo must be a number in"),
        (SMALL + SMALL[SMALL.index("[[") :], DataError, "criteria must be of different names"),
        ("name = ", DataError, "p.toml: not TOML"),
        ("", DataError, "p.toml: Object missing required field"),
    ],
)  # fmt: skip
def test_bad_policies(text: str, error: type[Exception], message: str) -> None:
    """Unknown keys, wrong types, values out of range and broken TOML name file and key."""
    with pytest.raises(error, match=message):
        parse_policy(text, place="p.toml")


def test_plan_file() -> None:
    """A plan is a TOML file too; its policy is a shipped one by name, or a table of its own."""
    text = f'name = "n"\nmode = "observe"\nmodel = "{MODEL}"\nrate_per_s = 0.5\n'
    plan = parse_plan(text + 'policy = "seed-v1.8"', place="plan.toml")
    assert (plan.policy, plan.rate_per_s) == (shipped_policy("seed-v1.8"), 0.5)
    with pytest.raises(UnknownNameError, match=r"key in plan\.toml .speed."):
        parse_plan(text + "policy = 'default'\nspeed = 1", place="plan.toml")


def test_schema_file_is_current() -> None:
    """The schema in the package is the one that the Structs give."""
    shipped = resources.files("probatum.rollout") / "policies" / "policy.schema.json"
    assert json.loads(shipped.read_text(encoding="utf-8")) == json.loads(msgspec.json.encode(json_schema()))
