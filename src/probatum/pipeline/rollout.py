"""Keep a rollout in the ledger: each event is one record, the state is their fold, and start-up is replay.

A record names the one before it in its rollout. Of two writers that saw the same state only the first appends; the other is
told so, looks again, and decides anew. So two controllers and a human at a terminal may act at any time, and no phase is
skipped or repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from probatum.core.canonical import canonical_json, parse_json
from probatum.core.clock import format_utc, parse_utc
from probatum.core.errors import BlockedError, IntegrityError, OvertakenError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.pipeline.control import document_entry
from probatum.pipeline.ports import Entry, Ledger, Sources
from probatum.pipeline.ports import Record as LedgerRecord
from probatum.pipeline.registry import CHALLENGER, CHAMPION, PREVIOUS, aliases, load_artifact, move_alias
from probatum.rollout.events import (
    Effect,
    Event,
    MoveAlias,
    Notify,
    Opened,
    Record,
    Refused,
    SetShare,
    Tag,
    event_from_record,
    event_to_record,
    map_instants,
)
from probatum.rollout.lease import RolloutDocument
from probatum.rollout.machine import TERMINAL, State, Step, advance, initial, reopen
from probatum.rollout.plan import Plan

KIND = "rollout_event"


class Effects(Protocol):
    """Carry out what a rollout asks for. Each may be asked for twice after a crash, with the same ``rollout.head``."""

    def set_share(self, rollout: Rollout, percent: int) -> None:
        """Publish the rollout document with this share."""
        ...

    def record(self, rollout: Rollout, effect: Record) -> None:
        """Append the evidence that the effect names."""
        ...

    def tag(self, rollout: Rollout, kind: str) -> None:
        """Tag the source tree, ``rc`` or ``release``."""
        ...

    def move_alias(self, rollout: Rollout, alias: str, to: str) -> None:
        """Point an alias at a digest, or at what another alias points at."""
        ...

    def notify(self, rollout: Rollout, text: str) -> None:
        """Tell the humans."""
        ...


class Rollout:
    """Follow one rollout in a ledger; its name is the records' subject.

    ``plan`` and ``state`` are as of ``head``, the newest record followed (None before the first), whose ``effects`` may
    still have to be carried out after a crash. With ``controls`` a share enters the rollout document in the transaction of
    the event that set it, so that no crash can part them; a replay has no executors, and controls nothing. ``at``, an event
    of it that was read from the ledger, spares the replay of what led there: its hash vouches for the state in it.
    """

    def __init__(
        self, ledger: Ledger, sources: Sources, name: str, *, controls: bool = False, at: LedgerRecord | None = None
    ) -> None:
        self.ledger, self.sources, self.name, self.controls = ledger, sources, name, controls
        self.head: LedgerRecord | None = None
        self.effects: tuple[Effect, ...] = ()
        self._plan: Plan | None = None
        self._state: State | None = None
        self._seq = 0
        if at is not None:
            self.head, self._seq = at, at.seq
            self._plan = read_plan(sources, at.body["inputs"]["rollout_plan"])
            self._state = state_from_record(at.body["figures"]["state"])
            self.effects = msgspec.convert(at.body["figures"]["effects"], tuple[Effect, ...])
        self.refresh()

    @property
    def plan(self) -> Plan:
        """Return the plan of the present attempt; UnknownNameError where nothing was opened."""
        if self._plan is None:
            raise UnknownNameError("rollout", self.name, rollout_names(self.ledger))
        return self._plan

    @property
    def state(self) -> State:
        """Return where the rollout stands."""
        return self._state or initial(self.plan)

    @property
    def provenance(self) -> Provenance:
        """Return the weakest class seen so far; before any measurement, that of the model's own data."""
        return self.state.provenance or load_artifact(self.sources, self.plan.model).data.provenance

    @property
    def run(self) -> str:
        """Return the name under which executors count for the present attempt."""
        return f"{self.name}#{self.state.attempt}"

    def refresh(self) -> list[str]:
        """Follow what was appended since, and return the hashes of the records followed."""
        followed = []
        for record in self.ledger.records(kind=KIND, subject=self.name, after=self._seq):
            self._seq = record.seq
            if self._follows(record):
                self._take(record)
                followed.append(record.hash)
        return followed

    def open(self, plan: Plan, ts: int) -> Step:
        """Begin the first attempt, or, where the last one has ended, another; BlockedError while one is under way."""
        self.refresh()
        event = Opened(ts) if self.head is None else reopen(self.state, ts)
        digest = self.sources.blobs.put("rollout_plan", canonical_json(msgspec.to_builtins(plan)))
        self._append(plan, digest, event, advance(plan, initial(plan), event), None)
        return self.state, self.effects

    def apply(self, event: Event, handler: Effects | None = None, *, epoch: int | None = None) -> Step:
        """Append an event, advance, and carry out the effects; one that the state refuses is not appended.

        Returns the state and the effects; a refusal is an effect (:func:`refusal`). Raises OvertakenError when another
        controller has led since ``epoch``.
        """
        while True:
            step = advance(self.plan, self.state, event)
            if refusal(step[1]):  # of what stands, not of what stood when this was last looked at
                if self.refresh():
                    continue
                return step
            digest = self.head.body["inputs"]["rollout_plan"] if self.head else ""
            if self._append(self.plan, digest, event, step, epoch):
                break
        if handler is not None:
            carry_out(self, handler)
        return step

    def _append(self, plan: Plan, digest: str, event: Event, step: Step, epoch: int | None) -> bool:
        """Append one record and say whether it was the next one; another's before it means: look again."""
        link = {"seq": self.head.seq, "hash": self.head.hash} if self.head else None
        inputs = {"rollout_plan": digest, "rollout": self.name, "previous": link, "event": event_to_record(event)}
        classed = step[0].provenance or load_artifact(self.sources, plan.model).data.provenance
        run = f"{self.name}#{step[0].attempt}"
        entries = [
            Entry(KIND, self.name, classed, {"inputs": inputs, "figures": _as_figures(step)}),
            *(
                document_entry(document(plan, effect.percent, run), self.name, classed)
                for effect in step[1]
                if self.controls and isinstance(effect, SetShare)
            ),
        ]
        try:
            record, *_ = self.ledger.append_all(entries, epoch=epoch, seen=self._seq)
        except OvertakenError:
            if not self.refresh():  # nothing newer of this rollout: it is the lead that was lost
                raise
            return False
        self._seq = record.seq
        self._take(record)
        return True

    def _follows(self, record: LedgerRecord) -> bool:
        link = record.body["inputs"]["previous"]
        if link is None or self.head is None:
            return link is None and self.head is None
        opened = record.body["inputs"]["event"]["event"] == "opened"
        return bool(link["hash"] == self.head.hash and (not opened or self.state.stage in TERMINAL))

    def _take(self, record: LedgerRecord) -> None:
        inputs = record.body["inputs"]
        event = event_from_record(inputs["event"])
        if isinstance(event, Opened):
            self._plan = read_plan(self.sources, inputs["rollout_plan"])
            self._state = initial(self._plan)
        self._state, self.effects = advance(self.plan, self.state, event)
        self.head = record


