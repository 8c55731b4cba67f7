"""One suite for every ledger and blob store: the fakes that other tests use behave as the real ones do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probatum.adapters.blobs import FileBlobs
from probatum.adapters.control import PostgresLeadership, SqliteLeadership
from probatum.adapters.ledger import SqliteLedger
from probatum.adapters.ledger_postgres import PostgresLedger
from probatum.core.canonical import canonical_json, digest
from probatum.core.clock import NS_PER_S, VirtualClock
from probatum.core.errors import InputError, IntegrityError, OvertakenError
from probatum.core.verdict import Provenance
from probatum.pipeline.control import KIND, publish, read_document
from probatum.pipeline.evidence import GENESIS, prove
from probatum.pipeline.kinds import KINDS
from probatum.pipeline.ports import Blobs, Entry, Leadership, Ledger
from probatum.rollout.choose import Mode
from probatum.rollout.lease import RolloutDocument
from probatum.testing.fakes import MemoryBlobs, MemoryLeadership, MemoryLedger, MemorySources

MakeLedger = Callable[[], Ledger]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def make_ledger(request: pytest.FixtureRequest, tmp_path: Path) -> MakeLedger:
    numbers = iter(range(10_000))
    clock = VirtualClock(1_704_067_200 * NS_PER_S)
    if request.param == "memory":
        return lambda: MemoryLedger(clock)
    if request.param == "sqlite":
        return lambda: SqliteLedger(tmp_path / f"{next(numbers)}" / "ledger.db", clock)
    url = request.getfixturevalue("postgres_url")

    def make() -> PostgresLedger:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute("DROP TABLE IF EXISTS records, ledger_schema, leadership")
            session.execute("DROP FUNCTION IF EXISTS records_refuse")
        return PostgresLedger(url, clock)

    return make


def candidate(ledger: Ledger, name: str) -> Leadership:
    """Return one of several controllers of a ledger."""
    if isinstance(ledger, MemoryLedger):
        return MemoryLeadership(ledger, name)
    if isinstance(ledger, SqliteLedger):
        return SqliteLeadership(ledger, name, time.monotonic_ns)
    assert isinstance(ledger, PostgresLedger)
    return PostgresLeadership(ledger, name)


@pytest.fixture(params=["memory", "files"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return MemoryBlobs() if request.param == "memory" else FileBlobs(tmp_path / "blobs")


def body(figure: object) -> dict[str, object]:
    return {"inputs": {}, "figures": {"x": figure}}


def test_an_empty_ledger_has_the_genesis_head_and_no_records(make_ledger: MakeLedger) -> None:
    """Nothing is a valid chain, and reading it creates nothing."""
    ledger = make_ledger()
    assert ledger.head() == GENESIS
    assert list(ledger.records()) == []


def test_records_are_chained_and_numbered_from_one(make_ledger: MakeLedger) -> None:
    """Each record carries its predecessor's hash, and its own is the digest of all its other fields."""
    ledger = make_ledger()
    first = ledger.append("train", "BTC", Provenance.REPLAY, body(0.1))
    second = ledger.append("alias", "champion", Provenance.LIVE, body("ü\n"))
    assert (first.seq, first.prev, second.seq, second.prev) == (1, GENESIS, 2, first.hash)
    assert list(ledger.records()) == [first, second]
    assert ledger.head() == second.hash
    assert first.ts == "2024-01-01T00:00:00Z"
    fields = {name: getattr(second, name) for name in ("seq", "ts", "kind", "subject", "body", "prev")}
    assert digest({**fields, "provenance": "live"}) == second.hash


def test_records_are_filtered_by_kind_and_subject(make_ledger: MakeLedger) -> None:
    """A filter leaves order and numbers as they are."""
    ledger = make_ledger()
    for kind, subject in [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x' OR 1=1 --")]:
        ledger.append(kind, subject, Provenance.REPLAY, body(1))
    assert [r.seq for r in ledger.records(kind="a")] == [1, 3, 4]
    assert [r.seq for r in ledger.records(subject="x")] == [1, 2]
    assert [r.seq for r in ledger.records(kind="a", subject="x' OR 1=1 --")] == [4]
    assert list(ledger.records(kind="none")) == []


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), 2**53, "\ud800", {1: 2}])
def test_what_json_cannot_hold_is_refused_and_nothing_is_appended(make_ledger: MakeLedger, figure: object) -> None:
    """NaN is no figure, and half a record is none."""
    ledger = make_ledger()
    with pytest.raises(InputError):
        ledger.append("a", "x", Provenance.REPLAY, body(figure))
    with pytest.raises(InputError):
        ledger.append("a", "", Provenance.REPLAY, body(1))
    with pytest.raises(InputError):
        ledger.append("a", "x", Provenance.REPLAY, {"figures": {}})
    assert list(ledger.records()) == []


def entry(kind: str, figure: object, subject: str = "x") -> Entry:
    return Entry(kind, subject, Provenance.REPLAY, body(figure))


