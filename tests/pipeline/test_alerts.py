"""Silence is proven or it is an error; what fires counts by its severity, unless its criterion is only watched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from answers import JOBS, Told
from canary import bench

from probatum.core.clock import NS_PER_S
from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance
from probatum.pipeline import promotion
from probatum.pipeline.alerts import Answer, Rule, Series, record_alerts, summarise
from probatum.pipeline.verify import verify
from probatum.rollout.policy import shipped_policy

DAY = 86_400
NOW = 1_704_067_200 * NS_PER_S


def told(history: Told, ignored: tuple[str, ...] = (), window_s: int = DAY) -> dict[str, Any]:
    place = bench()
    return summarise(place.sources, place.sources.blobs.put("alerts", history.read(window_s, NOW)), ignored)


def test_a_watched_day_without_alerts_is_silence() -> None:
    """Covered whole, nothing fired, no problem."""
    found = told(Told())
    assert (found["coverage"], found["critical"], found["warning"], found["problem"]) == (1.0, 0, 0, "")
    assert found["window_s"] == DAY


def test_alerts_count_by_severity_and_by_their_criterion() -> None:
    """Each time one fires counts; ABORT and what is unknown are grave; info and a criterion only watched count for nothing."""
    fired = {
        ("MLPSICritical", "critical", ""): [5, 6, 7, 100],
        ("MLCanaryShadowErrorRateHigh", "ABORT", "error_rate"): [9],
        ("MLPSIWarning", "warning", ""): [1],
        ("MLOdd", "page", ""): [3],
        ("MLCanaryPSIWarning", "info", ""): [3],
        ("MLShadowMatchLow", "warning", "match_rate"): [4],
    }
    found = told(Told(fired), ("match_rate",))
    assert (found["critical"], found["warning"]) == (4, 1)
    assert {row["alertname"] for row in found["alerts"] if not row["counts_as"]} == {
        "MLCanaryPSIWarning",
        "MLShadowMatchLow",
    }
    assert told(Told(fired))["warning"] == 2


def _up(*, without: range, job: str = JOBS[0], value: str = "1") -> tuple[Series, ...]:
    whole = msgspec.json.decode(Told().read(DAY, NOW), type=Answer).up
    return tuple(
        msgspec.structs.replace(
            series,
            values=[
                (ts, value if i in without else "1")
                for i, (ts, _) in enumerate(series.values)
                if i not in without or value != "1"
            ],
        )
        if series.metric["job"] == job
        else series
        for series in whole
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"problem": "not answered: refused"}, "refused"),
        ({"rules": ()}, "no alert rule"),
        ({"rules": (Rule("MLA", "ok"), Rule("MLB", "err", "bad"))}, "MLB is not evaluated: bad"),
        ({"rules": (Rule("MLA", "unknown"),)}, "MLA is not evaluated"),
        ({"loaded": "2023-12-31T12:00:00Z"}, "within the window"),
        ({"up": ()}, "0.0% of the window"),
        ({"up": _up(without=range(3, 6))}, "not for 180 s"),
        ({"up": _up(without=range(0, 1440, 90))}, "98.9% of the window"),
        ({"up": _up(without=range(3, 6), job=JOBS[1], value="0")}, "not for 180 s"),
    ],
)
def test_a_window_that_was_not_watched_is_no_silence(changes: dict[str, Any], said: str) -> None:
    """Nobody asked, no rules, rules that fail or are new, a source that was away or down: a problem, in words."""
    assert said in told(Told(**changes))["problem"]


def test_a_gap_in_which_no_alert_could_have_fired_is_none() -> None:
    """Two minutes are forgiven: no alert fires on less."""
    assert told(Told(up=_up(without=range(3, 5))))["problem"] == ""


@pytest.mark.parametrize(
    ("history", "blocker"),
    [
        (Told(), ""),
        (Told({("MLPSIWarning", "warning", ""): [1, 5]}), ""),
        (Told({("MLPSIWarning", "warning", ""): [1, 5, 9]}), "0 critical, 3 warnings"),
        (Told({("MLEngineDown", "critical", ""): [1]}), "1 critical, 0 warnings"),
        (Told(problem="not answered: refused"), "ERROR"),
    ],
)
def test_the_gate_takes_nothing_but_silence(history: Told, blocker: str) -> None:
    """The promote gate's blocker is cleared by silence, names what fired, and an answer that is missing blocks as ERROR."""
    place = bench(Provenance.LIVE)
    plan, now = place.plan(shipped_policy("default")), place.clock.now_ns()
    record = record_alerts(place.ledger, place.sources, plan, history, now_ns=now)
    check = promotion.check_promotion(
        place.ledger, place.sources, place.model, policy=plan.policy, now_ns=now, asked_by="ada"
    )
    found = {item.name: item.value for item in promotion.blockers_of(check)}
    assert blocker in found.get("alerts", "")
    assert ("alerts" in found) == bool(blocker) == (record.body["figures"]["verdict"] != "PASS")
    assert verify(place.ledger, place.sources).findings == ()


def test_what_is_no_answer_is_refused() -> None:
    """A blob of other bytes is an integrity error."""
    place = bench()
    with pytest.raises(IntegrityError):
        summarise(place.sources, place.sources.blobs.put("alerts", b'{"source": 5}'), ())
