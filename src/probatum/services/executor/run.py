"""Count what a rollout judges, decision by decision as they are finished, under the name of the attempt that is followed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from probatum.core.clock import NS_PER_MS, NS_PER_S
from probatum.core.errors import StorageError
from probatum.core.verdict import Provenance
from probatum.monitoring.outcomes import Apart, Joined, differs, is_right
from probatum.monitoring.shadow import MODEL_CHARS, DecisionRow, Outcome, is_match
from probatum.rollout.lease import RolloutDocument
from probatum.services.executor.outcomes import LiveOutcomes
from probatum.services.executor.shadow import DecisionLog
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

BOUNDS_MS = (80, 120)
_CALLED = (Outcome.OK.value, Outcome.ERROR.value, Outcome.TIMEOUT.value, Outcome.NAN.value)


def measures_of(row: DecisionRow) -> dict[str, bool]:
    """Say of a finished decision for which measures it is a sample, and whether a bad one; {} where no model was due.

    Errors are judged over the calls that were made, slowness over those whose time is known (a timeout is slow at every
    bound), and coverage over all that were due: an open breaker and a shed call lower it, and are no success elsewhere.
    In ``gated`` it is the champion that is judged, within its budget.

    >>> row = DecisionRow(1, 0, 0, "d", "", "", "", [], 0.5, 0, challenger=0.52, outcome="ok", shadow_ns=90_000_000)
    >>> [name for name, bad in measures_of(row).items() if bad]
    ['slower_than_80ms']
    """
    gated, (outcome, score) = bool(row.champion_outcome), row.judged
    if outcome in (Outcome.SKIPPED.value, "not_in_share"):
        return {}
    found = {"uncovered": outcome != Outcome.OK.value}
    if outcome in _CALLED:
        found["errors"] = found["uncovered"]
    if outcome in (Outcome.OK.value, Outcome.TIMEOUT.value):
        late_ns = 0 if gated else row.shadow_ns or 0  # a champion that answered did so within its 60 ms
        for bound in BOUNDS_MS:
            found[f"slower_than_{bound}ms"] = found["uncovered"] or late_ns > bound * NS_PER_MS
    if score is not None and outcome == Outcome.OK.value:
        found["mismatches"] = not is_match(row.baseline, score)
    return found


MEASURES = ("errors", *(f"slower_than_{bound}ms" for bound in BOUNDS_MS), "uncovered", "mismatches", "outcome_losses")
"""All that is exposed from the start, at 0. ``outcome_losses`` follow when their labels are known."""


class RunMeter:
    """Stand before the decision log and count the attempt's samples. For one event loop.

    ``provenance`` is the class of the market data that the executor is fed with. A document that names another attempt
    starts new counters; a page too full to hold them shows none, and then the rollout measures nothing. ``model`` is the
    digest on trial where the document names none.
    """

    def __init__(
        self,
        log: DecisionLog,
        registry: Registry,
        provenance: Provenance,
        outcomes: LiveOutcomes | None = None,
        model: str = "",
    ) -> None:
        self._log, self._registry, self._provenance = log, registry, provenance
        self._outcomes, self._served = outcomes, model
        if outcomes:
            outcomes.tell = self.settle
        self._document: Callable[[], RolloutDocument] = RolloutDocument
        self._now_ns: Callable[[], int] = lambda: 0
        self._run, self._first, self._last = "", 0, 0
        self._counts: dict[str, list[int]] = {}
        self._shown: dict[str, list[int]] = {}
        self._start(RolloutDocument())

    def follow(self, document: Callable[[], RolloutDocument], now_ns: Callable[[], int] = lambda: 0) -> None:
        """Count for the attempt that this names, from now on; a decision made before it began (UTC) is none of its samples.

        One whose answer comes late would else date the attempt's first sample before its start, and void all the others.
        """
        self._document, self._now_ns = document, now_ns
        self._registry.before_expose(self._expose)

    def append(self, row: DecisionRow) -> bool:
        """Count a finished decision, then log it."""
        if (document := self._document()).run != self._run:
            self._start(document)
        run = self._run if row.ts >= self._since else ""
        if run and (found := measures_of(row)):
            self._first = min(self._first or row.ts, row.ts)
            self._last = max(self._last, row.ts)
            for measure, bad in found.items():
                counts = self._counts[measure]
                counts[0] += 1
                counts[1] += bad
        row.model = self._model
        if self._outcomes:
            self._outcomes.decided(row, run)
        return self._log.append(row)

    def settle(self, joined: Joined) -> None:
        """Count an outcome of the attempt's, where the two differ and it overlaps none that was counted before."""
        made = joined.made
        mine = self._run and made.run == self._run and differs(made.score, made.baseline)
        if mine and self._apart.takes(joined.as_of, joined.known):
            counts = self._counts["outcome_losses"]
            counts[0] += 1
            counts[1] += not is_right(made.score, joined.hit)

    def _start(self, document: RolloutDocument) -> None:
        self._run, self._first, self._last = document.run, 0, 0
        self._since = self._now_ns()
        self._counts = {measure: [0, 0] for measure in MEASURES}
        self._shown = {measure: [0, 0] for measure in MEASURES}
        self._apart = Apart()
        self._model = (document.challenger or self._served)[:MODEL_CHARS]
        self._labels = (document.run, document.mode.value, self._model, self._provenance.value)

    def _expose(self) -> None:
        if (document := self._document()).run != self._run:
            self._start(document)
        if self._run:
            with suppress(StorageError):
                self._write()

    def _write(self) -> None:
        registry = self._registry
        for measure, counts in self._counts.items():
            for metric, place in ((metrics.ROLLOUT_SAMPLES, 0), (metrics.ROLLOUT_BAD, 1)):
                inc = registry.counter(metric, *self._labels, measure).inc
                inc(counts[place] - self._shown[measure][place])
            self._shown[measure] = list(counts)
        if self._last:
            registry.gauge(metrics.ROLLOUT_FIRST, self._run).set(self._first / NS_PER_S)
            registry.gauge(metrics.ROLLOUT_LAST, self._run).set(self._last / NS_PER_S)
