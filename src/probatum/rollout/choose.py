"""Decide whose score is the decision. The challenger has no way in: that is the whole safety of a shadow."""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b
from math import isfinite

import msgspec


class Mode(StrEnum):
    """Name what the executor may do with a model."""

    OFF = "off"
    OBSERVE = "observe"
    GATED = "gated"


class Route(StrEnum):
    """Name who decided."""

    BASELINE = "baseline"
    CHAMPION = "champion"


class Decision(msgspec.Struct, frozen=True):
    """Hold the score that is acted on and whose it is."""

    score: float
    route: Route


def choose(mode: Mode, baseline: float, champion: float | None, challenger: float | None) -> Decision:  # noqa: ARG001
    """Return the decision: the champion's score in ``gated`` where it is there and finite, else the baseline's.

    ``champion`` is None where breaker, drift, staleness, share or time did not allow it. ``challenger`` is taken so
    that its absence from the body can be read and tested: nothing it says can change what is returned.

    >>> choose(Mode.OBSERVE, 0.5, 0.9, 0.1)
    Decision(score=0.5, route=<Route.BASELINE: 'baseline'>)
    >>> choose(Mode.GATED, 0.5, 0.9, 0.1)
    Decision(score=0.9, route=<Route.CHAMPION: 'champion'>)
    """
    if mode is not Mode.GATED or champion is None or not isfinite(champion):
        return Decision(baseline, Route.BASELINE)
    return Decision(champion, Route.CHAMPION)


def is_in_share(unit: str, share: float, salt: str = "") -> bool:
    """Say whether a unit (a decision id, or strategy, symbol and session) lies within the share of all units.

    The unit's place in [0, 1) is a hash, so it is the same on every replica, and a unit that is in at 5 % stays in at 10 %.

    >>> sum(is_in_share(str(i), 0.25) for i in range(10_000))
    2583
    """
    if share >= 1.0:
        return True
    if share <= 0.0:
        return False
    return place_of(unit, salt) < share * 2.0**64


def place_of(unit: str, salt: str = "") -> int:
    """Return a unit's place among all, an integer in [0, 2**64)."""
    return int.from_bytes(blake2b(f"{salt}\x1f{unit}".encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
