"""Outcomes are joined beside the replies: nothing is worked off on their path, and nothing grows without end."""

from __future__ import annotations

import asyncio
import json

import pytest

from probatum.core.verdict import Provenance
from probatum.features.labels import parse_target
from probatum.market.events import BAR, TIMER
from probatum.monitoring.outcomes import Joined, Made
from probatum.monitoring.shadow import DecisionRow
from probatum.rollout.lease import RolloutDocument
from probatum.services.executor import outcomes as live
from probatum.services.executor.outcomes import LiveOutcomes
from probatum.services.executor.run import RunMeter
from probatum.services.executor.shadow import NoLog
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

MINUTE = 60_000_000_000
START = 1_704_000_000_000_000_000 - 1_704_000_000_000_000_000 % MINUTE


def live_outcomes(target: str = "direction@60s", grid_ns: int | None = None) -> LiveOutcomes:
    return LiveOutcomes(parse_target(target), grid_ns, Registry())


def decided(seq: int, as_of: int, *, score: float | None = 0.6, model: str = "m", symbol: str = "X") -> DecisionRow:
    row = DecisionRow(seq, as_of + 5, as_of, str(seq), "", symbol, "", [], 0.4, 0, challenger=score, model=model)
    row.outcome = "error" if score is None else "ok"
    return row


def work_off(outcomes: LiveOutcomes) -> None:
    while outcomes.work():
        pass


def test_rows_are_bars_or_the_timers_of_the_models_grid() -> None:
    """On bars a timer is no row, on a grid of seconds a bar is none, and minutes are either."""
    assert live_outcomes().kinds == {BAR}
    assert live_outcomes(grid_ns=1_000_000_000).kinds == {TIMER}
    assert live_outcomes(grid_ns=MINUTE).kinds == {BAR, TIMER}


def test_overload_drops_all_that_waits_and_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue is emptied: lost rows and dropped decisions are counted, and no label spans the hole."""
    monkeypatch.setattr(live, "QUEUE_MAX", 10)
    outcomes = live_outcomes("direction@3m")
    outcomes.row("X", START, 100.0)
    outcomes.decided(decided(1, START), "")
    work_off(outcomes)
    for i in range(1, 12):
        outcomes.row("X", START + i * MINUTE, 100.0 + i)
        outcomes.decided(decided(1 + i, START + i * MINUTE), "")
        assert outcomes.backlog <= 10
    work_off(outcomes)
    counts, lost = outcomes._joiner.counts, outcomes._registry.value(metrics.OUTCOME_ROWS_LOST)
    waiting = outcomes._joiner.waiting
    assert lost == 10
    assert counts.dropped == 11
    assert counts.joined + counts.unlabelled + counts.off_grid + counts.dropped + waiting == 12
    assert counts.joined == 0


def test_history_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever posts more events than are worked off gets its reply later, so that no row is lost."""
    monkeypatch.setattr(live, "QUEUE_MAX", 100)
    outcomes = live_outcomes()

    async def go() -> None:
        for i in range(1_000):
            outcomes.row("X", START + i * MINUTE, 100.0)
            if i % 40 == 0:
                await outcomes.room()

    asyncio.run(go())
    assert outcomes._registry.value(metrics.OUTCOME_ROWS_LOST) == 0


def test_a_decision_without_a_score_has_no_outcome() -> None:
    """What the model did not answer is an error, counted elsewhere, and no loss."""
    outcomes = live_outcomes()
    outcomes.decided(decided(1, START, score=None), "run")
    assert outcomes.backlog == 0


def test_the_attempt_counts_its_own_outcomes_only() -> None:
    """Decisions of another attempt, agreeing ones and overlapping ones are no samples; a wrong one is a bad one."""
    registry = Registry()
    meter = RunMeter(NoLog(), registry, Provenance.SYNTHETIC)
    document = RolloutDocument(run="a#2", challenger="ab" * 32)
    meter.follow(lambda: document)
    meter.append(decided(1, START))

    def settle(as_of: int, *, run: str = "a#2", score: float = 0.6, hit: bool = True) -> None:
        made = Made("X", as_of, as_of, 1, 0.4, score, "m", run)
        meter.settle(Joined(as_of + 10, as_of, "X", as_of, 1, hit, made))

    settle(0, run="a#1")
    settle(1)
    settle(5)
    settle(11, score=0.3)
    settle(12, hit=False)
    registry.expose()
    labels = ("a#2", "observe", ("ab" * 32)[:16], "synthetic", "outcome_losses")
    assert registry.value(metrics.ROLLOUT_SAMPLES, *labels) == 2
    assert registry.value(metrics.ROLLOUT_BAD, *labels) == 1
    document = RolloutDocument(run="a#3")
    settle(100)
    registry.expose()
    assert registry.value(metrics.ROLLOUT_SAMPLES, "a#3", "observe", "", "synthetic", "outcome_losses") == 0


def test_the_log_says_which_model_was_on_trial() -> None:
    """The rollout's challenger where the document names one, else the model that the executor was started for."""
    document = RolloutDocument(run="a#1", challenger="cd" * 32)
    meter = RunMeter(NoLog(), Registry(), Provenance.SYNTHETIC, model="ab" * 32)
    row = decided(1, START)
    meter.append(row)
    assert row.model == ("ab" * 32)[:16]
    meter.follow(lambda: document)
    meter.append(row)
    assert row.model == ("cd" * 32)[:16]
    document = RolloutDocument()
    meter.append(row)
    assert row.model == ("ab" * 32)[:16]


def test_gauges_speak_of_one_model_and_of_enough_outcomes() -> None:
    """Below a hundred outcomes there is no figure, and another model begins at none."""
    outcomes = live_outcomes("next_move")

    def tell(n: int, model: str) -> str:
        for i in range(n):
            made = Made("X", i, i, i, 0.4, 0.3 + 0.4 * (i % 2), model)
            outcomes._count(Joined(i, i, "X", i, i, i % 2 == 1, made))
        return outcomes._registry.expose().decode()

    assert "ml_live_auc{" not in tell(99, "a")
    text = tell(1, "a")
    assert 'ml_live_auc{scorer="model"} 1' in text
    assert 'ml_live_auc{scorer="baseline"} 0.5' in text
    assert json.loads(text.split('ml_live_brier{scorer="model"} ')[1].splitlines()[0]) == pytest.approx(0.09)
    assert "ml_live_auc{" not in tell(50, "b")
