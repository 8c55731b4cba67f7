"""Training is a pure function of stored data and inputs: that is what makes it verifiable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from probatum.core.clock import NS_PER_MINUTE
from probatum.core.errors import DataError, ParameterError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.models.artifact import LogisticModel, parse_artifact
from probatum.models.metrics import auc
from probatum.models.scoring import score_rows
from probatum.pipeline import training
from probatum.pipeline.gate import run_gate
from probatum.pipeline.predictions import read_predictions
from probatum.pipeline.training import TrainingPlan, train
from probatum.testing.fakes import MemoryLedger, MemorySources
from probatum.testing.models import toy_dataset

DATA = toy_dataset(days=6)
PLAN = TrainingPlan(symbols=("TOY",), set="robust", target="large_move@60s", model="logistic")


def test_twice_the_same_data_gives_the_same_bytes() -> None:
    """Done-when 5: two trainings on the same data have one digest, for every model."""
    for model in ("logistic", "lightgbm"):
        digests = {
            train(
                MemoryLedger(), MemorySources([toy_dataset(days=6)]), msgspec.structs.replace(PLAN, model=model)
            ).digest
            for _ in range(2)
        }
        assert len(digests) == 1


def test_the_record_is_recomputed_from_the_stored_data() -> None:
    """``figures`` trains again from the recorded inputs and comes to what the record says, library versions aside."""
    ledger, sources = MemoryLedger(), MemorySources([DATA])
    record = train(ledger, sources, PLAN).record
    assert training.figures(record.body["inputs"], sources) == record.body["figures"]
    assert record.subject == "robust-large_move-60s-logistic"
    assert record.provenance is Provenance.SYNTHETIC


def test_other_data_give_another_digest() -> None:
    """One changed close is another dataset and another artifact."""
    ledger, sources = MemoryLedger(), MemorySources([DATA])
    first = train(ledger, sources, PLAN)
    bars = DATA.bars
    assert bars is not None
    changed = replace(
        DATA,
        sha256="1" * 64,
        bars=bars.with_columns(pl.when(pl.int_range(pl.len()) == 2000).then(100.0).otherwise("close").alias("close")),
    )
    assert train(ledger, MemorySources([changed]), PLAN).digest != first.digest


def test_the_artifact_holds_what_serving_and_drift_need() -> None:
    """Names, fingerprint, split, data digest and a reference for each feature and the score, counted on training rows."""
    sources = MemorySources([DATA])
    trained = train(MemoryLedger(), sources, PLAN)
    artifact = parse_artifact(sources.blobs.get("artifact", trained.digest), expected_digest=trained.digest, place="x")
    assert artifact == trained.artifact
    assert set(artifact.reference) == {*artifact.features.names, "score"}
    assert all(sum(b.counts) + b.nan == artifact.data.rows for b in artifact.reference.values())
    assert not artifact.reference["score"].raw
    assert artifact.reference["rsi14_z"].raw
    assert artifact.data.sha256 == (DATA.sha256,)
    assert artifact.split["embargo_s"] == 3600
    assert artifact.metrics["train_auc"] > 0.55
    assert len([name for name in artifact.metrics if name.startswith("cv_auc_")]) == 5


def test_scaling_has_seen_training_rows_only() -> None:
    """Bounds, means and scales are those of the first 60 % of rows less an embargo, and the test part begins after it."""
    sources = MemorySources([DATA])
    trained = train(MemoryLedger(), sources, PLAN)
    samples, parts = training.samples_of(training.inputs_of(trained.artifact), [DATA])
    model = trained.artifact.model
    assert isinstance(model, LogisticModel)
    rows = samples.values[parts.train]
    np.testing.assert_allclose(model.lower, np.percentile(rows, 0.5, axis=0), rtol=1e-9)
    np.testing.assert_allclose(model.mean, np.clip(rows, model.lower, model.upper).mean(axis=0), rtol=1e-8, atol=1e-10)
    gap = samples.ts[parts.validate[0]] - samples.label_end[parts.train].max()
    assert gap > 60 * NS_PER_MINUTE
    assert trained.artifact.metrics["validate_auc"] == pytest.approx(
        auc(score_rows(trained.artifact, samples.values[parts.validate]), samples.label[parts.validate]), abs=1e-9
    )


def test_two_symbols_are_one_model() -> None:
    """Symbols are sorted, so their order on the command line does not matter, and both are judged."""
    data = [toy_dataset("AAA", days=3, seed=1), toy_dataset("BBB", days=3, seed=2)]
    plans = [msgspec.structs.replace(PLAN, symbols=symbols) for symbols in (("BBB", "AAA"), ("AAA", "BBB"))]
    sources, ledger = MemorySources(data), MemoryLedger()
    first, second = (train(ledger, sources, plan) for plan in plans)
    assert first.digest == second.digest
    record = run_gate(ledger, sources, first.digest)
    rows = read_predictions(sources.blobs.get("predictions", record.body["inputs"]["predictions"]), "x")
    assert set(rows.symbol) == {"AAA", "BBB"}
    assert {s["name"] for s in record.body["figures"]["slices"]["symbol"]} == {"AAA", "BBB"}


def test_levels_are_warned_of() -> None:
    """The seed's set rests on levels of price and volume; training says so, by name."""
    warnings = train(
        MemoryLedger(), MemorySources([DATA]), msgspec.structs.replace(PLAN, set="v1.8-b0", model="fixed")
    ).warnings
    assert [warning.split()[0] for warning in warnings] == ["mid", "vol1m"]


