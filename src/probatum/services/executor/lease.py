"""Keep the lease on the rollout document renewed; when it cannot be, say nothing and let it lapse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from probatum.core.clock import NS_PER_S
from probatum.rollout.choose import Mode
from probatum.rollout.lease import LEASE_NS, PacedSource, RolloutDocument, RolloutSource, leased_share

RENEW_S = 0.2


class Lease:
    """Hold the last rollout document that could be read, and when that read began (monotonic ns).

    A thread of its own reads, since reading may block; a reader that hangs for ever holds up neither replies nor exit.
    """

    def __init__(self, source: RolloutSource, now_ns: Callable[[], int]) -> None:
        self._source, self._now_ns = source, now_ns
        self._held = (RolloutDocument(mode=Mode.OFF, share=0.0), now_ns())
        self._stopped, self._tried = threading.Event(), threading.Event()

    @property
    def document(self) -> RolloutDocument:
        """Return the document that was read last, however long ago."""
        return self._held[0]

    def read(self) -> tuple[RolloutDocument, float]:
        """Return the document and the share that may be served now, both of one version."""
        document, renewed_ns = self._held
        return document, leased_share(document, renewed_ns, self._now_ns())

    def renew(self) -> None:
        """Read the document. Whatever goes wrong, the lease was not renewed, and lapses by itself."""
        began_ns = self._now_ns()
        with suppress(Exception):
            self._held = (self._source.current(), began_ns)

    def start(self) -> None:
        """Renew several times in each lease (or on each change) until stopped; returns after the first try, or a lease."""
        threading.Thread(target=self._keep, name="rollout-lease", daemon=True).start()
        self._tried.wait(LEASE_NS / NS_PER_S)

    def stop(self) -> None:
        """Renew no more."""
        self._stopped.set()

    def _keep(self) -> None:
        while not self._stopped.is_set():
            self.renew()
            self._tried.set()
            self._pause()

    def _pause(self) -> None:
        if isinstance(self._source, PacedSource):
            with suppress(Exception):
                self._source.wait()
                return
        self._stopped.wait(RENEW_S)
