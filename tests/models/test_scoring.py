"""Scoring code is generated, so it is held to oracles: numpy formulas, LightGBM itself, and the row-by-row path."""

from __future__ import annotations

import sys
from subprocess import run

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from probatum.core.errors import IntegrityError, UnknownNameError
from probatum.core.verdict import Provenance
from probatum.models.artifact import (
    Artifact,
    DataSpec,
    FeatureSpec,
    FixedModel,
    LogisticModel,
    ModelData,
    PluginModel,
    ReferenceBins,
    TreesModel,
)
from probatum.models.scoring import compile_scorer, score_rows
from probatum.models.treecode import forest_source, parse_forest


def artifact(model: ModelData, names: tuple[str, ...], edges: tuple[float, ...] = (-1.0, 0.0, 1.0)) -> Artifact:
    bins = ReferenceBins(edges, (1,) * (len(edges) + 1), 0, 1, ((1,) * (len(edges) + 2),))
    return Artifact(
        name="test",
        model=model,
        features=FeatureSpec("robust", names, "00"),
        target="direction@60s",
        grid_ns=None,
        reference=dict.fromkeys((*names, "score"), bins),
        data=DataSpec(("X",), ("00",), Provenance.SYNTHETIC, 1, "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        split={},
        seed=7,
        versions={},
        metrics={},
    )


def logistic(k: int, rng: np.random.Generator) -> LogisticModel:
    return LogisticModel(
        0.3,
        tuple(rng.normal(size=k).tolist()),
        (-2.0,) * k,
        (2.0,) * k,
        tuple(rng.normal(size=k).tolist()),
        tuple(rng.uniform(0.5, 2.0, size=k).tolist()),
    )


def bits(values: NDArray[np.float64]) -> bytes:
    return values.astype("<f8").tobytes()


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 9))
def test_rows_and_single_row_agree_bitwise(seed: int, k: int) -> None:
    """score_rows gives bit for bit what the compiled scorer gives row by row, for logistic and fixed models."""
    rng = np.random.default_rng(seed)
    values = rng.normal(scale=3.0, size=(40, k))
    for model in (logistic(k, rng), FixedModel(tuple(rng.normal(size=k).tolist()))):
        subject = artifact(model, tuple(f"f{i}" for i in range(k)))
        scorer = compile_scorer(subject)
        assert bits(score_rows(subject, values)) == bits(np.array([scorer(row) for row in values.tolist()]))


def test_logistic_follows_its_formula() -> None:
    """The generated code is sigmoid(intercept + Σ w·(clip(x) − mean)/scale), to rounding."""
    rng = np.random.default_rng(1)
    model = logistic(5, rng)
    values = rng.normal(scale=3.0, size=(1000, 5))
    z = model.intercept + ((np.clip(values, -2, 2) - np.array(model.mean)) / np.array(model.scale)) @ np.array(
        model.weights
    )
    np.testing.assert_allclose(score_rows(artifact(model, tuple("abcde")), values), 1 / (1 + np.exp(-z)), rtol=1e-12)


def test_seed_weights_saturate_on_bitcoin_prices() -> None:
    """The seed's raw weights on a Bitcoin-like row give 0.999999, always: the flaw that the gate must see."""
    names = ("bias", "mid", "spread_bp", "vol1m", "rsi14", "log_vol1m")
    model = FixedModel((-3.0, 0.0004, -0.02, 0.00003, 0.01, 0.0002))
    scorer = compile_scorer(artifact(model, names))
    assert scorer([1.0, 42_000.0, 1.0, 1.2e6, 55.0, 14.0]) == 0.999999
    assert scorer([1.0, 0.0, 1e9, 0.0, 0.0, 0.0]) == 1e-6


