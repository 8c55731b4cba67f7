"""A successor is tried on checked data, at its share of alpha, and never twice on the same; the champion stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probatum.core.clock import NS_PER_DAY, NS_PER_MINUTE, NS_PER_MS
from probatum.core.errors import BlockedError, DataError, IntegrityError, ParameterError
from probatum.core.verdict import Provenance, Verdict
from probatum.market.calendar import Calendar
from probatum.market.dataset import Dataset
from probatum.market.quality import Recording, SourceFile
from probatum.models.metrics import Bootstrap
from probatum.pipeline import retrain
from probatum.pipeline.drift import snapshot
from probatum.pipeline.gate import run_gate
from probatum.pipeline.importing import import_recording
from probatum.pipeline.jobs import JOBS, RETRAIN, Book, Place
from probatum.pipeline.ports import Entry, Record
from probatum.pipeline.proposals import ask, open_proposal, proposals, propose_on_drift
from probatum.pipeline.registry import aliases, move_alias
from probatum.pipeline.retrain import ALPHA_EACH, choose_proposal, run_retrain, timeline
from probatum.pipeline.retrain_data import clock_skew_ms, measure
from probatum.pipeline.retrain_replay import day_ends, until
from probatum.pipeline.rollout import read_plan
from probatum.pipeline.training import TrainingPlan, train, training_inputs
from probatum.pipeline.verify import verify
from probatum.rollout.criteria import ALPHA, GATE_CRITERIA, RETRAIN_ATTEMPTS_MAX
from probatum.rollout.plan import planned_s
from probatum.testing.fakes import MemoryDatasets, MemoryLedger, MemorySources
from probatum.testing.models import toy_dataset

DATA = toy_dataset(days=16)
WILD = {"verdict": "INCONCLUSIVE", "rows": 1_000, "overall_psi": 0.31}
PLAN = TrainingPlan(symbols=("TOY",), set="robust", target="large_move@60s", model="logistic")


def days(count: float) -> Dataset:
    """Return the first days of the toy market, to the minute, under a digest of their own."""
    assert DATA.bars is not None
    bars = DATA.bars.head(round(count * 1_440))
    return replace(DATA, bars=bars, sha256=f"{bars.height:064x}")


def changed(dataset: Dataset, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Dataset:
    assert dataset.bars is not None
    return replace(dataset, bars=change(dataset.bars), sha256="f" * 64)


def checked(dataset: Dataset) -> dict[str, Any]:
    found = measure([training_inputs(PLAN, [dataset])], [dataset])
    return {"verdict": found["verdict"], **{check["name"]: check for check in found["checks"]}}


@cache
def _incumbent() -> tuple[str, MemorySources]:
    sources = MemorySources([days(14)])
    seed = TrainingPlan(symbols=("TOY",), name="b0", set="v1.8-b0", target="direction@60s", model="fixed")
    return train(sources.ledger, sources, seed).digest, sources


def copied(known: MemorySources) -> MemorySources:
    sources = MemorySources([days(14)])
    sources.blobs._data.update(known.blobs._data)
    for record in known.ledger.records():
        sources.ledger.append(record.kind, record.subject, record.provenance, record.body)
    return sources


def opened() -> tuple[MemorySources, str]:
    """Return sources with a champion and an open proposal."""
    model, known = _incumbent()
    sources = copied(known)
    move_alias(sources.ledger, sources, "champion", model)
    ask(sources.ledger, sources, model=model, reason="a test", now_ns=0)
    return sources, model


@cache
def _tried() -> tuple[MemorySources, str]:
    sources, model = opened()
    attempt(sources)
    return sources, model


def tried() -> tuple[MemorySources, str, Record]:
    """Return sources with a champion and one attempt, and that attempt."""
    known, model = _tried()
    sources = copied(known)
    return sources, model, next(sources.ledger.records(kind="retrain_attempt"))


def attempt(sources: MemorySources, **options: Any) -> retrain.Outcome:
    return run_retrain(sources.ledger, sources, choose_proposal(list(sources.ledger.records())), **options)


# --- data -----------------------------------------------------------------------------------------------------------


def test_fourteen_days_pass_and_thirteen_are_too_few() -> None:
    """Fourteen whole days pass; a minute less is INCONCLUSIVE and says how many minutes are missing."""
    assert checked(days(14))["verdict"] == "PASS"
    short = checked(days(14 - 1 / 1_440))
    assert short["verdict"] == "INCONCLUSIVE"
    assert short["days"]["settle"] == "1 more rows"
    thirteen = checked(days(13))
    assert (thirteen["days"]["value"], thirteen["days"]["settle"]) == (13.0, "1,440 more rows")
    assert "rows" not in thirteen  # columns are looked at only where the data pass


def test_holes_are_refused() -> None:
    """A gap over five minutes fails, five minutes do not; scattered holes fail from half a per cent on."""
    whole = days(14)

    def without(rows: np.ndarray) -> dict[str, Any]:
        return checked(changed(whole, lambda bars: bars.filter(~pl.int_range(pl.len()).is_in(rows.tolist()))))

    assert without(np.arange(9_000, 9_005))["gaps_unexplained"]["verdict"] == "PASS"
    gap = without(np.arange(9_000, 9_006))
    assert (gap["verdict"], gap["gaps_unexplained"]["value"]) == (Verdict.FAIL, 1.0)
    assert "--explain-gap" in gap["gaps_unexplained"]["settle"]
    few, many = (without(np.arange(100, 20_000, step)) for step in (200, 199))
    assert (few["incomplete"]["verdict"], many["incomplete"]["verdict"]) == (Verdict.PASS, Verdict.PASS)
    assert without(np.arange(100, 20_000, 190))["incomplete"]["verdict"] == "FAIL"


@pytest.mark.parametrize(("late_ms", "verdict"), [(99.0, Verdict.PASS), (100.0, Verdict.FAIL), (-150.0, Verdict.FAIL)])
def test_a_clock_that_is_off_for_one_day_is_seen(late_ms: float, verdict: Verdict) -> None:
    """The largest daily median decides, whichever way the clock is off; a slow packet now and then does not."""
    ts, day = pl.col("ts_event"), pl.col("ts_event") // NS_PER_DAY
    off = pl.when(day == day.min() + 5).then(ts + round(late_ms * NS_PER_MS)).otherwise(ts + 3 * NS_PER_MS)
    slow = pl.when(pl.int_range(pl.len()) % 10 == 0).then(ts + 10**10).otherwise(off)
    found = checked(changed(days(14), lambda bars: bars.with_columns(ts_recv=slow)))
    assert found["clock_skew_ms"]["value"] == abs(late_ms)
    assert (found["clock_skew_ms"]["verdict"], found["verdict"]) == (verdict, verdict)


def test_one_timestamp_is_no_clock() -> None:
    """Where received equals event time nothing is said of the clock: neither pass nor error."""
    assert DATA.bars is not None
    assert clock_skew_ms(DATA.bars) is None
    assert "clock_skew_ms" not in checked(days(14))


def test_levels_and_twins_are_warned_of() -> None:
    """The seed's price is a unit root and its log volume a twin of its volume; both are named, neither blocks."""
    inputs = training_inputs(msgspec.structs.replace(PLAN, set="v1.8-b0"), [days(14)])
    found = {check["name"]: check for check in measure([inputs], [days(14)])["checks"]}
    assert found["unit_roots"]["verdict"] == "FAIL"
    assert "mid" in found["unit_roots"]["reason"]
    assert not found["unit_roots"]["enforced"]
    assert found["correlated"]["value"] == len(
        [r for r in measure([inputs], [days(14)])["columns"][0]["correlated"] if abs(r["r"]) > 0.95]
    )


