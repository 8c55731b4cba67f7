"""The executor counts for a rollout what was finished under its attempt, by measure."""

from __future__ import annotations

import pytest

from probatum.core.verdict import Provenance
from probatum.monitoring.shadow import DecisionRow, Outcome
from probatum.rollout.lease import RolloutDocument
from probatum.services.executor.run import MEASURES, RunMeter, measures_of
from probatum.services.executor.shadow import NoLog
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry


def finished(outcome: str, *, late_ms: float = 1.0, score: float = 0.5, **fields: object) -> DecisionRow:
    row = DecisionRow(1, 5, 0, "d", "", "", "", [], 0.5, 0, outcome=outcome, shadow_ns=int(late_ms * 1e6))
    row.challenger = score if outcome == "ok" else None
    for name, value in fields.items():
        setattr(row, name, value)
    return row


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_counts_where_it_must(outcome: Outcome) -> None:
    """Only what was left out counts nowhere; what was not asked is uncovered, and neither an error nor a success."""
    found = measures_of(finished(outcome.value))
    if outcome is Outcome.SKIPPED:
        assert found == {}
        return
    assert found["uncovered"] is (outcome is not Outcome.OK)
    asked = outcome not in (Outcome.BREAKER_OPEN, Outcome.SHED)
    assert ("errors" in found) is asked
    assert ("slower_than_80ms" in found) is (outcome in (Outcome.OK, Outcome.TIMEOUT))
    assert ("mismatches" in found) is (outcome is Outcome.OK)
    assert set(found) <= set(MEASURES)


@pytest.mark.parametrize(
    ("late_ms", "slow"), [(80.0, (False, False)), (80.001, (True, False)), (120.001, (True, True))]
)
def test_slow_is_later_than_the_bound(late_ms: float, slow: tuple[bool, bool]) -> None:
    """At the bound is in time; a timeout is slow at every bound."""
    found = measures_of(finished("ok", late_ms=late_ms))
    assert (found["slower_than_80ms"], found["slower_than_120ms"]) == slow
    late = measures_of(finished("timeout"))
    assert late["slower_than_80ms"] and late["slower_than_120ms"]  # noqa: PT018


def test_gated_judges_the_champion() -> None:
    """In gated mode the challenger's outcome says nothing; a unit outside the share is no sample."""
    row = finished("error", champion_outcome="ok", champion=0.9)
    assert measures_of(row) == {
        "uncovered": False, "errors": False, "slower_than_80ms": False, "slower_than_120ms": False, "mismatches": True,
    }  # fmt: skip
    assert measures_of(finished("ok", champion_outcome="not_in_share")) == {}
    assert measures_of(finished("ok", champion_outcome="stale")) == {"uncovered": True}


def test_a_new_attempt_begins_at_zero() -> None:
    """Counts stay under the attempt that was followed, and an executor that follows none counts for none."""
    registry, document = Registry(), RolloutDocument()
    meter = RunMeter(NoLog(), registry, Provenance.SYNTHETIC)
    meter.follow(lambda: document)
    meter.append(finished("ok"))
    assert b"ml_rollout_samples_total" not in registry.expose()
    for run, count in (("r#1", 3), ("r#2", 1)):
        document = RolloutDocument(run=run, challenger="ab" * 32)
        for _ in range(count):
            meter.append(finished("error"))
        for _ in range(2):  # exposing twice counts nothing twice
            registry.expose()
    for run, count in (("r#1", 3), ("r#2", 1)):
        labels = (run, "observe", "ab" * 8, "synthetic", "errors")
        assert registry.value(metrics.ROLLOUT_SAMPLES, *labels) == registry.value(metrics.ROLLOUT_BAD, *labels) == count
    assert registry.value(metrics.ROLLOUT_FIRST, "r#2") == 5e-9


def test_a_decision_made_before_the_attempt_is_none_of_its_samples() -> None:
    """One whose answer came after the attempt began is logged and not counted: its first sample lies after its start."""
    registry, document = Registry(), RolloutDocument()
    meter = RunMeter(NoLog(), registry, Provenance.SYNTHETIC)
    meter.follow(lambda: document, lambda: 100)
    document = RolloutDocument(run="r#1", challenger="ab" * 32)
    for ts in (90, 99, 100, 105):
        assert meter.append(finished("ok", ts=ts))
    registry.expose()
    labels = ("r#1", "observe", "ab" * 8, "synthetic", "errors")
    assert registry.value(metrics.ROLLOUT_SAMPLES, *labels) == 2
    assert registry.value(metrics.ROLLOUT_FIRST, "r#1") == 100e-9


def test_a_full_page_shows_nothing_and_decisions_go_on() -> None:
    """After too many attempts the newest is not measured at all; nothing raises."""
    registry, document = Registry(), RolloutDocument()
    meter = RunMeter(NoLog(), registry, Provenance.SYNTHETIC)
    meter.follow(lambda: document)
    for number in range(400):
        document = RolloutDocument(run=f"rollout#{number}", challenger="ab" * 32)
        assert meter.append(finished("ok"))
        page = registry.expose()
    assert b'run="rollout#1"' in page
    assert b'run="rollout#399"' not in page
