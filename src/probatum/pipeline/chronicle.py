"""Remember of a ledger what pages show: read once, then record by record; bodies of old events are not kept.

A ledger holds 100,000 events of rollouts and more; what is remembered is bounded: the newest record of each kind and subject,
a thinned trail of each rollout, the last drift snapshots as numbers.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from probatum.core.clock import parse_utc
from probatum.core.errors import ProbatumError
from probatum.pipeline import rollout
from probatum.pipeline.evidence import GENESIS
from probatum.pipeline.ports import Record
from probatum.pipeline.promotion import PROOF_KINDS, proofs_of, waiver_of
from probatum.pipeline.proposals import describe, describe_attempt, proposals
from probatum.pipeline.registry import aliases, versions
from probatum.pipeline.summary import columns_of, mapping

POINTS_MAX = 240
SNAPSHOTS_MAX = 24 * 14
SAID_MAX = 30
RECENT_MAX = 50
NEWEST_MAX = 2_000
REGISTRY = ("train", "offline_report", "alias", "waiver", "retrain_proposal", "retrain_attempt")
"""Kinds of which every record says where the registry stands."""
NOTICES = ("alert", "retrain_proposal")
K = TypeVar("K")
V = TypeVar("V")


class Point(msgspec.Struct, frozen=True):
    """Hold where a rollout stood at an instant (ns UTC): share in per cent, and (n, bad) of each measure."""

    ts: int
    share: int
    counts: dict[str, tuple[int, int]]
    turn: bool


class Trail:
    """Hold the newest event of a rollout, what people did in it, and how share and counts grew in its present attempt."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.points: list[Point] = []
        self.said: deque[dict[str, Any]] = deque(maxlen=SAID_MAX)

    def take(self, record: Record) -> None:
        """Take the next event of the rollout."""
        event, state = record.body["inputs"]["event"], record.body["figures"]["state"]
        if event["event"] == "opened":
            self.points.clear()
        if event["event"] != "observed":
            by = event.get("by") or event.get("approver") or ""
            self.said.append({"seq": record.seq, "ts": event["ts"], "event": event["event"], "by": by,
                              "reason": event.get("reason") or event.get("verdict") or ""})  # fmt: skip
        counts = {name: _total(stream["segments"]) for name, stream in state["streams"].items()}
        turn = not self.points or self.points[-1].share != state["share_percent"]
        self.points.append(Point(parse_utc(state["ts"]), state["share_percent"], counts, turn))
        if len(self.points) > POINTS_MAX:
            last = len(self.points) - 1
            kept = [p for i, p in enumerate(self.points) if i % 2 or p.turn or i == last]
            self.points = kept[-POINTS_MAX:]
        self.record = record


class Chronicle:
    """Follow a chain by :meth:`take`; ``seq`` and ``head`` are those of the last record taken."""

    def __init__(self) -> None:
        self.seq, self.head, self.head_ts = 0, GENESIS, ""
        self.counts: Counter[str] = Counter()
        self.classes: Counter[str] = Counter()
        self.unreadable = 0
        self.newest: dict[tuple[str, str], Record] = {}
        self.proofs: dict[tuple[str, str], Record] = {}
        self.registry: list[Record] = []
        self.recent: deque[Record] = deque(maxlen=RECENT_MAX)
        self.notices: deque[Record] = deque(maxlen=2 * RECENT_MAX)
        self.trails: dict[str, Trail] = {}
        self.runs: dict[str, Record] = {}
        self.drift: dict[str, deque[dict[str, Any]]] = {}

    def take(self, record: Record) -> None:
        """Take the next record; one of a shape that is not known is counted and listed, and no page rests on it."""
        self.seq, self.head, self.head_ts = record.seq, record.hash, record.ts
        self.counts[record.kind] += 1
        self.classes[record.provenance] += 1
        try:
            self._remember(record)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ProbatumError):
            self.unreadable += 1

    def _remember(self, record: Record) -> None:
        if record.kind == rollout.KIND:
            trail = self.trails.get(record.subject) or Trail(record)
            trail.take(record)
            _put(self.trails, record.subject, trail)
            return
        self.recent.append(record)
        if record.kind in REGISTRY:
            _READ.get(record.kind, _registered)(record)
            self.registry.append(record)
        if record.kind in NOTICES:
            self.notices.append(record)
        inputs = mapping(record.body.get("inputs"))
        if record.kind == "psi_snapshot":
            self.drift.setdefault(record.subject, deque(maxlen=SNAPSHOTS_MAX)).append(_psi(record))
        if record.kind in PROOF_KINDS:
            list(proofs_of(record, str(inputs["artifact"])))
            _put(self.proofs, (record.kind, str(inputs["artifact"])), record)
        if record.kind in ("canary_run", "validation"):
            _put(self.runs, str(inputs["rollout"]), record)
        _put(self.newest, (record.kind, record.subject), record)

    def of_kind(self, kind: str) -> list[Record]:
        """Return the newest record of a kind for each subject, in order of the chain."""
        found = (record for (name, _), record in self.newest.items() if name == kind)
        return sorted(found, key=lambda record: record.seq)

    def latest(self, kind: str) -> Record | None:
        """Return the newest record of a kind, whatever its subject."""
        return next(reversed(self.of_kind(kind)), None)


def _registered(record: Record) -> object:
    return aliases([record]), versions([record])


_READ: dict[str, Callable[[Record], object]] = {
    "waiver": waiver_of,
    "retrain_proposal": lambda record: [describe(item) for item in proposals([record])],
    "retrain_attempt": lambda record: [record.body["inputs"]["proposal"], describe_attempt(record)],
}
"""What reads a record of the registry; one that cannot be read is left out of it."""


def _put(store: dict[K, V], key: K, value: V) -> None:
    """Put a value last, and forget the oldest where there are too many: names come from outside."""
    store.pop(key, None)
    store[key] = value
    if len(store) > NEWEST_MAX:
        del store[next(iter(store))]


def _total(segments: list[list[int]]) -> tuple[int, int]:
    return sum(n for n, _ in segments), sum(bad for _, bad in segments)


def _psi(record: Record) -> dict[str, Any]:
    figures = record.body["figures"]
    return {
        "ts": str(figures["timestamp"]),
        "seq": record.seq,
        "verdict": figures["verdict"],
        "overall": mapping(figures.get("overall")).get("psi"),
        "columns": {str(column["check"]["name"]): column["check"].get("psi") for column in columns_of(figures)},
    }
