"""Tell people by any service that Apprise knows, from a thread of its own: who waits for nobody cannot be held up."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from probatum.core.errors import MissingExtraError, ParameterError

WAITING_MAX = 100
TITLE = "probatum"

_log = logging.getLogger("probatum.notify")


class AppriseNotifier:
    """Send texts to services named by Apprise URLs, oldest first; a service that fails is logged, and the text is gone.

    URLs hold secrets: they stand in no message. Raises MissingExtraError without the extra ``notify``, ParameterError for
    a URL that Apprise does not understand.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        try:
            import apprise
        except ImportError:
            raise MissingExtraError("notify", "notifications need apprise") from None
        self._services: Any = apprise.Apprise()
        for number, url in enumerate(urls, 1):
            if not self._services.add(url):
                raise ParameterError("notify", "a URL that Apprise understands", f"number {number} ({url[:4]}…)")
        self._waiting: deque[str] = deque()
        self._ready = threading.Condition()

    def tell(self, text: str) -> None:
        """Take a text to be sent; where too many wait for a dead service, the oldest is dropped and logged."""
        with self._ready:
            if len(self._waiting) >= WAITING_MAX:
                _log.warning("too many notifications wait; dropped: %s", self._waiting.popleft())
            self._waiting.append(text)
            self._ready.notify()

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop."""
        while not stop.is_set():
            with self._ready:
                self._ready.wait_for(lambda: bool(self._waiting), timeout=0.5)
                text = self._waiting.popleft() if self._waiting else None
            if text is not None:
                self._send(text)

    def _send(self, text: str) -> None:
        try:
            sent = self._services.notify(title=TITLE, body=text, body_format="text")  # names in it are no markup
        except Exception as error:  # a service's plugin may raise anything
            _log.error("notification not sent: %s", type(error).__name__)
            return
        if not sent:
            _log.error("notification not sent by at least one service: %s", text)
