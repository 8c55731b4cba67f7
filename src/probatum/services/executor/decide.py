"""Make decisions: the baseline in process, always; the champion where everything allows it; the challenger beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from typing import Any, Literal, Protocol, cast

import msgspec

from probatum.core.clock import NS_PER_MS, NS_PER_S, Clock, parse_utc
from probatum.core.errors import DataError, ParameterError
from probatum.features.sets import FeatureSet
from probatum.models.baseline import Baseline, bind
from probatum.monitoring.shadow import DecisionRow, Outcome, is_match
from probatum.rollout.choose import Mode, Route, choose, is_in_share
from probatum.rollout.lease import RolloutDocument, RolloutSource
from probatum.services.engine.rows import in_order, snapshot_row
from probatum.services.engine.schema import Snapshot
from probatum.services.executor.caller import Caller
from probatum.services.executor.lease import Lease
from probatum.services.executor.outcomes import LiveOutcomes
from probatum.services.executor.schema import DecisionReply, DecisionRequest, EventsReply, Latency, MarketEvent
from probatum.services.executor.shadow import AWAIT_BUDGET_MS, Shadow
from probatum.services.http import RequestError
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

Delivery = Literal["await", "mirror"]
FUTURE_NS = 5 * NS_PER_S
_FED = "this executor decides on its own feed and takes no market data from outside"


class State(Protocol):
    """The running features of one symbol (``features.state.FeatureState``)."""

    @property
    def values(self) -> Any:
        """Return the vector as an array."""
        ...

    @property
    def mid(self) -> float:
        """Return the mid in force, NaN where none is."""
        ...

    def update(self, ts: int, kind: int, a: float, b: float, c: float, d: float) -> bool:
        """Take an event and say whether the vector is ready; DataError changes nothing."""
        ...


class ExecutorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Declare how replies are given and when market data are too old for the champion."""

    delivery: Delivery = "mirror"
    stale_ms: int = 90_000
    symbols_max: int = 1_000

    def __post_init__(self) -> None:
        for name in ("stale_ms", "symbols_max"):
            if getattr(self, name) < 1:
                raise ParameterError(name, "at least 1", getattr(self, name))


