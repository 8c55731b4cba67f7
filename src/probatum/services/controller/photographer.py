"""Take pictures in a thread of their own: asking for one returns at once, and no rollout waits for a browser."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote

from probatum.core.errors import ProbatumError
from probatum.pipeline.picture import Shot, record_picture
from probatum.pipeline.ports import Record, Sources

WAITING_MAX = 100

_log = logging.getLogger("probatum.photographer")


class Photographer:
    """Append a picture of the rollout's page, at ``url``, for each event that :meth:`ask` names, one after another."""

    def __init__(self, sources: Sources, take: Callable[[str], Shot], url: str) -> None:
        self._sources, self._take, self._url = sources, take, url
        self._asked: queue.Queue[tuple[str, Record]] = queue.Queue(WAITING_MAX)

    def ask(self, rollout: str, event: Record) -> None:
        """Ask for a picture as evidence of an event; one too many is logged and dropped."""
        try:
            self._asked.put_nowait((rollout, event))
        except queue.Full:
            _log.error("%s: too many pictures wait; none of record %d", rollout, event.seq)

    def run(self, stop: threading.Event) -> None:
        """Take what is asked for until told to stop."""
        while not stop.is_set():
            with suppress(queue.Empty):
                self._record(*self._asked.get(timeout=0.5))

    def _record(self, rollout: str, event: Record) -> None:
        try:
            url = f"{self._url}?name={quote(rollout)}"
            record_picture(self._sources, rollout, event, url, self._take(url))
        except ProbatumError as error:
            _log.error("%s: no picture of record %d: %s", rollout, event.seq, error.message)
        except Exception:
            _log.exception("picture of record %d", event.seq)
