"""Do what a human may do to a live rollout: the same acts for the command line and the pages, each one event in the ledger."""

from __future__ import annotations

import msgspec

from probatum.core.errors import BlockedError, UnknownNameError
from probatum.pipeline.control import KIND, publish, read_document
from probatum.pipeline.ports import Ledger, Sources
from probatum.pipeline.rollout import Rollout, accept, rollout_names
from probatum.rollout.confirm import build_phrase
from probatum.rollout.events import Aborted, Confirmed, Event, Paused, Resumed, ValidationBegan, event_to_record
from probatum.rollout.machine import Stage, check_confirmation, required_permission

ACTS: dict[str, type[Paused] | type[Resumed] | type[Aborted] | type[ValidationBegan]] = {
    "pause": Paused,
    "resume": Resumed,
    "abort": Aborted,
    "validate": ValidationBegan,
}
AWAITING = (Stage.AWAITING_CONFIRMATION, Stage.HOLDING)


def open_rollout(ledger: Ledger, sources: Sources, name: str | None) -> Rollout:
    """Return the live rollout of a name, or the newest one; UnknownNameError lists the known."""
    known = rollout_names(ledger)
    if not known or (name is not None and name not in known):
        raise UnknownNameError("rollout", name or "", known)
    return Rollout(ledger, sources, name or known[-1], controls=True)


def stop_now(ledger: Ledger, name: str | None, *, after: int = 0) -> str | None:
    """Put share 0 before the executors at once: the replay of a long rollout takes seconds, and its event comes after.

    Returns the rollout that was meant. Who knows a document of it may say ``after`` which record to look.
    """
    found = list(ledger.records(kind=KIND, subject=name, after=after))
    if found and (document := read_document(found[-1])).share > 0.0:
        stopped = msgspec.structs.replace(document, share=0.0)
        publish(ledger, stopped, subject=found[-1].subject, provenance=found[-1].provenance)
    return name or (found[-1].subject if found else None)


def act(rollout: Rollout, verb: str, *, now_ns: int, by: str, reason: str) -> None:
    """Do one of ACTS; BlockedError where it means nothing. Effects other than the share are still to be carried out."""
    append(rollout, ACTS[verb](now_ns, by, reason))


def append(rollout: Rollout, event: Event) -> None:
    """Append an event, or leave it at that where it is the newest already: what it asked for may be unfinished.

    A full disk or a kill may part the two: the same act again makes it whole, for effects may be carried out twice.
    """
    newest = rollout.head.body["inputs"]["event"]["event"] if rollout.head else ""
    step = rollout.apply(event)
    if newest != event_to_record(event)["event"]:
        accept(step)


def needed_phrase(rollout: Rollout, now_ns: int, *, last: int | None = None) -> str:
    """Return the phrase that would start or widen a rollout now; BlockedError where nothing awaits one."""
    if rollout.state.stage not in AWAITING:
        raise BlockedError(f"{rollout.name} is {rollout.state.stage.value}: nothing awaits a confirmation")
    return build_phrase(required_permission(rollout.plan, rollout.state, now_ns, last=last))


def confirm(rollout: Rollout, phrase: str, approver: str, now_ns: int) -> None:
    """Start or widen a rollout; ConfirmationError for a void phrase, and nothing was moved."""
    event = Confirmed(now_ns, phrase, approver)
    check_confirmation(rollout.plan, rollout.state, event)
    append(rollout, event)