# --- proposals ------------------------------------------------------------------------------------------------------


def test_while_one_is_open_there_is_no_second() -> None:
    """Asking again, with the same words or others, returns the proposal that stands."""
    sources, model = opened()
    (first,) = proposals(sources.ledger.records())
    for reason in ("a test", "another"):
        assert ask(sources.ledger, sources, model=model, reason=reason, now_ns=9).hash == first.record.hash
    assert first.state == "open"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "a\nb", "\x1b[31m"])
def test_a_reason_is_words(reason: str) -> None:
    """An empty, endless or unprintable reason is refused before anything is written."""
    sources, model = opened()
    before = sources.ledger.head()
    with pytest.raises(ParameterError, match="reason must be"):
        ask(sources.ledger, sources, model=model, reason=reason, now_ns=0)
    assert sources.ledger.head() == before


def test_drift_asks_only_for_a_model_in_place_and_only_where_there_is_some() -> None:
    """A snapshot of a model without alias opens nothing; a forged proposal on a calm snapshot does not verify."""
    sources, _ = opened()
    robust = train(sources.ledger, sources, PLAN).digest
    calm = snapshot(sources.ledger, sources, robust, window="test")
    assert calm.body["figures"]["verdict"] == "PASS"
    assert propose_on_drift(sources.ledger, sources, calm, 0) is None
    with pytest.raises(IntegrityError, match="shows no drift"):
        open_proposal(sources.ledger, sources, model=robust, trigger="drift", evidence=calm, now_ns=0)
    figures = {**calm.body["figures"], "overall_psi": 0.31}
    wild = sources.ledger.append(
        "psi_snapshot", "x", calm.provenance, {"inputs": calm.body["inputs"], "figures": figures}
    )
    assert propose_on_drift(sources.ledger, sources, wild, 0) is None
    move_alias(sources.ledger, sources, "challenger", robust)
    proposal = propose_on_drift(sources.ledger, sources, wild, 0)
    assert proposal is not None
    assert "psi_snapshot" in proposal.body["figures"]["reason"]


