"""Do what takes minutes behind a button: one at a time, shown as it goes on, given up when the controller stops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from probatum.core.errors import BlockedError, ProbatumError
from probatum.services.http import RequestError


class LongWork:
    """Run one piece of work at a time. Implements ``pipeline.ports.Progress``.

    ``state`` is None while nothing runs and the last one ended well; else {by, step, done, total, problem}, where a problem
    is that of the last one.
    """

    def __init__(self, name: str) -> None:
        self.name, self.state = name, None  # type: str, dict[str, Any] | None
        self._lock, self._stopped, self._by = threading.Lock(), False, ""

    def begin(self, by: str) -> None:
        """Take the place for :meth:`run`; RequestError 409 while it is taken."""
        if not self._lock.acquire(blocking=False):
            raise RequestError(409, f"a {self.name} is under way")
        self._by = by
        self.step("", 0, 0)

    def run(self, do: Callable[[], object]) -> None:
        """Do it, and leave behind what went wrong, if anything did."""
        problem = "internal error"
        try:
            do()
            problem = ""
        except ProbatumError as error:
            problem = error.message
        finally:
            self.state = self._state("", 0, 0, problem) if problem else None
            self._lock.release()

    def step(self, description: str, done: int, total: int) -> None:
        """Show how far the work is; BlockedError ends it where the controller stops."""
        if self._stopped:
            raise BlockedError("the controller stops")
        self.state = self._state(description, done, total, "")

    def stop(self) -> None:
        """Let what runs give up at its next step."""
        self._stopped = True

    def _state(self, description: str, done: int, total: int, problem: str) -> dict[str, Any]:
        return {"by": self._by, "step": description, "done": done, "total": total, "problem": problem}