def test_a_shuffled_split_is_refused() -> None:
    """Done-when 3: shuffling is refused with the reason, and nothing is stored."""
    ledger = MemoryLedger()
    with pytest.raises(ParameterError, match="leak"):
        train(ledger, MemorySources([DATA]), msgspec.structs.replace(PLAN, shuffle=True))
    assert list(ledger.records()) == []


def test_a_gap_is_refused() -> None:
    """An unexplained hole in the data stops the training before anything is learnt."""
    bars = DATA.bars
    assert bars is not None
    holed = replace(DATA, bars=bars.filter(~pl.int_range(pl.len()).is_between(3000, 3100)))
    with pytest.raises(DataError, match="minutes inside a session"):
        train(MemoryLedger(), MemorySources([holed]), PLAN)


def test_one_label_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every training label is the same there is nothing to learn, and the message says so."""
    real = training.build_samples

    def one_label(*args: Any, **kwargs: Any) -> Any:
        samples = real(*args, **kwargs)
        return replace(samples, label=np.ones_like(samples.label))

    monkeypatch.setattr(training, "build_samples", one_label)
    with pytest.raises(DataError, match="nothing to learn"):
        train(MemoryLedger(), MemorySources([DATA]), PLAN)


def test_few_rows_warn_that_nothing_was_cross_validated() -> None:
    """Where the folds do not fit, their absence is a warning and not a silent gap."""
    bars = DATA.bars
    assert bars is not None
    short = replace(DATA, bars=bars.head(1000))
    trained = train(MemoryLedger(), MemorySources([short]), PLAN)
    assert any("no cross-validation" in warning for warning in trained.warnings)
    assert "cv_auc_5" not in trained.artifact.metrics


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"symbols": ()}, ParameterError),
        ({"symbols": ("A", "A")}, ParameterError),
        ({"name": "../x"}, ParameterError),
        ({"name": "-w"}, ParameterError),
        ({"seed": -1}, ParameterError),
        ({"symbols": ("NONE",)}, UnknownNameError),
        ({"set": "robus"}, UnknownNameError),
        ({"target": "direction@0s"}, ParameterError),
        ({"model": "logistics"}, UnknownNameError),
    ],
)
def test_unusable_plans_are_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    """Each bad field is refused by name before anything is stored."""
    ledger = MemoryLedger()
    with pytest.raises(error):
        train(ledger, MemorySources([DATA]), TrainingPlan(**{**msgspec.structs.asdict(PLAN), **changes}))
    assert list(ledger.records()) == []