# --- attempts -------------------------------------------------------------------------------------------------------


def test_an_attempt_that_passes_makes_a_challenger_and_leaves_the_champion() -> None:
    """Both candidates are gated at the shared alpha, the best on validation is chosen, all of it verifies; again is nothing new."""
    sources, model, made = tried()
    found = made.body["figures"]
    assert (found["verdict"], found["number"], found["alpha"]) == ("PASS", 1, round(ALPHA / RETRAIN_ATTEMPTS_MAX, 10))
    best = max(found["candidates"], key=lambda item: item["validate_auc"])
    assert [item["artifact"] for item in found["candidates"] if item["chosen"]] == [best["artifact"]]
    assert {r.body["inputs"]["alpha"] for r in sources.ledger.records(kind="offline_report")} == {ALPHA_EACH}
    assert aliases(sources.ledger.records()) == {"champion": model, "challenger": best["artifact"]}
    (proposal,) = proposals(sources.ledger.records())
    assert proposal.state == "on trial"
    head = sources.ledger.head()
    assert run_retrain(sources.ledger, sources, proposal).attempt == made
    assert sources.ledger.head() == head
    assert verify(sources.ledger, sources).findings == ()


def test_the_timeline_is_the_plans_forecast() -> None:
    """The canary ends when the stored plan expects it, validation after the policy's own spans."""
    sources, _, record = tried()
    plan = read_plan(sources, record.body["inputs"]["rollout_plan"])
    steps = timeline(plan, 0, passed=True)
    assert steps[0]["end"] == "1970-01-02T10:32:00Z"
    assert planned_s(plan) == (24 + 10) * 3_600 + 32 * 60
    assert timeline(plan, 0, passed=False)[0]["step"] == "next attempt"
    assert [step["step"] for step in record.body["figures"]["timeline"]] == [step["step"] for step in steps]


def test_too_little_data_spend_no_alpha() -> None:
    """Thirteen days: the data record says INCONCLUSIVE, there is no attempt, and the proposal stays open."""
    sources, _ = opened()
    sources.datasets = MemoryDatasets([days(14), days(13)])
    outcome = attempt(sources)
    assert (outcome.verdict, outcome.attempt) == ("INCONCLUSIVE", None)
    assert [p.state for p in proposals(sources.ledger.records())] == ["open"]
    assert list(sources.ledger.records(kind="offline_report")) == []


def test_judging_again_is_no_laxer() -> None:
    """A gate by hand of a retrained artifact is held to its attempt's alpha: it returns the same record."""
    sources, _, record = tried()
    digest, champion = record.body["inputs"]["artifact"], None
    by_hand = run_gate(sources.ledger, sources, digest, champion=champion)
    assert by_hand.body["inputs"]["alpha"] == ALPHA_EACH
    for alpha in (0.0, 0.06, float("nan")):
        with pytest.raises(ParameterError, match="alpha must be"):
            run_gate(sources.ledger, sources, digest, alpha=alpha)
    assert by_hand.hash in {item["gate"] for item in record.body["inputs"]["candidates"]}


def failed(sources: MemorySources, model: str, count: int) -> None:
    """Append attempts that say INCONCLUSIVE, as a ledger would hold them."""
    proposal = proposals(sources.ledger.records())[-1].record.hash
    for number in range(count):
        body = {
            "inputs": {"proposal": proposal, "data": str(number), "artifact": model},
            "figures": {"verdict": "INCONCLUSIVE"},
        }
        sources.ledger.append("retrain_attempt", "x", Provenance.SYNTHETIC, body)