def load(ledger: Ledger, sources: Sources, name: str) -> tuple[Plan, State]:
    """Return a rollout's plan and state by replay; UnknownNameError lists the known ones."""
    rollout = Rollout(ledger, sources, name)
    return rollout.plan, rollout.state


def apply(ledger: Ledger, sources: Sources, name: str, event: Event, handler: Effects | None = None) -> Step:
    """Append one event to a rollout, advance, and carry out the effects."""
    return Rollout(ledger, sources, name).apply(event, handler)


def rollout_names(ledger: Ledger) -> list[str]:
    """Return the names of all rollouts, in the order in which they were opened."""
    return list({record.subject: None for record in ledger.records(kind=KIND)})


def refusal(effects: tuple[Effect, ...]) -> str:
    """Return why an event was refused, or nothing."""
    return next((effect.reason for effect in effects if isinstance(effect, Refused)), "")


def accept(step: Step) -> Step:
    """Return a step as it is, or raise BlockedError where the event was refused."""
    if reason := refusal(step[1]):
        raise BlockedError(reason, stage=step[0].stage.value)
    return step


def carry_out(rollout: Rollout, handler: Effects) -> None:
    """Carry out the effects of the newest event, in their order."""
    for effect in rollout.effects:
        match effect:
            case SetShare(percent):
                handler.set_share(rollout, percent)
            case Record():
                handler.record(rollout, effect)
            case Tag(kind):
                handler.tag(rollout, kind)
            case MoveAlias(alias, to):
                handler.move_alias(rollout, alias, to)
            case Notify(text):
                handler.notify(rollout, text)


def document(plan: Plan, percent: int, run: str) -> RolloutDocument:
    """Return what executors are told at a share, and the name of the attempt that they count for."""
    return RolloutDocument(
        mode=plan.mode, share=percent / 100.0, plan=plan.digest, challenger=plan.model, champion=plan.champion, run=run
    )