@pytest.mark.parametrize(
    "options", [{}, {"zero_as_missing": True}, {"use_missing": False}, {"num_leaves": 200, "min_data_in_leaf": 2}]
)
def test_generated_trees_are_exact(options: dict[str, object]) -> None:
    """Generated code equals LightGBM's predict on every row, with NaN, zeros and infinities among the values."""
    lightgbm = pytest.importorskip("lightgbm", exc_type=OSError)
    rng = np.random.default_rng(3)
    values = rng.normal(size=(6000, 8))
    values[rng.random(values.shape) < 0.05] = np.nan
    values[rng.random(values.shape) < 0.05] = 0.0
    values[rng.random(values.shape) < 0.01] = np.inf
    label = (np.nan_to_num(values[:, 0], posinf=1.0) * 2 + rng.normal(size=6000) > 0).astype(int)
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 1, "deterministic": True, **options}
    booster = lightgbm.train(parameters, lightgbm.Dataset(values[:3000], label[:3000]), 60)
    subject = artifact(TreesModel(booster.model_to_string()), tuple("abcdefgh"))
    assert bits(score_rows(subject, values)) == bits(booster.predict(values))


DEEP_NODES = 300


def tree_text(**changes: str) -> str:
    """Write a LightGBM text whose one tree is a chain, deeper than Python allows code to be nested."""
    n = DEEP_NODES
    fields = {
        "num_leaves": str(n + 1),
        "num_cat": "0",
        "split_feature": " ".join(["0"] * n),
        "threshold": " ".join(str(float(i)) for i in range(n)),
        "decision_type": " ".join(["8"] * n),
        "left_child": " ".join(str(-i - 1) for i in range(n)),
        "right_child": " ".join([*(str(i + 1) for i in range(n - 1)), str(-n - 1)]),
        "leaf_value": " ".join(str(i / 100) for i in range(n + 1)),
        "is_linear": "0",
    } | {key: value for key, value in changes.items() if key not in HEADER}
    header = "".join(f"{key}={changes.get(key, value)}\n" for key, value in HEADER.items())
    return f"tree\n{header}\nTree=0\n" + "".join(f"{k}={v}\n" for k, v in fields.items()) + "\nend of trees\n"


HEADER = {
    "version": "v4",
    "num_class": "1",
    "num_tree_per_iteration": "1",
    "max_feature_idx": "0",
    "objective": "binary sigmoid:1",
}


def test_a_forest_that_found_no_split_is_exact() -> None:
    """Trees of a single leaf, which LightGBM grows where nothing can be learnt, score as LightGBM does."""
    lightgbm = pytest.importorskip("lightgbm", exc_type=OSError)
    values, label = np.ones((200, 2)), np.arange(200) % 3 == 0
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(values, label), 3)
    subject = artifact(TreesModel(booster.model_to_string()), ("a", "b"))
    assert bits(score_rows(subject, values)) == bits(booster.predict(values))


def test_deep_trees_compile() -> None:
    """A chain of 300 nested splits, more than Python's parser takes, still compiles and answers right."""
    scorer = compile_scorer(artifact(TreesModel(tree_text()), ("a",)))
    for x in (-1.0, 0.5, 41.5, 150.5, 298.5, 1000.0):
        leaf = min(int(np.ceil(max(x, 0.0))), DEEP_NODES) / 100
        assert scorer([x]) == pytest.approx(1 / (1 + np.exp(-leaf)), abs=1e-15)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_class": "3"}, "one class"),
        ({"objective": "regression"}, "binary"),
        ({"objective": "binary sigmoid:nan"}, "slope"),
        ({"objective": "binary sigmoid:__import__('os')"}, "not a number"),
        ({"max_feature_idx": "4"}, "features of its artifact"),
        ({"num_cat": "1"}, "categorical"),
        ({"is_linear": "1"}, "linear"),
        ({"leaf_value": "1 2"}, "lengths"),
        ({"threshold": " ".join(["x"] * DEEP_NODES)}, "not a number"),
        ({"split_feature": " ".join(["7"] * DEEP_NODES)}, "feature index"),
        ({"left_child": " ".join(["0"] * DEEP_NODES)}, "form a tree"),
        ({"decision_type": " ".join(["1"] * DEEP_NODES)}, "kind of split"),
        ({"leaf_value": " ".join(["nan"] * (DEEP_NODES + 1))}, "not a number"),
    ],
)
def test_unfit_tree_texts_are_refused(changes: dict[str, str], problem: str) -> None:
    """A tree text that could not be answered exactly, or is hostile, is refused by name and never becomes code."""
    with pytest.raises(IntegrityError, match=problem):
        compile_scorer(artifact(TreesModel(tree_text(**changes)), ("a",)))


