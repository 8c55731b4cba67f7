"""Live outcomes: what an executor counts while it decides is what its log and the recording give afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from canary import Bench, bench
from decisions import RUN, Replayed, count, forged, replay

from probatum.core.clock import NS_PER_DAY
from probatum.core.errors import InconclusiveError
from probatum.core.verdict import Provenance
from probatum.models.artifact import LogisticModel
from probatum.models.metrics import auc, brier, ece
from probatum.models.scoring import score_rows
from probatum.pipeline.chronicle import Chronicle
from probatum.pipeline.logged import class_of, values_of
from probatum.pipeline.outcomes import KIND, judge_outcomes
from probatum.pipeline.registry import load_artifact
from probatum.pipeline.report import number, with_bounds
from probatum.pipeline.verify import verify
from probatum.pipeline.views import VIEWS, Known
from probatum.rollout.eprocess import n_needed
from probatum.services.controller.pages import render
from probatum.services.executor.outcomes import WINDOW


class Log:
    """Decisions held in memory. Satisfies ``pipeline.ports.Decisions``."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def read(self, start_ns: int, end_ns: int) -> pl.DataFrame:
        return self.frame.filter(pl.col("ts").is_between(start_ns, end_ns, closed="left"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Replayed]:
    """Return the first five days of bars, decided on one by one."""
    place = bench()
    artifact, first = load_artifact(place.sources, place.model), int(place.dataset.bars["ts_event"][0])
    return place, replay(artifact, place.dataset.between(0, first + 5 * NS_PER_DAY), tmp_path_factory.mktemp("log"))


def judge(place: Bench, frame: pl.DataFrame, **options: Any) -> Any:
    options = {"start_ns": 0, "end_ns": 1 << 62, **options}
    return judge_outcomes(place.ledger, place.sources, Log(frame), place.model, **options)


def test_counted_live_is_counted_afterwards(made: tuple[Bench, Replayed]) -> None:
    """Joined decisions, outcomes apart and losses of the running executor equal, count by count, what the batch join of its
    log with the recorded bars gives; and the gauges are the metrics of the newest outcomes."""
    place, run = made
    found = judge(place, run.frame).body["figures"]
    losses = found["losses"]["baseline"]
    measured = {"run": RUN, "measure": "outcome_losses"}
    assert count(run.registry, "ml_rollout_samples_total", **measured) == losses["n"] > 500
    assert count(run.registry, "ml_rollout_bad_total", **measured) == losses["losses"] > 0
    assert count(run.registry, "ml_outcome_pairs_total", model=place.model[:16]) == losses["n"]
    assert count(run.registry, "ml_outcome_losses_total", model=place.model[:16]) == losses["losses"]
    states = {name: count(run.registry, "ml_outcome_decisions_total", state=name) for name in ("joined", "off_grid")}
    assert states == {"joined": found["joined"] - 1, "off_grid": 0}  # the last label comes with a bar after the last
    assert found["joined"] > 5_000
    assert found["logged"] == run.frame.height
    newest = run.outcomes._window
    score, baseline, hit = (np.array(column, dtype=np.float64) for column in zip(*newest, strict=True))
    assert len(newest) == WINDOW
    for scorer, values in (("model", score), ("baseline", baseline)):
        assert count(run.registry, "ml_live_auc", scorer=scorer) == auc(values, hit)
        assert count(run.registry, "ml_live_brier", scorer=scorer) == brier(values, hit)
        assert count(run.registry, "ml_live_calibration_error", scorer=scorer) == ece(values, hit)


def test_the_record_says_what_was_found_and_verifies(made: tuple[Bench, Replayed]) -> None:
    """Bounds enclose the rate, what is needed follows from the losses, every decision is in one count, and the chain
    verifies: figures come from the stored decisions and the named data alone."""
    place, run = made
    record = judge(place, run.frame)
    found = record.body["figures"]
    losses = found["losses"]["baseline"]
    assert losses["lower"] < losses["rate"] < losses["upper"]
    assert losses["n_needed"] == n_needed(losses["losses"], 0.6)
    assert found["model"]["lower"] < found["model"]["auc"] < found["model"]["upper"]
    assert found["verdict"] == ("PASS" if losses["upper"] < 0.6 else "INCONCLUSIVE")
    assert record.provenance is Provenance.SYNTHETIC
    assert verify(place.ledger, place.sources).findings == ()


def test_the_dashboard_shows_the_newest_record_of_each_model(made: tuple[Bench, Replayed]) -> None:
    """The shadow page has AUC with its bounds, Brier, calibration and the paired losses, word for word the record's."""
    place, run = made
    record = judge(place, run.frame)
    chronicle = Chronicle()
    chronicle.take(record)
    live = {"controller": {}, "executors": []}
    view = VIEWS["shadow"](Known(chronicle, place.sources, 0, live, ""))
    (shown,) = view["outcomes"]
    found = record.body["figures"]
    assert [scorer["name"] for scorer in shown["scorers"]] == ["model", "baseline"]
    assert (shown["losses"], shown["joined"]) == (found["losses"], found["joined"])
    html = render("shadow", view, {"seq": 1, "problem": "", "age_s": 0.0, "reading": False}).decode()
    lost = found["losses"]["baseline"]
    for text in (
        with_bounds({**found["model"], "value": found["model"]["auc"]}),
        number(found["baseline"]["brier"]),
        f"{lost['losses']:,} of {lost['n']:,}",
        "Calibration",
    ):
        assert text in html


def test_a_champion_is_compared_on_the_same_rows(made: tuple[Bench, Replayed]) -> None:
    """The champion scores the logged features; a model does not lose to one that decides as it does."""
    place, run = made
    artifact = load_artifact(place.sources, place.model)
    digest = place.sources.blobs.put("artifact", msgspec.structs.replace(artifact, name="twin").to_bytes())
    found = judge(place, run.frame, champion=digest).body["figures"]
    assert found["champion"]["auc"] == found["model"]["auc"]
    assert found["losses"]["champion"]["n"] == 0
    assert found["verdict"] == "INCONCLUSIVE"
    assert [check["name"] for check in found["checks"] if check["enforced"]] == [
        "losses_to_baseline",
        "losses_to_champion",
    ]


def test_a_model_that_is_wrong_more_often_than_allowed_fails(made: tuple[Bench, Replayed]) -> None:
    """Turned round, the model loses where it differs, and the bound proves it; what another model said is told apart."""
    place, run = made
    right = load_artifact(place.sources, place.model)
    model = right.model
    assert isinstance(model, LogisticModel)
    turned = msgspec.structs.replace(
        model, intercept=-model.intercept, weights=tuple(-weight for weight in model.weights)
    )
    wrong = msgspec.structs.replace(right, model=turned)
    digest = place.sources.blobs.put("artifact", wrong.to_bytes())
    values = values_of(run.frame, right.features.names)
    frame = run.frame.with_columns(challenger=score_rows(wrong, values), model=pl.lit(digest[:16]))
    record = judge_outcomes(place.ledger, place.sources, Log(frame), digest, start_ns=0, end_ns=1 << 62)
    found = record.body["figures"]
    assert found["verdict"] == "FAIL"
    assert found["losses"]["baseline"]["lower"] > 0.6
    assert found["model"]["auc"] < 0.5
    others = judge(place, frame.with_columns(model=pl.lit(place.model[:16]))).body["figures"]
    assert others["other_scores"] == others["logged"]
    assert others["verdict"] == "INCONCLUSIVE"


def test_too_few_prove_nothing(made: tuple[Bench, Replayed]) -> None:
    """A minute of decisions is INCONCLUSIVE, and says how many are missing; no decision at all is no record."""
    place, run = made
    frame = run.frame
    at = int(frame["ts"][5_000])
    record = judge(place, frame, start_ns=at, end_ns=at + 3 * 60_000_000_000)
    found = record.body["figures"]
    assert (found["logged"], found["verdict"]) == (3, "INCONCLUSIVE")
    assert found["losses"]["baseline"]["missing"] > 0
    records = len(list(place.ledger.records(kind=KIND)))
    with pytest.raises(InconclusiveError, match="no decision of robust"):
        judge(place, frame, start_ns=0, end_ns=1)
    with pytest.raises(InconclusiveError, match="abcdefabcdefabcd"):
        judge(place, frame.with_columns(model=pl.lit("abcdefabcdefabcd")))
    assert len(list(place.ledger.records(kind=KIND))) == records


def test_every_decision_is_in_one_count(made: tuple[Bench, Replayed]) -> None:
    """Unanswered, off the rows, beyond the data: each is counted by its reason, and none of them is judged."""
    place, run = made
    frame = run.frame.with_row_index("i")
    frame = frame.with_columns(
        outcome=pl.when(pl.col("i") < 10).then(pl.lit("timeout")).otherwise("outcome"),
        challenger=pl.when(pl.col("i") < 10).then(None).otherwise("challenger"),
        as_of=pl.when(pl.col("i").is_between(10, 19)).then(pl.col("as_of") + 1).otherwise("as_of"),
        symbol=pl.when(pl.col("i").is_between(20, 29)).then(pl.lit("OTHER")).otherwise("symbol"),
    ).drop("i")  # fmt: skip
    found = judge(place, frame).body["figures"]
    assert (found["unheard"], found["off_grid"], found["no_data"]) == (10, 10, 10)
    parts = ("unheard", "other_scores", "no_data", "off_grid", "unlabelled", "joined")
    assert sum(found[name] for name in parts) == found["logged"] == frame.height


def test_the_weakest_class_counts(made: tuple[Bench, Replayed]) -> None:
    """Data of class live make no live outcomes of decisions that no feed vouches for; one replayed row is enough."""
    place, run = made
    datasets = {place.dataset.symbol: replace(place.dataset, provenance=Provenance.LIVE)}
    assert class_of(run.frame, datasets) is Provenance.SYNTHETIC
    live = run.frame.with_columns(provenance=pl.lit("live"))
    assert class_of(live, datasets) is Provenance.LIVE
    assert class_of(forged(live, 7, "provenance", "replay"), datasets) is Provenance.REPLAY
