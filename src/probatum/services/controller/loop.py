"""Move live rollouts on: lead, read, append, advance, carry out, again; whatever ends this process, another goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from probatum.core.clock import NS_PER_S, Clock
from probatum.core.errors import OvertakenError, ProbatumError
from probatum.core.verdict import Verdict
from probatum.pipeline import control
from probatum.pipeline.ports import Leadership, Ledger, Record, Sources
from probatum.pipeline.registry import CHALLENGER, CHAMPION, aliases
from probatum.pipeline.rollout import KIND, Effects, Rollout, carry_out, refusal
from probatum.pipeline.standing import summary
from probatum.rollout.events import DigestsSeen, Event, Observed, event_from_record
from probatum.rollout.machine import Stage
from probatum.rollout.measurement import RateMeasurement
from probatum.rollout.plan import Plan
from probatum.rollout.reading import Reading, Source
from probatum.services.controller.gauges import DriftGauges
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

TICK_S = 0.5
MOVING = frozenset({Stage.RUNNING, Stage.PAUSED, Stage.HOLDING})
WATCHED = MOVING | {Stage.COMPLETED, Stage.VALIDATING, Stage.VALIDATED}
"""Stages in which measurements mean something."""

_log = logging.getLogger("probatum.controller")


class Watch:
    """Watch one rollout during one reign. ``due_ns`` is when it is read again, ``owes`` whether effects are to be done."""

    def __init__(self, rollout: Rollout, source: Source) -> None:
        self.rollout, self.source = rollout, source
        self.run, self.due_ns, self.owes, self.reading = "", 0, True, Reading()
        self.before: dict[str, RateMeasurement] = {}
        self.plan = rollout.plan.digest

    def is_due(self, now_ns: int) -> bool:
        """Say whether it is time to read; a clock that was put back must not put the reading off."""
        return not 0 < self.due_ns - now_ns <= self.rollout.plan.ladder.poll_s * NS_PER_S

    def observe(self, now_ns: int, drift: Verdict | None) -> Event:
        """Read the source and return what is to be appended."""
        rollout, plan = self.rollout, self.rollout.plan
        if rollout.run != self.run:
            self.run, self.before = rollout.run, last_read(rollout.ledger, rollout.name)
        self.reading = reading = self.source.read(self.run, self.before)
        self.before |= {item.measure: item for item in reading.measurements}
        self.due_ns = now_ns + plan.ladder.poll_s * NS_PER_S
        if others := reading.models - {plan.model}:
            return DigestsSeen(now_ns, plan.digest, min(others))
        return Observed(now_ns, reading.measurements, drift)


class Controller:
    """Watch every rollout that the ledger's documents name, while this process leads.

    Each :meth:`tick` is one attempt and never raises: what went wrong is logged, shown and tried again. Executors need no
    controller to be safe, for their lease follows the ledger. ``source_of`` makes the source of a plan's measurements.
    """

    def __init__(
        self,
        ledger: Ledger,
        sources: Sources,
        leadership: Leadership,
        effects: Effects,
        source_of: Callable[[Plan], Source],
        clock: Clock,
        registry: Registry,
    ) -> None:
        self._ledger, self._sources, self._leadership, self._effects = ledger, sources, leadership, effects
        self._source_of, self._clock = source_of, clock
        self._epoch: int | None = None
        self._watches: dict[str, Watch] = {}
        self._snapshots: dict[str, Record] = {}
        self._aliases: dict[str, str] = {}
        self._seen = {control.KIND: 0, "psi_snapshot": 0, "alias": 0}
        self._leads = registry.gauge(metrics.CONTROLLER_LEADS)
        self._last = registry.gauge(metrics.CONTROLLER_TICK)
        self._ticks = {name: registry.counter(metrics.CONTROLLER_TICKS, name).inc for name in ("ok", "failed")}
        self._registry, self._gauges = registry, DriftGauges(registry)
        self.status: dict[str, Any] = {"role": "waiting", "epoch": None, "problem": "", "rollouts": []}

    @property
    def epoch(self) -> int | None:
        """Return the epoch in which this process leads; None while it waits. For other threads to look at."""
        return self._epoch

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop, then let another lead at once."""
        while not stop.is_set():
            self.tick()
            stop.wait(TICK_S)
        if self._epoch is not None:
            self._leadership.resign()

    def tick(self) -> None:
        """Lead or wait; where this process leads, read every rollout that is due."""
        problem = ""
        try:
            self._lead()
            if self._epoch is not None:
                self._discover()
                for watch in self._watches.values():
                    self._step(watch)
        except OvertakenError as error:
            problem, self._epoch = error.message, None  # who leads is asked anew
        except ProbatumError as error:
            problem = error.message
            self._forget()  # whether the last append was done is for the ledger to say
        except Exception as error:
            _log.exception("tick")
            problem = f"internal error: {type(error).__name__}"
            self._forget()
        if problem:
            _log.warning("%s", problem)
        self._show(problem)

    def _lead(self) -> None:
        try:
            epoch = self._leadership.lead()
        except ProbatumError:
            self._epoch = None
            raise
        if epoch != self._epoch:
            self._forget()
        self._epoch = epoch

    def _forget(self) -> None:
        """Begin from the ledger, as after a start."""
        self._watches, self._seen = {}, dict.fromkeys(self._seen, 0)

    def _discover(self) -> None:
        """Find rollouts by their documents: one that never had a share has no executors, and a replay has none."""
        for record in self._ledger.records(kind="psi_snapshot", after=self._seen["psi_snapshot"]):
            self._seen["psi_snapshot"] = record.seq
            self._snapshots[record.body["inputs"]["artifact"]] = record
        for record in self._ledger.records(kind="alias", after=self._seen["alias"]):
            self._seen["alias"] = record.seq
            self._aliases |= aliases([record])
        for record in self._ledger.records(kind=control.KIND, after=self._seen[control.KIND]):
            if record.subject not in self._watches:
                rollout = Rollout(self._ledger, self._sources, record.subject, controls=True)
                if rollout.head is not None:
                    self._watches[record.subject] = Watch(rollout, self._source_of(rollout.plan))
            self._seen[control.KIND] = record.seq

    def _step(self, watch: Watch) -> None:
        rollout = watch.rollout
        rollout.refresh()
        if rollout.plan.digest != watch.plan:
            watch.plan, watch.source = rollout.plan.digest, self._source_of(rollout.plan)
        if watch.owes:  # before the next event hides what this one asked for
            self._carry_out(watch)
        stage = rollout.state.stage
        waits = watch.owes and stage not in MOVING
        if stage in WATCHED and not waits and watch.is_due(self._clock.now_ns()):
            event = watch.observe(self._clock.now_ns(), self._drift(rollout.plan.model))
            watch.owes = not refusal(rollout.apply(event, epoch=self._epoch)[1])
            self._carry_out(watch)

    def _drift(self, model: str) -> Verdict | None:
        found = self._snapshots.get(model)
        return None if found is None else Verdict(found.body["figures"]["verdict"])

    def _carry_out(self, watch: Watch) -> None:
        """Do what the newest event asks for; what fails is tried again, and while phases run it holds up no reading."""
        try:
            carry_out(watch.rollout, self._effects)
            watch.owes = False
        except ProbatumError as error:
            _log.error("%s: %s", watch.rollout.name, error.message)

    def _show(self, problem: str) -> None:
        self._ticks["failed" if problem else "ok"]()
        self._leads.set(float(self._epoch is not None))
        self._last.set(self._clock.now_ns() / NS_PER_S)
        for watch in self._watches.values():
            share = self._registry.gauge(metrics.CANARY_SHARE, watch.rollout.name, watch.rollout.run)
            share.set(float(watch.rollout.state.share_percent))
        at_work = {watch.rollout.plan.model for watch in self._watches.values() if watch.rollout.state.stage in WATCHED}
        named = {self._aliases[name] for name in (CHAMPION, CHALLENGER) if name in self._aliases}
        self._gauges.show(self._snapshots, at_work | named)
        shown = [summary(watch.rollout, watch.reading.problem) for watch in self._watches.values()]
        role = "leading" if self._epoch is not None else "waiting"
        self.status = {"role": role, "epoch": self._epoch, "problem": problem, "rollouts": shown}


def last_read(ledger: Ledger, name: str) -> dict[str, RateMeasurement]:
    """Return the newest measurement of each measure in the present attempt: what a restart goes on from."""
    found: dict[str, RateMeasurement] = {}
    for record in ledger.records(kind=KIND, subject=name):
        told = record.body["inputs"]["event"]
        if told["event"] == "opened":
            found = {}
        elif told["event"] == "observed" and told["measurements"]:
            event = event_from_record(told)
            assert isinstance(event, Observed)
            found |= {item.measure: item for item in event.measurements}
    return found
