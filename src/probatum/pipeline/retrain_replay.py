"""Replay a recording day by day: what was known by a day's end is imported, looked at for drift, and retrained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import msgspec
import polars as pl

from probatum.core.clock import NS_PER_DAY, format_utc
from probatum.core.errors import BlockedError, DataError
from probatum.market.dataset import Dataset
from probatum.market.quality import Recording
from probatum.pipeline.drift import snapshot
from probatum.pipeline.importing import import_recording
from probatum.pipeline.ports import Ledger, Progress, Record, Sources
from probatum.pipeline.proposals import OPEN, Proposal, proposals, propose_on_drift
from probatum.pipeline.registry import CHAMPION, aliases, move_alias
from probatum.pipeline.retrain import CANDIDATES, TARGET, Outcome, run_retrain
from probatum.pipeline.story import candidates as seed_first
from probatum.pipeline.training import train


class Day(msgspec.Struct, frozen=True):
    """Hold what one replayed day brought: the incumbent's drift, the proposal that stands, and the attempt made on it."""

    end: str
    drift: Record
    proposal: Proposal | None = None
    outcome: Outcome | None = None


def replay_days(
    recording: Recording,
    history_ns: int,
    *,
    save: Callable[[Dataset], Dataset],
    ledger: Ledger,
    sources: Sources,
    candidates: Sequence[tuple[str, str]] = CANDIDATES,
    target: str = TARGET,
    progress: Progress | None = None,
) -> Iterator[Day]:
    """Train the seed's v1.8-b0 on the history, make it champion, and yield each day until an attempt passes or none is left.

    Everything is looked up before it is made, so a replay that was interrupted goes on where it stopped. At the end the
    whole recording is imported. Raises DataError where the recording is no longer than its history.
    """
    ends = day_ends(recording, history_ns)
    history = import_recording(until(recording, ends[0]), save=save, ledger=ledger, sources=sources).dataset
    model = train(ledger, sources, seed_first(history)[0], progress).digest
    if (champion := aliases(ledger.records(kind="alias")).get(CHAMPION)) is None:
        move_alias(ledger, sources, CHAMPION, model)
    elif champion != model:
        raise BlockedError("the workspace has another champion already: replay in a folder of its own")
    for number, end_ns in enumerate(ends[1:], 1):
        import_recording(until(recording, end_ns), save=save, ledger=ledger, sources=sources)
        drift = snapshot(ledger, sources, model)
        day = _try(ledger, sources, drift, end_ns, candidates, target, progress)
        yield day
        if progress is not None:
            progress.step("days", number, len(ends) - 1)
        if _is_last(day):
            break
    import_recording(recording, save=save, ledger=ledger, sources=sources)


def _try(
    ledger: Ledger,
    sources: Sources,
    drift: Record,
    end_ns: int,
    candidates: Sequence[tuple[str, str]],
    target: str,
    progress: Progress | None,
) -> Day:
    """Open a proposal where there is drift, and make the day's attempt on whatever proposal stands."""
    propose_on_drift(ledger, sources, drift, end_ns)
    if (proposal := _newest(ledger, drift)) is None:
        return Day(format_utc(end_ns), drift)
    outcome = run_retrain(ledger, sources, proposal, candidates, target=target, progress=progress)
    return Day(format_utc(end_ns), drift, _newest(ledger, drift), outcome)


def _newest(ledger: Ledger, drift: Record) -> Proposal | None:
    model = drift.body["inputs"]["artifact"]
    return next((item for item in reversed(proposals(ledger.records())) if item.model == model), None)


def _is_last(day: Day) -> bool:
    """Return whether a day's attempt is the one that settled its proposal."""
    if day.proposal is None or day.outcome is None or day.proposal.state == OPEN:
        return False
    return day.outcome.attempt == day.proposal.attempts[-1]


def day_ends(recording: Recording, history_ns: int) -> list[int]:
    """Return the ends (ns UTC) of the history and of each whole day after it; the first day is that of the first row."""
    stamps = pl.concat([frame["ts_event"] for frame in recording.frames.values()]).drop_nulls()
    if not stamps.len():
        raise DataError("the recording holds no row with a time")
    first, last = int(stamps.min()), int(stamps.max())  # type: ignore[arg-type]
    start = first - 1 - (first - 1) % NS_PER_DAY  # a bar stamped at midnight closes the day before
    ends = list(range(start + history_ns, last + 1, NS_PER_DAY))
    if len(ends) < 2:
        raise DataError(f"the recording ends {format_utc(last)}: no day is left after its history to be replayed")
    return ends


def until(recording: Recording, end_ns: int) -> Recording:
    """Return what a recording held by a time; later rows are counted as ignored, rows without a time stay to be refused."""
    known = pl.col("ts_event").is_null() | (pl.col("ts_event") <= end_ns)
    frames = {kind: frame.filter(known) for kind, frame in recording.frames.items()}
    later = sum(recording.frames[kind].height - frame.height for kind, frame in frames.items())
    ignored = {**recording.ignored, **({f"later than {format_utc(end_ns)}": later} if later else {})}
    return replace(recording, frames={kind: f for kind, f in frames.items() if f.height}, ignored=ignored)
