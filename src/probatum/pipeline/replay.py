"""Run a rollout over recorded decisions under a virtual clock.

Nothing is made up: decisions come from recorded data through features, scorer and baseline, the share is the hash that
executors use, and each mirrored call takes the latency of one request that was measured in ``smoke_1k``, in turn. Only the
moments at which measurements are read are stepped through; between them counts are sums.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from probatum.core.clock import NS_PER_DAY, NS_PER_MINUTE, NS_PER_MS, NS_PER_S, format_utc, parse_utc
from probatum.core.errors import BlockedError, DataError
from probatum.core.verdict import Provenance, Verdict
from probatum.features.events import available, sessions_of
from probatum.features.labels import parse_target
from probatum.features.samples import labelled
from probatum.features.sets import get_feature_set
from probatum.market.dataset import Dataset
from probatum.models.artifact import Artifact
from probatum.models.baseline import BASELINES, bind, rule_beside
from probatum.models.scoring import score_rows
from probatum.monitoring.outcomes import apart, differs, is_right
from probatum.monitoring.shadow import Outcome, ShadowCounts, is_match
from probatum.pipeline.ports import Sources
from probatum.pipeline.registry import load_artifact
from probatum.rollout import confirm
from probatum.rollout.choose import place_of
from probatum.rollout.events import Confirmed, DryRunDone, Event, Observed, Opened, PreflightDone, SetShare
from probatum.rollout.machine import Stage, Step, advance, initial, required_permission
from probatum.rollout.measurement import RateMeasurement
from probatum.rollout.plan import Plan

TIMEOUT_NS = 250 * NS_PER_MS
"""The mirror's own: a request that took longer in the smoke test would have been given up."""

TICK_GRID_NS = NS_PER_S
_SLOW = re.compile(r"slower_than_(\d+(?:\.\d+)?)ms")

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """Name what is replayed: a stored dataset in (start, end], and the measured requests (a blob's digest) of ``smoke``.

    Time only goes on, so what is replayed again is told ``shift_s`` later than it was recorded.
    """

    symbol: str
    dataset: str
    start: str
    end: str
    requests: str
    smoke: str
    shift_s: int = 0

    @property
    def span(self) -> tuple[int, int]:
        """Return start and end as they are told (ns UTC)."""
        return tuple(parse_utc(text) + self.shift_s * NS_PER_S for text in (self.start, self.end))  # type: ignore[return-value]


@dataclass(frozen=True)
class Tape:
    """Hold n decisions in time order, as they would be made whatever the share.

    ``known`` is when a decision's outcome was known (int64 ns, −1: never), ``right`` and ``base_right`` whether challenger
    and baseline then proved right. ``session`` numbers the sessions that they fall in. ``latency_ns`` and ``outcome`` (an index into OUTCOMES) are those of its call.
    """

    ts: Ints
    score: NDArray[np.float64]
    baseline: NDArray[np.float64]
    known: Ints
    right: Flags
    base_right: Flags
    session: Ints
    latency_ns: Ints
    outcome: NDArray[np.int8]
    provenance: Provenance

    def __len__(self) -> int:
        return int(self.ts.shape[0])


OUTCOMES = (Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT)


def step_of(dataset: Dataset) -> int:
    """Return the nanoseconds between decisions: a second on ticks, a minute on bars."""
    return NS_PER_MINUTE if dataset.quotes is None else TICK_GRID_NS


def read_tape(sources: Sources, model: str, recording: Recording) -> Tape:
    """Build the decisions of a recording with a model; DataError where it holds none."""
    artifact = load_artifact(sources, model)
    dataset = sources.datasets.load(recording.symbol, recording.dataset)
    start, end = parse_utc(recording.start), parse_utc(recording.end)
    tape = decide(artifact, dataset, start, end)
    latency_ns, outcome = read_requests(sources.blobs.get("requests", recording.requests))
    turn = np.arange(len(tape)) % len(latency_ns)
    shift = recording.shift_s * NS_PER_S
    return replace(
        tape,
        ts=tape.ts + shift,
        known=np.where(tape.known < 0, -1, tape.known + shift),
        latency_ns=latency_ns[turn],
        outcome=outcome[turn],
    )


