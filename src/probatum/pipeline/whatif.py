"""Ask how rollouts would have ended on recorded days: each plan over each symbol and day, independent of one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from probatum.core.clock import NS_PER_DAY
from probatum.core.errors import DataError
from probatum.pipeline.canary import record_of, window_of
from probatum.pipeline.ports import Mapper, Progress, Sources
from probatum.pipeline.registry import load_artifact
from probatum.pipeline.replay import Recording, TapeFeed, read_tape, rehearse, source_of
from probatum.rollout.machine import Stage
from probatum.rollout.plan import Plan


class Case(msgspec.Struct, frozen=True):
    """Hold one plan and the day of one symbol that it is replayed on."""

    plan: Plan
    recording: Recording


class Ending(msgspec.Struct, frozen=True):
    """Say how a plan ended on a day: the stage, the phases passed of those planned, and why it went no further."""

    policy: str
    symbol: str
    start: str
    end: str
    stage: str
    passed: int
    phases: int
    decisions: int
    reason: str


def cases(sources: Sources, plans: Sequence[Plan], symbols: Sequence[str] = ()) -> list[Case]:
    """Return every plan with every UTC day of ``symbols`` (the model's own) that holds data it was not trained on."""
    found = []
    for plan in plans:
        for symbol in sorted(set(symbols) or load_artifact(sources, plan.model).data.symbols):
            dataset = sources.datasets.load(symbol)
            ts = dataset.frames[dataset.spine]["ts_event"]
            first, last = window_of(sources, plan.model, dataset)
            for day in range(first - first % NS_PER_DAY, last, NS_PER_DAY):
                start, end = max(first, day), min(last, day + NS_PER_DAY)
                if ts.search_sorted(start, side="right") < ts.search_sorted(end, side="right"):
                    found.append(Case(plan, record_of(sources, plan.model, dataset, start, end)))
    if not found:
        raise DataError("the data hold no day after those that the model was trained on")
    return found


def replay_each(
    sources: Sources, days: Sequence[Case], mapper: Mapper, progress: Progress | None = None
) -> Iterator[Ending]:
    """Replay every case, wherever the mapper does it."""
    for done, ending in enumerate(mapper.map(partial(replay, sources), days), 1):
        if progress is not None:
            progress.step("what if", done, len(days))
        yield ending


def replay(sources: Sources, case: Case) -> Ending:
    """Run one plan over one day in memory, as a dry-run does."""
    plan, recording = case.plan, case.recording
    tape = read_tape(sources, plan.model, recording)
    steps = rehearse(plan, TapeFeed(tape, plan, source_of(recording)), *recording.span)
    state, phases = steps[-1][1][0], len(plan.ladder.shares_percent)
    return Ending(
        policy=plan.policy.name,
        symbol=recording.symbol,
        start=recording.start,
        end=recording.end,
        stage=state.stage.value,
        passed=phases if state.stage is Stage.COMPLETED else max(state.phase, 0),
        phases=phases,
        decisions=len(tape),
        reason=state.reason or ("" if state.stage is Stage.COMPLETED else "the day ended first"),
    )