class Executor:
    """Answer decision requests for one feature set. For one event loop; ``now_ns`` is a monotonic clock.

    ``run_id`` begins the decision ids that callers did not give. ``new_state`` makes the features of a new symbol; None
    where only vectors and snapshots are served. ``fed``: the features come from a feed of the executor's own, whose class
    its decisions bear, so market data from outside are refused. Raises ParameterError when the baseline cannot read the feature set.
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        baseline: Baseline,
        shadow: Shadow,
        rollout: RolloutSource,
        *,
        clock: Clock,
        now_ns: Callable[[], int],
        registry: Registry,
        run_id: str,
        settings: ExecutorSettings | None = None,
        champion: Caller | None = None,
        new_state: Callable[[], State] | None = None,
        fed: bool = False,
        outcomes: LiveOutcomes | None = None,
    ) -> None:
        rule = bind(baseline, feature_set.names)
        if rule is None:
            raise ParameterError("baseline", f"a rule that reads feature set {feature_set.name!r}", baseline.name)
        self.feature_set, self.shadow, self.champion = feature_set, shadow, champion
        self.settings = settings or ExecutorSettings()
        self.lease = Lease(rollout, now_ns)
        self._rule, self._clock, self._now_ns, self._run_id = rule, clock, now_ns, run_id
        self._names, self._fingerprint = feature_set.names, feature_set.fingerprint
        self._new_state, self._fed = new_state, fed
        self._states: dict[str, tuple[State, bool, int, int]] = {}
        self.outcomes = outcomes
        self._row_kinds = outcomes.kinds if outcomes else frozenset[int]()
        self._seq = 0
        self._routes = {route: registry.counter(metrics.DECISIONS, route.value).inc for route in Route}
        self._extracted = registry.counter(metrics.FEATURE_EXTRACTIONS).inc
        self._baseline_ms = registry.histogram(metrics.BASELINE_LATENCY).observe
        self._champion_outcomes = {
            name: registry.counter(metrics.CHAMPION_OUTCOMES, name).inc
            for name in (*(item.value for item in Outcome), "not_in_share", "drift", "stale", "no_engine")
        }

    @property
    def decisions(self) -> int:
        """Return how many decisions were made."""
        return self._seq

    async def decide(self, request: DecisionRequest) -> DecisionReply:
        """Return the decision; it waits for nobody but the champion (gated) or the challenger (observe, ``await``)."""
        start_ns = self._now_ns()
        row = self._row(request, start_ns)
        document, share = self.lease.read()
        mode = document.mode
        if mode is Mode.GATED:
            await self._ask_champion(row, document, share, start_ns)
        decision = choose(mode, row.baseline, row.champion, row.challenger)
        row.route = decision.route.value
        self._routes[decision.route]()
        is_due = mode is Mode.GATED or (mode is Mode.OBSERVE and is_in_share(row.decision_id, share, document.plan))
        is_heard = is_due and mode is Mode.OBSERVE and self.settings.delivery == "await"
        if is_heard:
            await self.shadow.hear(row, self._now_ns() - start_ns)
        elif is_due:
            self.shadow.mirror(row)
        else:
            self.shadow.skip(row)
        return _reply(
            row, decision.score, "mirrored" if is_due and not is_heard else row.outcome, self._now_ns() - start_ns
        )

    def show(self, symbol: str, state: State, ready: bool, as_of: int, since: int) -> None:
        """Take a symbol's features as the feed has them now; not ready: nothing is to be decided on them."""
        self._states[symbol] = (state, ready, as_of, since)

    def take_events(self, symbol: str, events: Sequence[MarketEvent], at: str = "events") -> EventsReply:
        """Move a symbol's features on; an impossible event is refused by its index, and those before it stay applied."""
        if self._fed:
            raise RequestError(422, _FED, field=at)
        if self._new_state is None:
            raise RequestError(422, "this executor keeps no feature state", field=at)
        if symbol not in self._states and len(self._states) >= self.settings.symbols_max:
            raise RequestError(422, "too many symbols", field="symbol", allowed=f"at most {self.settings.symbols_max}")
        state, ready, as_of, since = self._states.get(symbol) or (self._new_state(), False, 0, 0)
        latest_ns, i = self._clock.now_ns() + FUTURE_NS, 0
        try:
            for i, event in enumerate(events):  # noqa: B007  the handler names it
                if event.ts > latest_ns:  # taken, it would refuse all that is to come, and make stale data look fresh
                    raise DataError("event lies in the future", field="ts", value=event.ts)
                ready = state.update(event.ts, event.kind, *map(_number, (event.a, event.b, event.c, event.d)))
                as_of = event.ts
                since = since or as_of
                if event.kind in self._row_kinds and self.outcomes:
                    self.outcomes.row(symbol, as_of, state.mid)
        except DataError as error:
            raise RequestError(
                422, f"{at}[{i}]: {error.fields['problem']}", field=f"{at}[{i}].{error.fields['field']}",
                value=error.fields["value"],
            ) from None  # fmt: skip
        finally:
            if as_of:  # a symbol of which nothing could be applied is not kept
                self._states[symbol] = (state, ready, as_of, since)
        return EventsReply(len(events), ready)

    def _row(self, request: DecisionRequest, start_ns: int) -> DecisionRow:
        features, as_of, since = self._vector(request)
        baseline = self._rule(features)
        baseline_ns = self._now_ns() - start_ns
        self._baseline_ms(baseline_ns / NS_PER_MS)
        self._seq += 1
        return DecisionRow(
            self._seq, self._clock.now_ns(), as_of, request.decision_id or f"{self._run_id}-{self._seq}",
            request.strategy, request.symbol, request.session, features, baseline, baseline_ns, since=since,
        )  # fmt: skip

    def _vector(self, request: DecisionRequest) -> tuple[list[float], int, int]:
        if request.fingerprint is not None and request.fingerprint != self._fingerprint:
            raise RequestError(422, "fingerprint is of another feature set", field="fingerprint",
                               allowed=self._fingerprint, value=request.fingerprint)  # fmt: skip
        if request.features is not None or request.snapshot is not None:
            if self._fed:
                raise RequestError(422, _FED, field="snapshot" if request.features is None else "features")
            if request.events is not None:
                raise RequestError(422, "events go with a symbol's state, not with a vector", field="events")
            as_of = self._as_of(request.as_of)
            if request.features is not None:
                return in_order(request.features, self._names), as_of, 0
            row = snapshot_row(cast(Snapshot, request.snapshot), self.feature_set.name, self._names)
            self._extracted()
            return row, as_of, 0
        if not request.symbol:
            raise RequestError(400, "snapshot is missing (or features, or a symbol that has events)", field="snapshot")
        if request.as_of is not None:
            raise RequestError(422, "as_of goes with a vector; a symbol's state knows its own time", field="as_of")
        if request.events:
            self.take_events(request.symbol, request.events)
        return self._from_state(request.symbol)

    def _as_of(self, as_of: int | str | None) -> int:
        if as_of is None:
            return 0
        try:
            ns = as_of if isinstance(as_of, int) else parse_utc(as_of)
        except ParameterError as error:
            raise RequestError(422, f"as_of: {error.message}", field="as_of", value=as_of) from None
        if not 0 <= ns <= self._clock.now_ns() + FUTURE_NS:
            raise RequestError(422, "as_of lies in the future or before 1970", field="as_of", value=as_of)
        return ns

    def _from_state(self, symbol: str) -> tuple[list[float], int, int]:
        if symbol not in self._states:
            raise RequestError(404, "no events of this symbol have come", field="symbol", value=symbol)
        state, ready, as_of, since = self._states[symbol]
        if not ready:
            raise RequestError(409, f"features are warming up: {self.feature_set.required_minutes} closed minutes are needed",
                               field="symbol", value=symbol)  # fmt: skip
        self._extracted()
        features: list[float] = state.values.tolist()
        return features, as_of, since

    async def _ask_champion(self, row: DecisionRow, document: RolloutDocument, share: float, start_ns: int) -> None:
        reason = self._forbids(row, document, share)
        if reason is None and self.champion is not None:
            left_ns = AWAIT_BUDGET_MS * NS_PER_MS - (self._now_ns() - start_ns)
            answer = await self.champion.ask(row.features, left_ns)
            row.champion, reason = answer.score, answer.outcome.value
        row.champion_outcome = reason or "no_engine"
        self._champion_outcomes[row.champion_outcome]()

    def _forbids(self, row: DecisionRow, document: RolloutDocument, share: float) -> str | None:
        """Return why the champion may not answer, or None; its breaker speaks for itself when it is asked."""
        if not is_in_share(f"{row.strategy}\x1f{row.symbol}\x1f{row.session}", share, document.plan):
            return "not_in_share"
        if not document.drift_ok:
            return "drift"
        if row.as_of == 0 or row.ts - row.as_of > self.settings.stale_ms * NS_PER_MS:
            return "stale"
        return None


def _number(value: float | None) -> float:
    return nan if value is None else float(value)


def _reply(row: DecisionRow, prediction: float, outcome: str, total_ns: int) -> DecisionReply:
    heard = row.challenger if outcome == Outcome.OK.value else None
    return DecisionReply(
        prediction,
        heard,
        None if heard is None else is_match(row.baseline, heard),
        None if heard is None else round(abs(row.baseline - heard), 4),
        Latency(
            round(row.baseline_ns / NS_PER_MS, 4),
            None if outcome == "mirrored" or row.shadow_ns is None else round(row.shadow_ns / NS_PER_MS, 4),
            round(total_ns / NS_PER_MS, 4),
        ),
        row.route,
        outcome,
        row.decision_id,
    )
