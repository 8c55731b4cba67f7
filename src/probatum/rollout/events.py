"""Name what can happen to a rollout, and what a rollout can ask to be done.

Events are what the ledger keeps: a state is nothing but their fold. Effects are data; a loop carries them out, and may do
so twice. Times are ns UTC; in records they are ISO text, for RFC 8785 numbers end at 2**53.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from probatum.core.clock import format_utc, parse_utc
from probatum.core.errors import IntegrityError, ParameterError
from probatum.core.verdict import Provenance, Verdict
from probatum.rollout.measurement import RateCheck, RateMeasurement


class _Event(msgspec.Struct, frozen=True, tag_field="event", forbid_unknown_fields=True):
    ts: int


class Opened(_Event, frozen=True, tag="opened"):
    """An attempt began; after an abort nothing proven or confirmed before ``not_before`` counts."""

    attempt: int = 1
    not_before: int = 0
    used: tuple[str, ...] = ()


class PreflightDone(_Event, frozen=True, tag="preflight"):
    """Health, metrics, drift and data were looked at; ``evidence`` is the record's hash."""

    verdict: Verdict
    evidence: str
    provenance: Provenance


class DryRunDone(_Event, frozen=True, tag="dry_run"):
    """The whole plan ran on a recorded day, from ``began`` on the wall clock; ``plan`` is the digest that was run."""

    verdict: Verdict
    evidence: str
    plan: str
    began: int


class Confirmed(_Event, frozen=True, tag="confirmed"):
    """An approver gave the phrase."""

    phrase: str
    approver: str


class Observed(_Event, frozen=True, tag="observed"):
    """The sources were read; one that gave nothing is simply not among ``measurements``."""

    measurements: tuple[RateMeasurement, ...] = ()
    drift: Verdict | None = None


class Paused(_Event, frozen=True, tag="paused"):
    """A human stopped the clock."""

    by: str
    reason: str = ""


class Resumed(_Event, frozen=True, tag="resumed"):
    """A human lets a paused or holding rollout go on."""

    by: str
    reason: str = ""


class Aborted(_Event, frozen=True, tag="aborted"):
    """A human, or the loop itself, ends the rollout."""

    by: str
    reason: str = ""


class DigestsSeen(_Event, frozen=True, tag="digests"):
    """The plan and the model that would run now, by digest."""

    plan: str
    model: str


class ValidationBegan(_Event, frozen=True, tag="validation"):
    """The watch over fresh data began."""

    by: str
    reason: str = ""


class PromotionAsked(_Event, frozen=True, tag="promotion"):
    """A human asks to move ``champion``. ``blockers`` are the open ones by name, ``evidence`` the gate's record."""

    phrase: str
    approver: str
    blockers: tuple[str, ...]
    evidence: str
    provenance: Provenance


class RolledBack(_Event, frozen=True, tag="rollback"):
    """A human takes the decision back to the one before."""

    by: str
    reason: str = ""


Event: TypeAlias = (
    Opened
    | PreflightDone
    | DryRunDone
    | Confirmed
    | Observed
    | Paused
    | Resumed
    | Aborted
    | DigestsSeen
    | ValidationBegan
    | PromotionAsked
    | RolledBack
)


class SetShare(msgspec.Struct, frozen=True, tag_field="effect", tag="set_share"):
    """Put the share into the rollout document."""

    percent: int


class Record(msgspec.Struct, frozen=True, tag_field="effect", tag="record"):
    """Write evidence: ``phase`` (one ended), ``run`` (all), ``hold``, ``root_cause``, ``validation``, ``promotion``, ``rollback``."""

    kind: str
    reason: str = ""
    checks: tuple[RateCheck, ...] = ()


class Tag(msgspec.Struct, frozen=True, tag_field="effect", tag="tag"):
    """Tag the source tree: ``rc`` (where no critical blocker stands) or ``release``."""

    kind: str


class MoveAlias(msgspec.Struct, frozen=True, tag_field="effect", tag="move_alias"):
    """Point an alias at a model digest, or at what another alias points at."""

    alias: str
    to: str


class Notify(msgspec.Struct, frozen=True, tag_field="effect", tag="notify"):
    """Tell the humans."""

    text: str


class Refused(msgspec.Struct, frozen=True, tag_field="effect", tag="refused"):
    """The event changed nothing, and why."""

    reason: str


Effect: TypeAlias = SetShare | Record | Tag | MoveAlias | Notify | Refused

_INSTANTS = frozenset({"ts", "clock_ts", "started_ts", "not_before", "began", "first_ts", "last_ts", "read_ts"})


def event_to_record(event: Event) -> dict[str, Any]:
    """Return an event as the ledger keeps it."""
    record: dict[str, Any] = map_instants(msgspec.to_builtins(event), format_utc)
    return record


def event_from_record(record: dict[str, Any]) -> Event:
    """Read an event back; the inverse of :func:`event_to_record`. IntegrityError where it is none."""
    try:
        event: Event = msgspec.convert(map_instants(record, parse_utc), Event)
    except (msgspec.ValidationError, ParameterError, TypeError) as error:
        raise IntegrityError("rollout event", str(error)) from None
    return event


def map_instants(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return JSON data with every instant in it changed; what a source named itself is left alone."""
    if isinstance(value, dict):
        return {key: _map_item(key, item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_instants(item, change) for item in value]
    return value


def _map_item(key: str, item: Any, change: Callable[[Any], Any]) -> Any:
    if key == "raw":  # the source's own names
        return item
    return change(item) if key in _INSTANTS and item is not None else map_instants(item, change)
