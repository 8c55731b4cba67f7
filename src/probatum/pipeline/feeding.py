"""Pass what a feed delivers through its monitor to the recorder, and to whoever decides on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from probatum.core.clock import Clock
from probatum.market.ticks import Notice, Tick
from probatum.monitoring.feed import FeedMonitor, Finding
from probatum.pipeline.ports import Feed, TickSink

LOOK_S = 0.5


class Intake:
    """Run one feed. ``use`` gets the ticks that are new, ``tell`` each finding; the recorder gets all that was asked for."""

    def __init__(
        self,
        feed: Feed,
        monitor: FeedMonitor,
        clock: Clock,
        tell: Callable[[Finding], None],
        *,
        log: TickSink | None = None,
        use: Callable[[Tick], None] | None = None,
    ) -> None:
        self.feed, self.monitor, self.log = feed, monitor, log
        self._clock, self._tell, self._use = clock, tell, use

    def take(self, item: Tick | Notice) -> None:
        """Judge, record and pass on one thing that came."""
        if isinstance(item, Notice):
            self.monitor.notice(item)
            return
        is_new = self.monitor.take(item)
        if self.log is not None and item.symbol in self.monitor.states:
            self.log.append(item)
        if is_new and self._use is not None:
            self._use(item)

    async def run(self) -> None:
        """Deliver until cancelled."""
        looking = asyncio.create_task(self._look())
        try:
            await self.feed.run(self.take)
        finally:
            looking.cancel()
            self.look()

    def look(self) -> None:
        """Let the monitor see the time, and tell what it found."""
        self.monitor.look(self._clock.now_ns())
        for finding in self.monitor.drain():
            self._tell(finding)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