def test_when_all_attempts_are_made_only_a_person_asks_again() -> None:
    """After the last attempt nothing can be tried, drift opens nothing new, and a person may."""
    sources, model = opened()
    failed(sources, model, RETRAIN_ATTEMPTS_MAX)
    (proposal,) = proposals(sources.ledger.records())
    assert proposal.state == "exhausted"
    with pytest.raises(BlockedError, match="is exhausted"):
        run_retrain(sources.ledger, sources, proposal)
    alert = sources.ledger.append("alert", "MLPSICritical", Provenance.SYNTHETIC, {"inputs": {}, "figures": {}})
    again = open_proposal(sources.ledger, sources, model=model, trigger="drift", evidence=alert, now_ns=0)
    assert again.hash == proposal.record.hash
    asked = ask(sources.ledger, sources, model=model, reason="new features", now_ns=1)
    assert asked.hash != proposal.record.hash


def test_forged_attempts_do_not_verify() -> None:
    """A lax gate, another candidate than the best, one attempt too many, and a record that is not there are named."""
    sources, _, record = tried()
    inputs = record.body["inputs"]
    worse = next(c["artifact"] for c in record.body["figures"]["candidates"] if not c["chosen"])
    gate = next(
        r for r in sources.ledger.records(kind="offline_report") if r.body["inputs"]["artifact"] == inputs["artifact"]
    )
    body = {**gate.body, "inputs": {**gate.body["inputs"], "alpha": ALPHA}}
    lax = sources.ledger.append("offline_report", gate.subject, gate.provenance, body)
    lenient = [{**c, "gate": lax.hash if c["gate"] == gate.hash else c["gate"]} for c in inputs["candidates"]]
    late: Record = record
    for _ in range(RETRAIN_ATTEMPTS_MAX - 1):
        number = late.body["figures"]["number"] + 1
        body = {"inputs": {**inputs, "previous": late.hash}, "figures": {**record.body["figures"], "number": number}}
        late = sources.ledger.append("retrain_attempt", record.subject, record.provenance, body)
    cases = (
        ({"candidates": lenient}, "rests on a gate at alpha 0.05"),
        ({"artifact": worse}, "not the best on the validation part"),
        ({"previous": late.hash}, "is number 15 of at most 14"),
        ({"holdout": gate.hash}, "rests on the drift of another model"),
        ({"data": gate.hash}, "rests on data that did not pass"),
        ({"holdout": "0" * 64}, "names a record that the ledger does not hold"),
        ({"proposal": record.hash, "previous": record.hash}, "is of another proposal"),
    )
    for change, problem in cases:
        with pytest.raises(IntegrityError, match=problem):
            retrain.figures({**inputs, **change}, sources)


def test_the_user_s_own_candidate_joins() -> None:
    """Any installed model may be compared on any set; one that is named twice, or that these data cannot feed, is refused."""
    sources, _ = opened()
    outcome = attempt(sources, candidates=[("robust", "lightgbm"), ("robust", "logistic")])
    assert outcome.attempt is not None
    assert [c["model"] for c in outcome.attempt.body["figures"]["candidates"]] == ["lightgbm", "logistic"]
    sources, _ = opened()
    with pytest.raises(ParameterError, match="candidates must be"):
        attempt(sources, candidates=[("robust", "logistic")] * 2)
    with pytest.raises(DataError, match="'book' needs sizes"):
        attempt(sources, candidates=[("book", "logistic")])


# --- alpha ----------------------------------------------------------------------------------------------------------


def any_pass(alpha: float, runs: int, seed: int) -> float:
    """Return how often one of the daily attempts passes a model whose hit rate is exactly on the gate's bound.

    The gate's own bootstrap, on the last fifth of 15, 16, … 28 days; hits of an hour share that hour's luck.
    """
    bound = next(item.bound for item in GATE_CRITERIA if item.name == "precision_at_20")
    rng, per_hour, spread = np.random.default_rng(seed), 12, 12.0
    hours = 24 * (14 + RETRAIN_ATTEMPTS_MAX)
    luck = rng.beta(bound * spread, (1.0 - bound) * spread, size=(runs, hours))
    hits = rng.binomial(per_hour, luck) / per_hour
    passed = np.zeros(runs, dtype=bool)
    for day in range(15, 15 + RETRAIN_ATTEMPTS_MAX):
        end, size = 24 * day, round(24 * day * 0.2)
        boot = Bootstrap.draw(np.arange(size), seed=7, resamples=2_800)
        seen = hits[:, end - size : end]
        resampled = boot.counts @ seen.T / size
        for run in np.flatnonzero(~passed):
            lower = boot.estimate(float(seen[run].mean()), resampled[:, run], alpha).lower
            passed[run] = lower is not None and lower >= bound
    return float(passed.mean())


