"""A rollout in the ledger: who appends first is followed, and who starts anew stands where the other stood."""

from __future__ import annotations

import pytest
from canary import bench

from probatum.core.errors import BlockedError, IntegrityError, OvertakenError, UnknownNameError
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.rollout import (
    KIND,
    Rollout,
    accept,
    apply,
    history,
    load,
    refusal,
    state_from_record,
    state_to_record,
)
from probatum.rollout.events import Aborted, Paused, PreflightDone
from probatum.rollout.machine import Stage


def test_replay_is_the_state_at_every_record() -> None:
    """Each record's state is what the events up to it lead to, and reads back as the same value."""
    place = bench()
    rollout = place.opened()
    rollout.apply(PreflightDone(place.start_ns, Verdict.PASS, "x", Provenance.SYNTHETIC))
    rollout.apply(Aborted(place.start_ns + 1, "ada"))
    assert rollout.head is not None
    states = [step[0] for _, _, _, step in history(place.ledger, place.sources, rollout.name, rollout.head.hash)]
    assert [state.stage for state in states] == [Stage.DRAFT, Stage.PREFLIGHTED, Stage.ABORTED]
    assert [state_from_record(state_to_record(state)) for state in states] == states
    assert load(place.ledger, place.sources, rollout.name) == (rollout.plan, rollout.state)


def test_of_two_writers_the_second_looks_again() -> None:
    """Both saw DRAFT; the one that is late decides on what the other did."""
    place = bench()
    first = place.opened()
    second = Rollout(place.ledger, place.sources, first.name)
    first.apply(Aborted(place.start_ns, "ada"))
    state, effects = second.apply(PreflightDone(place.start_ns, Verdict.PASS, "x", Provenance.SYNTHETIC))
    assert "means nothing while aborted" in refusal(effects)
    assert state.stage is second.state.stage is Stage.ABORTED
    assert len(list(place.ledger.records(kind=KIND))) == 2


def test_a_controller_that_lost_the_lead_appends_nothing() -> None:
    """The epoch of an older reign is refused by the ledger."""
    place = bench()
    rollout = place.opened()
    place.ledger.epoch = 3
    with pytest.raises(OvertakenError):
        rollout.apply(Aborted(place.start_ns, "ada"), epoch=2)
    assert rollout.state.stage is Stage.DRAFT


def test_a_refused_event_is_not_in_the_chain() -> None:
    """It moved nothing; the caller gets the reason."""
    place = bench()
    rollout = place.opened()
    head = place.ledger.head()
    step = apply(place.ledger, place.sources, rollout.name, Paused(place.start_ns, "ada"))
    with pytest.raises(BlockedError, match="paused"):
        accept(step)
    assert place.ledger.head() == head


def test_an_attempt_under_way_is_not_opened_again() -> None:
    """Only an ended one can be tried again, and then its number grows."""
    place = bench()
    rollout = place.opened()
    with pytest.raises(BlockedError):
        rollout.open(rollout.plan, place.start_ns)
    rollout.apply(Aborted(place.start_ns + 5, "ada"))
    rollout.open(rollout.plan, place.start_ns)
    assert (rollout.state.attempt, rollout.run) == (2, f"{rollout.name}#2")


def test_the_share_enters_the_document_with_its_event() -> None:
    """Where a rollout controls executors, event and document are one transaction; a replay publishes nothing."""
    place = bench()
    quiet = place.opened()
    quiet.apply(Aborted(place.start_ns, "ada"))
    assert not list(place.ledger.records(kind="rollout_document"))
    loud = Rollout(place.ledger, place.sources, quiet.name, controls=True)
    loud.open(loud.plan, place.start_ns)
    loud.apply(Aborted(place.start_ns + 9, "ada"))
    (document,) = place.ledger.records(kind="rollout_document")
    assert document.body["inputs"]["share"] == 0.0
    assert loud.head is not None
    assert document.seq == loud.head.seq + 1


def test_an_unknown_rollout_is_refused_by_name() -> None:
    """The message lists the known ones."""
    place = bench()
    name = place.opened().name
    with pytest.raises(UnknownNameError, match=name):
        load(place.ledger, place.sources, "nope")
    with pytest.raises(IntegrityError):
        list(history(place.ledger, place.sources, name, "0" * 64))
