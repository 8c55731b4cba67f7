"""What is remembered of a ledger stays small and true, however long the chain and whatever is in it."""

from __future__ import annotations

from typing import Any

import pytest

from probatum.core.clock import format_utc
from probatum.core.verdict import Provenance
from probatum.pipeline.chronicle import NEWEST_MAX, POINTS_MAX, SAID_MAX, SNAPSHOTS_MAX, Chronicle
from probatum.pipeline.ports import Record
from probatum.pipeline.views import VIEWS, Known
from probatum.testing.fakes import MemoryLedger, MemorySources

LIVE = {
    "controller": {"role": "leading", "problem": "", "epoch": 1, "rollouts": []},
    "executors": [],
    "jobs": [],
    "verifying": None,
    "retraining": None,
}


def told(chronicle: Chronicle, kind: str, subject: str, inputs: Any, figures: Any) -> Record:
    """Append one record to a ledger of its own, and let the chronicle take it."""
    record = MemoryLedger().append(kind, subject, Provenance.REPLAY, {"inputs": inputs, "figures": figures})
    chronicle.take(record)
    return record


def event(chronicle: Chronicle, second: int, share: int, name: str = "observed", attempt: str = "r") -> None:
    state = {
        "ts": format_utc(second * 10**9),
        "share_percent": share,
        "streams": {"errors": {"segments": [[second, 0]]}},
    }
    told(chronicle, "rollout_event", attempt, {"event": {"event": name, "ts": state["ts"]}}, {"state": state})


def test_a_long_rollout_is_thinned_and_no_step_is_lost() -> None:
    """Of 5,000 readings some hundreds are kept: the first, the last, and each at which the share changed."""
    chronicle = Chronicle()
    event(chronicle, 0, 0, "opened")
    for second in range(1, 5_000):
        event(chronicle, second, (second // 1_000 + 1) * 10)
    points = chronicle.trails["r"].points
    assert len(points) <= POINTS_MAX
    assert points[-1].ts == 4_999 * 10**9
    assert [p.ts // 10**9 for p in points if p.turn] == [0, 1, 1_000, 2_000, 3_000, 4_000]
    assert points[-1].counts == {"errors": (4_999, 0)}
    assert len({p.ts for p in points}) == len(points)
    event(chronicle, 6_000, 0, "opened")
    assert len(chronicle.trails["r"].points) == 1
    for second in range(100):
        event(chronicle, 6_001 + second, 0, "paused")
    assert len(chronicle.trails["r"].said) == SAID_MAX


def test_subjects_snapshots_and_rollouts_are_bounded() -> None:
    """Names come from outside: of thousands the newest are kept."""
    chronicle = Chronicle()
    for number in range(NEWEST_MAX + 50):
        told(chronicle, "release", f"m{number}", {}, {})
    assert len(chronicle.newest) == NEWEST_MAX
    assert ("release", "m0") not in chronicle.newest
    assert chronicle.counts["release"] == NEWEST_MAX + 50
    for hour in range(SNAPSHOTS_MAX + 10):
        figures = {
            "timestamp": format_utc(hour * 3_600 * 10**9),
            "verdict": "PASS",
            "overall": {"psi": 0.1},
            "features": [],
        }
        told(chronicle, "psi_snapshot", "m", {"artifact": "a" * 64}, {**figures, "checks": []})
    assert len(chronicle.drift["m"]) == SNAPSHOTS_MAX
    assert chronicle.drift["m"][-1]["overall"] == 0.1


@pytest.mark.parametrize(
    "kind", ["train", "offline_report", "alias", "waiver", "psi_snapshot", "canary_run", "rollout_event", "alert"]
)
@pytest.mark.parametrize(
    "body", [({}, {}), ({"event": 3}, {"state": []}), ({"artifact": None}, {"verdict": {}, "aliases": 7})]
)
def test_a_record_of_another_shape_sinks_no_page(kind: str, body: tuple[Any, Any]) -> None:
    """It is counted and listed; every view is still made."""
    chronicle = Chronicle()
    told(chronicle, kind, "odd", *body)
    assert chronicle.seq == 1
    known = Known(chronicle, MemorySources(), 0, LIVE)
    for page, view in VIEWS.items():
        assert view(known), page
    assert VIEWS["evidence"](known)["chain"]["records"] == 1
    assert chronicle.unreadable == (kind not in ("alert",))


def test_what_an_executor_answers_is_checked() -> None:
    """Counts that are none are a problem of that executor; the rest are added up as they are."""
    from probatum.monitoring.shadow import ShadowCounts

    counts = ShadowCounts()
    counts.heard(0.5, 0.52, 1_000, 2_000_000)
    good = {"url": "http://a", "problem": "", "counts": counts.to_dict(), "rollout": {"share": 0.05, "sequence": 3}}
    odd: list[Any] = [{"url": "b", "counts": [1]}, {"url": "c", "counts": {"outcomes": {"ok": "x"}}, "rollout": "?"}, 7]
    view = VIEWS["shadow"](Known(Chronicle(), MemorySources(), 0, {**LIVE, "executors": [good, good, *odd]}))
    assert view["counted"]["matches"] == 2
    assert view["counted"]["latency_ms"]["shadow"]["p50"] == pytest.approx(2.0, rel=0.05)
    assert [item["share"] for item in view["executors"]] == [0.05, 0.05, None, None, None]
    assert ["cannot be read" in item["problem"] for item in view["executors"]] == [False, False, True, True, False]


def test_two_versions_of_one_name_keep_their_own_figures() -> None:
    """What was judged of the newer one is not said of the older."""
    chronicle = Chronicle()
    for digest, value in (("a" * 64, 0.51), ("b" * 64, 0.71)):
        told(chronicle, "train", "m", {}, {"artifact": digest, "target": "t"})
        checks = [{"name": name, "value": value, "verdict": "PASS"} for name in ("auc", "level_features")]
        told(chronicle, "offline_report", "m", {"artifact": digest}, {"verdict": "PASS", "checks": checks})
    told(chronicle, "train", "m", {}, {"artifact": "c" * 64, "target": "t"})
    found = VIEWS["models"](Known(chronicle, MemorySources(), 0, LIVE))["models"]
    assert [(item["digest"][0], item["auc"]["value"]) for item in found] == [("c", None), ("b", 0.71), ("a", 0.51)]