def test_fourteen_attempts_of_a_bad_model_share_one_alpha() -> None:
    """A model on the bound passes some attempt in at most five per cent of runs; at an alpha of its own for each, far more."""
    assert any_pass(ALPHA_EACH, 600, 1) <= ALPHA
    assert any_pass(ALPHA, 200, 1) > 2 * ALPHA


# --- replay ---------------------------------------------------------------------------------------------------------


def recorded(dataset: Dataset) -> Recording:
    assert dataset.bars is not None
    frame = dataset.bars.with_columns(
        source=pl.lit(0, pl.UInt32), row=pl.int_range(1, pl.len() + 1), flag=pl.lit(None, pl.String)
    )
    source = SourceFile("toy.csv", "0" * 64, frame.height)
    return Recording("toy", "TOY", Provenance.SYNTHETIC, Calendar(), None, {"bars": frame}, (source,))


@given(st.integers(min_value=1, max_value=16 * 1_440))
def test_every_row_of_a_cut_recording_is_accounted_for(minute: int) -> None:
    """Rows known by a time and later ones make up the whole, and no known row is later than the cut."""
    whole = recorded(DATA)
    end_ns = int(whole.frames["bars"]["ts_event"][0]) + (minute - 1) * NS_PER_MINUTE
    cut = until(whole, end_ns)
    assert cut.frames["bars"].height + sum(cut.ignored.values()) == whole.rows_in
    assert int(cut.frames["bars"]["ts_event"].max()) <= end_ns  # type: ignore[arg-type]


def test_days_end_at_midnight_and_an_import_twice_is_one() -> None:
    """A bar stamped at midnight belongs to the day that it closes; the same cut imported twice is one record."""
    whole = recorded(DATA)
    ends = day_ends(whole, 14 * NS_PER_DAY)
    assert [(end - int(whole.frames["bars"]["ts_event"][0])) // NS_PER_MINUTE for end in ends] == [
        24 * 60 * day - 1 for day in (14, 15, 16)
    ]
    with pytest.raises(DataError, match="no day is left"):
        day_ends(whole, 16 * NS_PER_DAY)
    ledger, sources = MemoryLedger(), MemorySources([days(14)])
    cut = until(whole, ends[0])
    saved = [
        import_recording(cut, save=lambda made: replace(made, sha256=days(14).sha256), ledger=ledger, sources=sources)
        for _ in range(2)
    ]
    assert saved[0].record == saved[1].record


# --- by the clock ---------------------------------------------------------------------------------------------------


def test_a_slot_opens_what_its_evidence_asks_for() -> None:
    """An hour's snapshot that drifted opens a proposal of that model, a week's slot one of the champion, each once."""
    model, known = _incumbent()
    sources = copied(known)
    move_alias(sources.ledger, sources, "champion", model)
    wild = Entry("psi_snapshot", "b0", Provenance.SYNTHETIC, {"inputs": {"artifact": model}, "figures": WILD})
    book, place = Book(sources.ledger), Place(sources, None)  # type: ignore[arg-type]
    book.run(place, msgspec.structs.replace(JOBS["psi_snapshot"], work=lambda _place, _slot: [wild]), 4 * NS_PER_DAY)
    sunday = JOBS[RETRAIN].schedule.newest(20 * NS_PER_DAY)
    book.run(place, JOBS[RETRAIN], sunday)
    (proposal,) = proposals(sources.ledger.records())
    assert (proposal.model, proposal.record.body["inputs"]["trigger"]) == (model, "drift")
    sources = copied(known)
    book, place = Book(sources.ledger), Place(sources, None)  # type: ignore[arg-type]
    book.run(place, JOBS[RETRAIN], sunday)
    assert proposals(sources.ledger.records()) == []  # nobody is champion
    move_alias(sources.ledger, sources, "champion", model)
    for week in range(1, 3):
        book.run(place, JOBS[RETRAIN], sunday + week * JOBS[RETRAIN].schedule.period_ns)
    (proposal,) = proposals(sources.ledger.records())
    assert proposal.record.body["inputs"]["trigger"] == "schedule"
    assert "job_run" in proposal.record.body["figures"]["reason"]