def decide(artifact: Artifact, dataset: Dataset, start: int, end: int) -> Tape:
    """Return what challenger and baseline say at every second (ticks) or bar in (start, end], and what came of it."""
    target, feature_set = parse_target(artifact.target), get_feature_set(artifact.features.set, available(dataset))
    warm_ns = feature_set.required_minutes * NS_PER_MINUTE + (NS_PER_DAY if target.kind == "large_move" else 0)
    cut = dataset.between(start - warm_ns - NS_PER_DAY // 24, end + target.horizon_ns + NS_PER_MINUTE)
    frame, labels = labelled(cut, feature_set, target, None if dataset.quotes is None else TICK_GRID_NS)
    baseline = bind(BASELINES[rule_beside(artifact.target, feature_set.names)], feature_set.names)
    assert baseline is not None
    use = frame.ready & (frame.ts > start) & (frame.ts <= end)
    if not use.any():
        raise DataError(
            f"{dataset.symbol} holds no decision after {format_utc(start)}: it needs {warm_ns // NS_PER_MINUTE} "
            "minutes of history"
        )
    values = np.ascontiguousarray(frame.values[use])
    score = score_rows(artifact, values)
    base = np.array([baseline(row) for row in values.tolist()])
    hit = labels.label[use] == 1
    n = int(use.sum())
    return Tape(
        ts=frame.ts[use],
        score=score,
        baseline=base,
        known=np.where(labels.valid[use], labels.label_end[use], -1),
        right=is_right(score, hit),
        base_right=is_right(base, hit),
        session=sessions_of(dataset.calendar, frame.ts)[use],
        latency_ns=np.zeros(n, dtype=np.int64),
        outcome=np.zeros(n, dtype=np.int8),
        provenance=Provenance.weakest([dataset.provenance, Provenance.REPLAY]),
    )


def read_requests(data: bytes) -> tuple[Ints, NDArray[np.int8]]:
    """Return latency (ns) and outcome of each measured request; one without a reply timed out."""
    frame = pl.read_parquet(io.BytesIO(data), columns=["latency_ns", "status", "score"])
    latency, status = frame["latency_ns"].to_numpy(), frame["status"].to_numpy()
    late = (latency > TIMEOUT_NS) | (status < 0)
    fine = (status == 200) & frame["score"].is_not_null().to_numpy()
    outcome = np.where(late, OUTCOMES.index(Outcome.TIMEOUT), np.where(fine, 0, OUTCOMES.index(Outcome.ERROR)))
    if not len(latency):
        raise BlockedError("the smoke test holds no measured request to take a latency from: run `probatum smoke`")
    return latency.astype(np.int64), outcome.astype(np.int8)


class TapeFeed:
    """Answer reads of a replayed rollout with the counts of what would have been mirrored by then.

    A sample is a decision within the share. Outcomes whose horizons overlap are not independent, so of those that
    differ only ones are counted that began after the last counted one was known.
    """

    def __init__(self, tape: Tape, plan: Plan, source: str) -> None:
        self.tape, self.plan, self.source = tape, plan, source
        salt = plan.digest
        self._places = np.array([place_of(str(ts), salt) for ts in tape.ts.tolist()], dtype=np.uint64)
        self._measures = tuple(dict.fromkeys(item.measure for item in plan.criteria))
        self._before: dict[str, tuple[int, int, int | None, int | None]] = {}
        self._streams: dict[str, tuple[Ints, Ints]] = {}
        self.mirrored = np.zeros(len(tape), dtype=np.bool_)
        self._from = len(tape)

    def set_share(self, percent: int, now_ns: int) -> None:
        """Mirror this share of the decisions after ``now_ns``; what was counted so far stays counted."""
        self._before = {name: self._count(name, now_ns) for name in self._measures}
        self._from = int(np.searchsorted(self.tape.ts, now_ns, side="right"))
        self.mirrored[self._from :] = _within(self._places[self._from :], percent)
        self._streams = {name: self._stream(name) for name in self._measures}

    def read(self, now_ns: int) -> tuple[RateMeasurement, ...]:
        """Return every measure's counts since the run began; a measure that no recording holds is not among them."""
        found = []
        for name in self._measures:
            if not (_SLOW.fullmatch(name) or name in _KNOWN):
                continue
            n, bad, first, last = self._count(name, now_ns)
            found.append(
                RateMeasurement(
                    measure=name, n=n, bad=bad, first_ts=first, last_ts=last, read_ts=now_ns, source=self.source,
                    query=f"{name} of mirrored decisions by {format_utc(now_ns)}", provenance=self.tape.provenance,
                )
            )  # fmt: skip
        return tuple(found)

    def after_close(self, now_ns: int, poll_ns: int) -> int:
        """Return when to read next: a poll later, or with the first decision of the next session where none comes before."""
        tape, following = self.tape, int(np.searchsorted(self.tape.ts, now_ns, side="right"))
        if 0 < following < len(tape) and tape.session[following] != tape.session[following - 1]:
            return max(now_ns + poll_ns, int(tape.ts[following]))
        return now_ns + poll_ns

    def counts(self, until_ns: int) -> ShadowCounts:
        """Return the comparison of all that was mirrored until a time, as an executor counts it."""
        counts, tape = ShadowCounts(), self.tape
        rows = np.flatnonzero(self.mirrored & (tape.ts <= until_ns))
        columns = (tape.outcome[rows], tape.baseline[rows], tape.score[rows], tape.latency_ns[rows])
        for outcome, baseline, score, latency_ns in zip(*(column.tolist() for column in columns), strict=True):
            if outcome:
                counts.missed(OUTCOMES[outcome])
            else:
                counts.heard(baseline, score, 0, latency_ns)
        return counts

    def hits(self, until_ns: int) -> dict[str, int]:
        """Count of the mirrored decisions whose outcome was known by then how many each of the two got right."""
        tape = self.tape
        rows = self.mirrored & (tape.known >= 0) & (tape.known <= until_ns) & (tape.outcome == 0)
        return {
            "outcomes_known": int(rows.sum()),
            "canary_right": int((rows & tape.right).sum()),
            "baseline_right": int((rows & tape.base_right).sum()),
        }

    def around(self, ts: int, most: int) -> list[dict[str, Any]]:
        """Return the newest mirrored decisions until a time, those that brought no answer first of all."""
        tape = self.tape
        rows = np.flatnonzero(self.mirrored & (tape.ts <= ts))
        failed = rows[tape.outcome[rows] != 0]
        chosen = (failed if len(failed) else rows)[-most:]
        return [
            {
                "ts": format_utc(int(tape.ts[i])),
                "score": float(tape.score[i]),
                "baseline": float(tape.baseline[i]),
                "latency_ms": int(tape.latency_ns[i]) / NS_PER_MS,
                "outcome": OUTCOMES[int(tape.outcome[i])].value,
            }
            for i in chosen.tolist()
        ]

    def _count(self, name: str, now_ns: int) -> tuple[int, int, int | None, int | None]:
        n, bad, first, last = self._before.get(name, (0, 0, None, None))
        if name not in self._streams:
            return n, bad, first, last
        when, bads = self._streams[name]
        seen = int(np.searchsorted(when, now_ns, side="right"))
        if seen:
            first = int(when[0]) if first is None else first
            n, bad, last = n + seen, bad + int(bads[seen - 1]), int(when[seen - 1])
        return n, bad, first, last

    def _stream(self, name: str) -> tuple[Ints, Ints]:
        """Return when each sample of the present share is counted, and the running count of the bad ones."""
        tape, ok = self.tape, self.tape.outcome == 0
        timeout = tape.outcome == OUTCOMES.index(Outcome.TIMEOUT)
        mine = self.mirrored.copy()
        mine[: self._from] = False
        when = tape.ts
        if name in ("errors", "uncovered"):
            chosen, bad = mine, ~ok
        elif match := _SLOW.fullmatch(name):
            chosen, bad = mine & (ok | timeout), timeout | (tape.latency_ns > float(match[1]) * NS_PER_MS)
        elif name == "mismatches":
            pairs = zip(tape.baseline.tolist(), tape.score.tolist(), strict=True)
            chosen, bad = mine & ok, np.array([not is_match(a, b) for a, b in pairs], dtype=np.bool_)
        else:
            differ = mine & ok & (tape.known >= 0) & differs(tape.score, tape.baseline)
            chosen = np.zeros(len(tape), dtype=np.bool_)
            chosen[differ] = apart(tape.ts[differ], tape.known[differ])
            bad, when = ~tape.right, tape.known
        return when[chosen], np.cumsum(bad[chosen])


_KNOWN = ("errors", "uncovered", "mismatches", "outcome_losses")


def walk(feed: TapeFeed, step: Step, apply: Callable[[Event], Step], now_ns: int, end_ns: int) -> Step:
    """Read and apply at every poll until the rollout or the recording ends; return the last step.

    A rollout that holds goes on being watched: nobody is there to let it go on, but it may still have to be aborted.
    While the market is closed nothing is read: the clock moves to the next session.
    """
    poll_ns = feed.plan.ladder.poll_s * NS_PER_S
    set_shares(feed, step, now_ns)
    while step[0].stage in (Stage.RUNNING, Stage.HOLDING) and now_ns < end_ns:
        now_ns = min(feed.after_close(now_ns, poll_ns), end_ns)
        step = apply(Observed(now_ns, feed.read(now_ns)))
        set_shares(feed, step, now_ns)
    return step


def rehearse(plan: Plan, feed: TapeFeed, start_ns: int, end_ns: int) -> list[tuple[Event, Step]]:
    """Run a whole plan in memory as if preflight had passed and ``demo`` had confirmed; return events with their steps."""
    done: list[tuple[Event, Step]] = []

    def apply(event: Event) -> Step:
        step = advance(plan, done[-1][1][0] if done else initial(plan), event)
        done.append((event, step))
        return step

    for event in (
        Opened(start_ns),
        PreflightDone(start_ns, Verdict.PASS, "rehearsal", feed.tape.provenance),
        DryRunDone(start_ns, Verdict.PASS, "rehearsal", plan.digest, start_ns),
    ):
        apply(event)
    phrase = confirm.build_phrase(required_permission(plan, done[-1][1][0], start_ns))
    walk(feed, apply(Confirmed(start_ns, phrase, confirm.DEMO)), apply, start_ns, end_ns)
    return done


def source_of(recording: Recording) -> str:
    """Say in one line what is replayed."""
    return f"replay of {recording.symbol} {recording.dataset[:12]}, latencies of smoke_1k {recording.smoke[:12]}"


def set_shares(feed: TapeFeed, step: Step, now_ns: int) -> None:
    """Let a feed follow the shares that a step set."""
    for effect in step[1]:
        if isinstance(effect, SetShare):
            feed.set_share(effect.percent, now_ns)


def _within(places: NDArray[np.uint64], percent: int) -> Flags:
    limit = percent / 100.0 * 2.0**64
    return np.array([place < limit for place in places.tolist()], dtype=np.bool_)
