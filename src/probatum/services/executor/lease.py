"""Keep the lease on the rollout document renewed; when it cannot be, say nothing and let it lapse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from probatum.rollout.choose import Mode
from probatum.rollout.lease import RolloutDocument, RolloutSource, leased_share

RENEW_S = 0.2


class Lease:
    """Hold the last rollout document that could be read, and when that read began (monotonic ns)."""

    def __init__(self, source: RolloutSource, now_ns: Callable[[], int]) -> None:
        self._source, self._now_ns = source, now_ns
        self.document = RolloutDocument(mode=Mode.OFF, share=0.0)
        self._renewed_ns = now_ns()

    def share(self) -> float:
        """Return the share that may be served now."""
        return leased_share(self.document, self._renewed_ns, self._now_ns())

    def renew(self) -> None:
        """Read the document. Whatever goes wrong, the lease was not renewed, and lapses by itself."""
        began_ns = self._now_ns()
        with suppress(Exception):
            self.document, self._renewed_ns = self._source.current(), began_ns

    async def keep(self, stop: asyncio.Event) -> None:
        """Renew several times in each lease, in a thread since reading may block, until told to stop."""
        while not stop.is_set():
            await asyncio.get_running_loop().run_in_executor(None, self.renew)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RENEW_S)