class LedgerEffects:
    """Carry out effects: publish the document, append evidence and aliases once for each event, hand on the rest.

    ``publish`` reaches executors that follow something else than the ledger, ``tag_source`` tags the work tree, ``tell`` reaches the humans.
    """

    def __init__(
        self,
        *,
        publish: Callable[[RolloutDocument], None] | None = None,
        prove_run: Callable[[Rollout, Record], None],
        tag_source: Callable[[Rollout, str], None],
        tell: Callable[[str], None],
    ) -> None:
        self._publish, self._prove_run, self._tag_source, self._tell = publish, prove_run, tag_source, tell

    def set_share(self, rollout: Rollout, percent: int) -> None:
        if self._publish is not None:
            self._publish(document(rollout.plan, percent, rollout.run))

    def record(self, rollout: Rollout, effect: Record) -> None:
        self._prove_run(rollout, effect)

    def tag(self, rollout: Rollout, kind: str) -> None:
        self._tag_source(rollout, kind)

    def move_alias(self, rollout: Rollout, alias: str, to: str) -> None:
        """Move once for each event; ``previous`` follows ``champion`` in the same append, so it is not moved apart."""
        because = rollout.head.hash if rollout.head else ""
        records = list(rollout.ledger.records(kind="alias"))
        if alias == PREVIOUS or any(record.body["inputs"].get("because") == because for record in records):
            return
        digest = aliases(records).get(to) if to in (CHAMPION, CHALLENGER, PREVIOUS) else to
        if digest is None:
            self._tell(f"'{to}' points at nothing: '{alias}' stays where it is")
        else:
            move_alias(rollout.ledger, rollout.sources, alias, digest, because=because)

    def notify(self, rollout: Rollout, text: str) -> None:
        self._tell(f"{rollout.name}: {text}")


# --- evidence -------------------------------------------------------------------------------------------------------


def figures(inputs: dict[str, Any], sources: Sources) -> dict[str, Any]:
    """Recompute the state after an event from the state that the record before it states, and that event."""
    plan = read_plan(sources, inputs["rollout_plan"])
    return _as_figures(advance(plan, _state_before(plan, inputs, sources), event_from_record(inputs["event"])))


def history(ledger: Ledger, sources: Sources, name: str, last: str) -> Iterator[tuple[LedgerRecord, Plan, Event, Step]]:
    """Yield (record, plan, event, step) of the attempt that ends with record ``last``, by replay of its events.

    Raises IntegrityError where a record's state is not what the events lead to.
    """
    chain = _chain(ledger, name, last)
    plan = read_plan(sources, chain[0].body["inputs"]["rollout_plan"])
    state = initial(plan)
    for record in chain:
        event = event_from_record(record.body["inputs"]["event"])
        state, effects = advance(plan, state, event)
        if state_to_record(state) != record.body["figures"]["state"]:
            raise IntegrityError(f"record {record.seq} ({KIND})", "its state is not what the events before it lead to")
        yield record, plan, event, (state, effects)


def _chain(ledger: Ledger, name: str, last: str) -> list[LedgerRecord]:
    """Return the records of the attempt that ends with hash ``last``, oldest first, along their links."""
    known = {record.hash: record for record in ledger.records(kind=KIND, subject=name)}
    chain: list[LedgerRecord] = []
    link: str | None = last
    while link is not None:
        if link not in known:
            raise IntegrityError(f"rollout {name}", f"names a record that the ledger does not hold: {link[:12]}…")
        chain.append(known[link])
        inputs = known[link].body["inputs"]
        link = None if inputs["event"]["event"] == "opened" else inputs["previous"]["hash"]
    return chain[::-1]


def _state_before(plan: Plan, inputs: dict[str, Any], sources: Sources) -> State:
    link = inputs["previous"]
    if inputs["event"]["event"] == "opened":
        return initial(plan)
    found = next(sources.ledger.records(kind=KIND, subject=inputs["rollout"], after=link["seq"] - 1), None)
    if found is None or found.hash != link["hash"]:
        raise IntegrityError(
            f"record {link['seq']} ({KIND})", f"is not the {link['hash'][:12]}… that a later one follows"
        )
    return state_from_record(found.body["figures"]["state"])


def _as_figures(step: Step) -> dict[str, Any]:
    state, effects = step
    return {"state": state_to_record(state), "effects": msgspec.to_builtins(effects)}


def state_to_record(state: State) -> dict[str, Any]:
    """Return a state as the ledger keeps it: instants as ISO text."""
    record: dict[str, Any] = parse_json(canonical_json(map_instants(msgspec.to_builtins(state), format_utc)))
    return record


def state_from_record(record: dict[str, Any]) -> State:
    """Read a state back; the inverse of :func:`state_to_record`."""
    return msgspec.convert(map_instants(record, parse_utc), State)


def read_plan(sources: Sources, digest: str) -> Plan:
    """Return a stored plan, verified against its digest."""
    return msgspec.convert(parse_json(sources.blobs.get("rollout_plan", digest)), Plan)
