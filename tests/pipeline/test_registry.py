"""The registry is what the ledger says: versions are artifacts, aliases are replayed moves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from probatum.core.errors import IntegrityError, UnknownNameError
from probatum.pipeline.gate import run_gate
from probatum.pipeline.kinds import get_kind
from probatum.pipeline.registry import aliases, artifact_of, move_alias, resolve, versions
from probatum.pipeline.training import TrainingPlan, train
from probatum.testing.fakes import MemoryLedger, MemorySources
from probatum.testing.models import toy_dataset

DATA = toy_dataset(days=3)
PLAN = TrainingPlan(symbols=("TOY",), set="v1.8.1", target="large_move@60s", model="logistic", name="one")


@pytest.fixture
def place() -> Any:
    """Return a ledger and sources with three versions, two of them of one name."""
    ledger, sources = MemoryLedger(), MemorySources([DATA])
    digests = [
        train(ledger, sources, plan).digest
        for plan in (
            PLAN,
            msgspec.structs.replace(PLAN, seed=8),
            msgspec.structs.replace(PLAN, name="two"),
        )
    ]
    return ledger, sources, digests


def test_moving_champion_keeps_previous(place: Any) -> None:
    """One append moves champion and, with it, previous; replay gives where every alias points."""
    ledger, sources, (first, second, third) = place
    move_alias(ledger, sources, "champion", first)
    assert aliases(ledger.records()) == {"champion": first}
    before = len(list(ledger.records()))
    move_alias(ledger, sources, "champion", second)
    assert len(list(ledger.records())) == before + 1
    move_alias(ledger, sources, "challenger", third)
    assert aliases(ledger.records()) == {"champion": second, "previous": first, "challenger": third}
    move_alias(ledger, sources, "champion", second)
    assert aliases(ledger.records())["previous"] == first


def test_every_move_is_recomputed(place: Any) -> None:
    """An alias record's figures follow from its inputs and the artifacts they name."""
    ledger, sources, (first, second, _) = place
    for digest in (first, second):
        move_alias(ledger, sources, "champion", digest)
    for record in ledger.records(kind="alias"):
        assert get_kind("alias").derive()(record.body["inputs"], sources) == record.body["figures"]


def test_names_aliases_and_digests_resolve(place: Any) -> None:
    """A name is its newest version; an alias where it points; a digest may be shortened to eight digits."""
    ledger, sources, (first, second, third) = place
    move_alias(ledger, sources, "challenger", first)
    records = list(ledger.records())
    assert resolve(records, "one") == second
    assert resolve(records, "challenger") == first
    assert resolve(records, third[:8]) == resolve(records, third) == third
    assert artifact_of(sources, records, "two")[1].name == "two"
    for unknown in ("champion", "three", third[:7], ""):
        with pytest.raises(UnknownNameError, match=r"one.*two"):
            resolve(records, unknown)


def test_versions_carry_aliases_and_verdicts(place: Any) -> None:
    """Each artifact is listed once, training it again changes nothing, and its newest verdict is shown."""
    ledger, sources, (first, _, third) = place
    train(ledger, sources, PLAN)
    move_alias(ledger, sources, "challenger", third)
    run_gate(ledger, sources, third)
    found = {version.digest: version for version in versions(ledger.records())}
    assert len(found) == 3
    assert found[third].aliases == ("challenger",)
    assert found[third].verdict in ("PASS", "FAIL", "INCONCLUSIVE")
    assert found[first].verdict is None


def test_unknown_aliases_and_missing_artifacts_are_refused(place: Any) -> None:
    """Nothing is appended for an alias that does not exist or an artifact that is not stored."""
    ledger, sources, (first, *_) = place
    before = ledger.head()
    with pytest.raises(UnknownNameError, match="challenger, champion, previous"):
        move_alias(ledger, sources, "chamption", first)
    with pytest.raises(IntegrityError):
        move_alias(ledger, sources, "champion", "0" * 64)
    assert ledger.head() == before