def test_truncated_text_is_refused() -> None:
    """A text cut off anywhere is an IntegrityError, not a crash."""
    whole = tree_text()
    for size in [*range(0, len(whole), 97), whole.index("end of trees")]:
        with pytest.raises(IntegrityError):
            parse_forest(whole[:size], 1)


def test_only_numbers_enter_the_code() -> None:
    """Names of an artifact, however hostile, do not reach the generated source."""
    subject = artifact(FixedModel((1.0,)), ("x0: __import__('os').abort()",))
    assert compile_scorer(subject)([0.0]) == 0.5
    assert "import" not in forest_source(parse_forest(tree_text(), 1), 1)


@pytest.mark.parametrize(
    "model",
    [
        LogisticModel(0.0, (1.0,), (0.0,), (1.0,), (0.0,), (0.0,)),
        LogisticModel(0.0, (1.0,), (2.0,), (1.0,), (0.0,), (1.0,)),
        LogisticModel(float("nan"), (1.0,), (0.0,), (1.0,), (0.0,), (1.0,)),
        LogisticModel(0.0, (1.0, 2.0), (0.0,), (1.0,), (0.0,), (1.0,)),
        FixedModel((1.0, 2.0)),
        FixedModel((float("inf"),)),
    ],
)
def test_unfit_parameters_are_refused(model: ModelData) -> None:
    """Parameters that do not fit the features, or are no numbers, are refused before any code is made."""
    with pytest.raises(IntegrityError):
        compile_scorer(artifact(model, ("a",)))


class _Plugin:
    def __init__(self, score: float) -> None:
        self.score = score

    def scorer(self, payload: dict[str, object]) -> object:  # noqa: ARG002
        return lambda row: self.score  # noqa: ARG005


@pytest.mark.parametrize("score", [float("nan"), 1.5, -0.1, None])
def test_a_model_with_impossible_scores_is_refused_at_load(score: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin whose scores are NaN, outside [0, 1] or not numbers is refused when it is loaded."""
    monkeypatch.setattr("probatum.models.scoring.load_entry_point", lambda name: lambda: _Plugin(score))  # noqa: ARG005
    with pytest.raises(IntegrityError, match="probe row"):
        compile_scorer(artifact(PluginModel("mine", {}), ("a",)))


def test_a_plugin_that_cannot_read_its_payload_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a user's code raises while it makes a scorer becomes an error of ours that names the plugin."""
    monkeypatch.setattr("probatum.models.scoring.load_entry_point", lambda name: dict)  # noqa: ARG005
    with pytest.raises(IntegrityError, match="plugin mine"):
        compile_scorer(artifact(PluginModel("mine", {}), ("a",)))


def test_unknown_plugin_names_the_known() -> None:
    """An artifact of a plugin that is not installed says which models are."""
    with pytest.raises(UnknownNameError, match="logistic"):
        compile_scorer(artifact(PluginModel("no-such", {}), ("a",)))


def test_wrong_shape_is_refused() -> None:
    """Rows of another width than the model's are refused."""
    with pytest.raises(IntegrityError, match="shape"):
        score_rows(artifact(FixedModel((1.0,)), ("a",)), np.zeros((3, 2)))


def test_artifact_survives_its_bytes() -> None:
    """Decoding an artifact's bytes and scoring again gives the same bits."""
    subject = artifact(logistic(3, np.random.default_rng(5)), ("a", "b", "c"))
    again = msgspec.json.decode(subject.to_bytes(), type=Artifact)
    row = [0.1, -0.7, 1.9]
    assert compile_scorer(again)(row) == compile_scorer(subject)(row)


def test_scoring_imports_nothing_heavy() -> None:
    """The engine may import the scorer: numpy, numba, scikit-learn and LightGBM stay out."""
    code = (
        "import sys, probatum.models.scoring, probatum.models.artifact; "
        "assert not {'numpy', 'numba', 'sklearn', 'lightgbm', 'scipy', 'polars'} & set(sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0
