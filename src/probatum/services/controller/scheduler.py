"""Run jobs in a thread beside the loop, while this process leads: a slow or failing one delays neither loop nor others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from probatum.core.clock import NS_PER_S, Clock, parse_utc
from probatum.core.errors import OvertakenError, ProbatumError, StorageError
from probatum.pipeline.jobs import DONE, FAILED, JOBS, Book, Job, Place
from probatum.pipeline.ports import Record
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

PAUSE_S = 1.0
ATTEMPTS = 8
BACKOFF_S = 5
"""Doubled at each failure: the last attempt comes about ten minutes after the first, then the slot is recorded as failed."""

_log = logging.getLogger("probatum.scheduler")


class Scheduler:
    """Do what is due, oldest slot first. ``epoch`` says who leads, ``after`` is told the records of each look that had any.

    Each :meth:`step` is one look at what is due and never raises. What was begun under an epoch that is over is refused by
    the ledger, as is a slot that somebody else has recorded meanwhile.
    """

    def __init__(
        self,
        place: Place,
        epoch: Callable[[], int | None],
        clock: Clock,
        registry: Registry,
        after: Callable[[Sequence[Record]], None],
    ) -> None:
        self._place, self._epoch, self._clock, self._after = place, epoch, clock, after
        self._book, self._reign = Book(place.ledger), -1
        self._failures: dict[str, tuple[int, int]] = {}  # job: attempts that failed, not before
        self._last = {name: registry.gauge(metrics.JOB_LAST, name) for name in JOBS}
        self._runs = {
            (name, end): registry.counter(metrics.JOB_RUNS, name, end).inc for name in JOBS for end in (DONE, FAILED)
        }

    def run(self, stop: threading.Event) -> None:
        """Step until told to stop."""
        while not stop.wait(PAUSE_S):
            self.step(stop)

    def step(self, stop: threading.Event | None = None) -> None:
        """Run every slot that is due and whose job does not wait after a failure."""
        records: list[Record] = []
        try:
            if (epoch := self._epoch()) is None:
                return
            self._follow(epoch)
            for slot_ns, job in self._book.due(self._clock.now_ns()):
                if (stop and stop.is_set()) or self._epoch() != epoch:
                    return
                if self._failures.get(job.name, (0, 0))[1] <= self._clock.now_ns():
                    records += self._attempt(job, slot_ns, epoch)
        except OvertakenError as error:
            _log.info("%s", error.message)  # look again at the next step
        except ProbatumError as error:
            _log.warning("%s", error.message)
        except Exception:
            _log.exception("step")
        finally:
            if records:
                self._tell(records)

    def _follow(self, epoch: int) -> None:
        if epoch != self._reign:
            self._book, self._reign, self._failures = Book(self._place.ledger), epoch, {}
        self._book.refresh()
        self._book.register(self._clock.now_ns(), epoch=epoch)
        for name, kept in self._book.jobs.items():
            if name in self._last and kept.ran.body["inputs"]["outcome"] == DONE:
                self._last[name].set(parse_utc(kept.ran.ts) / NS_PER_S)

    def _attempt(self, job: Job, slot_ns: int, epoch: int) -> tuple[Record, ...]:
        try:
            records = self._book.run(self._place, job, slot_ns, epoch=epoch)
        except OvertakenError:
            raise  # somebody else's slot: the ledger is asked again
        except Exception as error:
            return self._failed(job, slot_ns, epoch, error)
        self._failures.pop(job.name, None)
        self._runs[job.name, DONE]()
        self._last[job.name].set(self._clock.now_ns() / NS_PER_S)
        return records

    def _failed(self, job: Job, slot_ns: int, epoch: int, error: Exception) -> tuple[Record, ...]:
        """Try again later; in the end record that the slot was given up, so that the next ones get their turn."""
        problem = error.message if isinstance(error, ProbatumError) else f"internal error: {type(error).__name__}"
        _log.error("job %s: %s", job.name, problem, exc_info=None if isinstance(error, ProbatumError) else error)
        self._runs[job.name, FAILED]()
        attempts = self._failures.get(job.name, (0, 0))[0] + 1
        if isinstance(error, StorageError):  # a disk or database that is away costs no slot, however long
            attempts = min(attempts, ATTEMPTS - 1)
        self._failures[job.name] = (attempts, self._clock.now_ns() + (BACKOFF_S << attempts - 1) * NS_PER_S)
        if attempts < ATTEMPTS:
            return ()
        records = self._book.run(self._place, job, slot_ns, epoch=epoch, outcome=FAILED, problem=problem)
        del self._failures[job.name]
        return records

    def _tell(self, records: Sequence[Record]) -> None:
        try:
            self._after(records)
        except Exception as error:  # what is done stays done
            _log.error("after a job: %s", error)