def test_several_records_are_appended_all_or_none(make_ledger: MakeLedger) -> None:
    """A record that is refused takes those before it along."""
    ledger = make_ledger()
    first, second = ledger.append_all([entry("a", 1), entry("b", 2)])
    assert (first.seq, second.seq, second.prev) == (1, 2, first.hash)
    for wrong in (entry("a", float("nan")), entry("", 1), entry("a", 1, "\0")):
        with pytest.raises(InputError):
            ledger.append_all([entry("a", 3), wrong])
    assert list(ledger.records()) == [first, second]
    assert list(ledger.records(kind="b", after=1)) == [second]
    assert list(ledger.records(after=2)) == []


def test_who_has_not_seen_the_newest_record_of_a_subject_appends_nothing(make_ledger: MakeLedger) -> None:
    """Two that decide on the same state: the second is told so, and others' records are no hindrance."""
    ledger = make_ledger()
    seen = ledger.append_all([entry("a", 1), entry("b", 1), entry("a", 1, "y")], seen=0)[0].seq
    ledger.append_all([entry("a", 2), entry("b", 2)], seen=seen)
    with pytest.raises(OvertakenError, match="nothing was appended"):
        ledger.append_all([entry("a", 3), entry("b", 3)], seen=seen)
    assert [(r.kind, r.body["figures"]["x"]) for r in ledger.records(after=3)] == [("a", 2), ("b", 2)]


def test_one_leads_and_the_other_takes_over(make_ledger: MakeLedger) -> None:
    """Each reign has a higher epoch, and what was decided in an earlier one is refused."""
    ledger = make_ledger()
    first, second = candidate(ledger, "first"), candidate(ledger, "second")
    try:
        assert [first.lead(), second.lead(), first.lead()] == [1, None, 1]
        ledger.append_all([entry("a", 1)], epoch=1)
        first.resign()
        assert [second.lead(), first.lead(), second.lead()] == [2, None, 2]
        with pytest.raises(OvertakenError, match="nothing was appended"):
            ledger.append_all([entry("a", 2)], epoch=1)
        ledger.append_all([entry("a", 3)], epoch=2)
        ledger.append("a", "x", Provenance.REPLAY, body(4))
        assert [r.body["figures"]["x"] for r in ledger.records()] == [1, 3, 4]
    finally:
        first.resign()
        second.resign()


def test_published_documents_are_read_back_with_their_place(make_ledger: MakeLedger) -> None:
    """A document follows its reason in one transaction, and its sequence is its record's number."""
    ledger = make_ledger()
    document = RolloutDocument(mode=Mode.GATED, share=0.25, plan="p" * 64, champion="c" * 64, run="r#1")
    records = publish(ledger, document, subject="r", provenance=Provenance.REPLAY, because=[entry("a", 1)], seen=0)
    assert [record.kind for record in ledger.records()] == ["a", KIND]
    read = read_document(list(ledger.records(kind=KIND))[-1])
    assert read == msgspec.structs.replace(document, sequence=2)
    assert records[-1].seq == 2
    assert KINDS[KIND].derive()(records[-1].body["inputs"], MemorySources()) == records[-1].body["figures"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(figures=st.lists(JSON, min_size=1, max_size=3))
def test_what_is_appended_is_what_is_read(make_ledger: MakeLedger, figures: list[object]) -> None:
    """The record that append returns equals the one read later, in value and in canonical bytes."""
    ledger = make_ledger()
    appended = [ledger.append("a", "x", Provenance.SYNTHETIC, body(figure)) for figure in figures]
    read = list(ledger.records())
    assert read == appended
    assert [canonical_json(r.body) for r in read] == [canonical_json(body(figure)) for figure in figures]


def test_prove_computes_from_the_inputs_as_they_will_be_read(make_ledger: MakeLedger) -> None:
    """A derivation that depended on tuples or on 1.0 being a float would not verify: it never sees them."""
    ledger, seen = make_ledger(), []

    def derive(inputs: dict[str, object], _: object) -> dict[str, object]:
        seen.append(inputs)
        return {"double": 2}

    record = prove(
        ledger, MemorySources(), kind="a", subject="x", provenance=Provenance.REPLAY,
        inputs={"t": (1.0, 2.5)}, derive=derive,
    )  # fmt: skip
    assert seen == [{"t": [1, 2.5]}]
    assert isinstance(seen[0]["t"][0], int)
    assert record.body == {"inputs": {"t": [1, 2.5]}, "figures": {"double": 2}}


def test_blobs_return_what_was_put_under_its_digest(blobs: Blobs) -> None:
    """The name of bytes is their digest; the same bytes twice are one blob."""
    name = blobs.put("artifact", b"{}")
    assert name == blobs.put("artifact", b"{}") == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert blobs.get("artifact", name) == b"{}"


def test_missing_and_unknown_blobs_are_named(blobs: Blobs) -> None:
    """A blob that is not there is an integrity error; a kind that is not there is a usage error."""
    with pytest.raises(IntegrityError, match="ab" * 32):
        blobs.get("predictions", "ab" * 32)
    with pytest.raises(InputError, match=r"known: .*artifact, "):
        blobs.put("pickle", b"")
