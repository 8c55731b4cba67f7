"""Hold what a feed delivers: ticks as they were sent, good or bad, and notices about the feed itself."""

from __future__ import annotations

from typing import Literal

import msgspec

Cause = Literal["connected", "lost", "garbage"]


class Tick(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Hold one market event as its source sent it; ``kind`` and a, b, c, d are those of ``market/events.py``.

    Times are ns UTC: ``ts_event`` is None where the source has no clock of its own, ``number`` where it numbers nothing.
    Values are not judged here: a recorder keeps bad rows, so that the screen can quarantine them with a reason.
    """

    kind: int
    symbol: str
    ts_recv: int
    ts_event: int | None
    number: int | None
    a: float
    b: float
    c: float
    d: float = 0.0


class Notice(msgspec.Struct, frozen=True, gc=False):
    """Hold what happened to the feed at ``ts_recv``: connected, lost, or a message that is none."""

    cause: Cause
    ts_recv: int
    detail: str = ""
