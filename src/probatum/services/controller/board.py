"""Follow the ledger once for all pages of a process, and keep what they said: no page waits for the database for long."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool

from probatum.core.clock import NS_PER_S, Clock
from probatum.core.errors import IntegrityError, ProbatumError, StorageError
from probatum.pipeline.chronicle import Chronicle
from probatum.pipeline.evidence import GENESIS
from probatum.pipeline.ports import Ledger, Sources
from probatum.pipeline.views import VIEWS, Known
from probatum.services.controller.work import LongWork

LOOK_S = 0.5
WAIT_S = 1.5
SHADOW_S = 2.0
BATCH = 250
KEPT_MAX = 64

_log = logging.getLogger("probatum.dashboard")


class Status(msgspec.Struct, frozen=True):
    """Say how fresh the pages are: ``problem`` why the ledger cannot be read, ``age_s`` since it last could be."""

    seq: int
    problem: str
    age_s: float | None
    reading: bool


class Board:
    """Hold what is known, and answer with views of it.

    ``status`` is the controller's, ``shadow`` asks the executors (it may take seconds), ``jobs`` tells what is scheduled.
    """

    def __init__(
        self,
        ledger: Ledger,
        sources: Sources,
        clock: Clock,
        *,
        status: Callable[[], dict[str, Any]],
        shadow: Callable[[], list[dict[str, Any]]] = list,
        jobs: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._ledger, self._sources, self._clock = ledger, sources, clock
        self._status, self._shadow, self._jobs = status, shadow, jobs
        self.chronicle = Chronicle()
        self._lock, self._listing = threading.Lock(), threading.Lock()
        self._look: asyncio.Task[None] | None = None
        self._looked, self._read_at = -1e9, None  # type: float, float | None
        self._problem, self._reading, self._whole = "", False, False
        self._executors: list[dict[str, Any]] = []
        self._known_jobs: list[dict[str, Any]] = []
        self._asked = -1e9
        self._kept: dict[Any, Any] = {}
        self.verifying, self.retraining = LongWork("verification"), LongWork("retraining")

    async def fresh(self) -> None:
        """See to it that the ledger was looked at just now; where it does not answer, go on with what is known."""
        if self._look is None or self._look.done():
            if monotonic() - self._looked < LOOK_S:
                return
            self._look = asyncio.create_task(run_in_threadpool(self._follow))
        await asyncio.wait({self._look}, timeout=WAIT_S)

    @property
    def status(self) -> Status:
        """Return how fresh the pages are."""
        age = None if self._read_at is None else monotonic() - self._read_at
        problem = self._problem or ("it does not answer" if age is not None and age > 4 * WAIT_S and self._busy else "")
        return Status(self.chronicle.seq, problem, age, self._reading and not self._whole)

    @property
    def mark(self) -> dict[str, Any]:
        """Return what changes when a page would say something else; ages alone do not."""
        status, controller = self.status, self._status()
        return {"seq": status.seq, "problem": status.problem, "reading": status.reading, "role": controller["role"],
                "controller": controller["problem"], "verifying": self.verifying.state, "retraining": self.retraining.state}  # fmt: skip

    def view(self, page: str, name: str = "") -> dict[str, Any]:
        """Return a page's view; the same within a second, for as many as ask. Call it in a thread."""
        now_ns = self._clock.now_ns()
        key = (page, name, self.chronicle.seq, now_ns // NS_PER_S)
        found: dict[str, Any] | None = self._kept.get(key)
        if found is None:
            live = self._live(page)
            with self._lock:
                found = VIEWS[page](Known(self.chronicle, self._sources, now_ns, live, name))
            self._kept = dict([*list(self._kept.items())[-KEPT_MAX:], (key, found)])
        return found

    def _live(self, page: str) -> dict[str, Any]:
        if page in ("shadow", "overview") and monotonic() - self._asked > SHADOW_S:
            self._asked = monotonic()
            self._executors = self._shadow()
        if page == "jobs":
            with self._listing, suppress(StorageError):  # then those are shown that were known
                self._known_jobs = self._jobs()
        return {"controller": self._status(), "executors": self._executors, "jobs": self._known_jobs,
                "verifying": self.verifying.state, "retraining": self.retraining.state}  # fmt: skip

    @property
    def _busy(self) -> bool:
        return self._look is not None and not self._look.done()

    def _follow(self) -> None:
        try:
            self._reading = True
            self._read()
            self._problem, self._read_at, self._whole = "", monotonic(), True
        except ProbatumError as error:
            self._problem = error.message
        except Exception as error:
            _log.exception("reading the ledger")
            self._problem = f"internal error: {type(error).__name__}"
        finally:
            self._reading, self._looked = False, monotonic()

    def _read(self) -> None:
        """Take what is new; a chain that does not go on from what is known is another one, and is read anew."""
        known, head = self.chronicle, self._ledger.head()
        if head == known.head:
            return
        if head == GENESIS:
            raise IntegrityError("the ledger", f"is empty, and held {known.seq} records")
        records = self._ledger.records(after=known.seq)
        batch = list(islice(records, BATCH))
        if known.seq and (not batch or batch[0].prev != known.head):
            known, self._kept = Chronicle(), {}
            records = self._ledger.records()
            batch = list(islice(records, BATCH))
            self.chronicle = known
        while batch:
            with self._lock:
                for record in batch:
                    known.take(record)
            self._read_at = monotonic()
            batch = list(islice(records, BATCH))
