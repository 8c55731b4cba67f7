"""Say what goes over the executor's wire: these structs decode the requests and encode the replies.

``/predict-with-shadow`` takes one of three forms, each with ``strategy``, ``symbol``, ``session``, ``decision_id``::

    {"snapshot": {"ts", "mid", "spreadBp", "vol1m", "rsi14"}}          the seed's; only for v1.8-b0
    {"features": [..] | {"name": ..}, "fingerprint"?, "as_of"?}         a vector computed elsewhere
    {"symbol": .., "events"?: [[ts, kind, a, b, c, d], ..]}             the executor's own state, after these events

Events are those of ``market/events.py``; a value that the source does not have is null.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from probatum.services.engine.schema import Name, Row, Snapshot

EVENTS_MAX = 4_096
TIME_MAX = 1 << 62

Time = Annotated[int, Meta(ge=0, le=TIME_MAX)]


class MarketEvent(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One market event: time (ns UTC), kind and its four values."""

    ts: Time
    kind: Annotated[int, Meta(ge=0, le=3)]
    a: float | None = None
    b: float | None = None
    c: float | None = None
    d: float | None = None


MarketEvents = Annotated[list[MarketEvent], Meta(max_length=EVENTS_MAX)]


class EventsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Events of one symbol, in time order."""

    symbol: Annotated[str, Meta(min_length=1, max_length=128)]
    events: MarketEvents


class EventsReply(Struct, frozen=True):
    """How many events were applied, and whether the symbol's features are ready."""

    applied: int
    ready: bool


class DecisionRequest(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One decision. ``features`` win over ``snapshot``, and both over the state of ``symbol``."""

    features: Row | None = None
    snapshot: Snapshot | None = None
    events: MarketEvents | None = None
    symbol: Name = ""
    strategy: Name = ""
    session: Name = ""
    decision_id: Name | None = None
    fingerprint: Name | None = None
    as_of: Time | Name | None = None


class Latency(Struct, frozen=True, gc=False):
    """Milliseconds spent; ``shadow_ms`` is null where the reply did not wait for the challenger."""

    baseline_ms: float
    shadow_ms: float | None
    total_ms: float


class DecisionReply(Struct, frozen=True, gc=False):
    """The seed's fields, then whose score the prediction is, and what came of the shadow (``mirrored`` until known)."""

    prediction: float
    shadow: float | None
    match: bool | None
    delta: float | None
    latency: Latency
    route: str
    outcome: str
    decision_id: str
