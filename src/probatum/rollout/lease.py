"""Hold what a rollout allows, and let it lapse: an executor that lost contact must act as if told to stop."""

from __future__ import annotations

from math import isfinite
from typing import Protocol, runtime_checkable

import msgspec

from probatum.core.clock import NS_PER_MS
from probatum.core.errors import ParameterError
from probatum.rollout.choose import Mode

LEASE_NS = 500 * NS_PER_MS
"""How long a read of the rollout document may be relied on."""


class RolloutDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold one version of what executors may do.

    ``sequence`` is its record's number in the ledger: it only grows, and an executor shows the one it applied.
    ``share`` is the fraction of decisions mirrored (observe), or of sticky units that the champion answers (gated).
    ``drift_ok`` is false while drift forbids the champion. ``plan`` salts the share's hash, ``run`` names the attempt under
    which executors count for the rollout ("": they do not). The digests name the models that the document speaks of; None:
    whichever the engine serves.
    """

    mode: Mode = Mode.OBSERVE
    share: float = 1.0
    drift_ok: bool = True
    plan: str = ""
    challenger: str | None = None
    champion: str | None = None
    sequence: int = 0
    run: str = ""

    def __post_init__(self) -> None:
        if not (isfinite(self.share) and 0.0 <= self.share <= 1.0):
            raise ParameterError("share", "a number in [0, 1]", self.share)


class RolloutSource(Protocol):
    """Where the rollout document is read; each successful read renews the lease."""

    def current(self) -> RolloutDocument:
        """Return the present document; any exception means that the lease was not renewed."""
        ...


@runtime_checkable
class PacedSource(RolloutSource, Protocol):
    """A source that knows when it is worth reading again."""

    def wait(self) -> None:
        """Block until the next read is due, well within a lease: on a change, or after a while."""
        ...


class StaticRollout:
    """Give the same document for ever: an executor without a controller."""

    def __init__(self, document: RolloutDocument) -> None:
        self._document = document

    def current(self) -> RolloutDocument:
        return self._document


def leased_share(document: RolloutDocument, renewed_ns: int, now_ns: int, lease_ns: int = LEASE_NS) -> float:
    """Return the share that may be served now: the document's, or 0 when its lease has lapsed.

    ``renewed_ns`` is when the last successful read *began*, on the monotonic clock of ``now_ns``: what it returned may
    have been true only then. A clock that ran backwards is no renewal either.

    >>> document = RolloutDocument(share=0.25)
    >>> leased_share(document, 0, 500_000_000), leased_share(document, 0, 500_000_001)
    (0.25, 0.0)
    """
    return document.share if 0 <= now_ns - renewed_ns <= lease_ns else 0.0
