"""Trainers are deterministic and say what they learnt; scikit-learn and LightGBM are their own oracles."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from probatum.core.canonical import canonical_json
from probatum.core.errors import MissingExtraError, ParameterError, UnknownNameError
from probatum.features.sets import FEATURE_SETS
from probatum.models import trainer as trainer_module
from probatum.models.fixed import FixedTrainer
from probatum.models.logistic import LogisticTrainer
from probatum.models.trainer import get_trainer
from probatum.models.trees import TreesTrainer

NAMES = ("a", "b", "c", "constant")


def market(n: int = 4000) -> tuple[Any, Any]:
    rng = np.random.default_rng(11)
    values = np.column_stack([rng.standard_t(3, size=n), rng.normal(100.0, 5.0, n), rng.normal(size=n), np.ones(n)])
    label = (values[:, 0] + 0.1 * (values[:, 1] - 100.0) + rng.normal(size=n) > 0).astype(np.int8)
    return values, label


@pytest.mark.parametrize("name", ["logistic", "lightgbm"])
def test_training_twice_gives_the_same_bytes(name: str) -> None:
    """The same rows and seed give the same model, to the last byte."""
    values, label = market()
    once, twice = (get_trainer(name).fit(values, label, names=NAMES, seed=7) for _ in range(2))
    assert canonical_json(msgspec.to_builtins(once)) == canonical_json(msgspec.to_builtins(twice))


def test_logistic_agrees_with_another_solver() -> None:
    """The optimum is the one that L-BFGS finds on the same clipped and standardised columns."""
    values, label = market()
    model = LogisticTrainer().fit(values, label, names=NAMES, seed=7)
    scaled = (np.clip(values, model.lower, model.upper) - np.array(model.mean)) / np.array(model.scale)
    other = LogisticRegression(C=1.0, solver="lbfgs", tol=1e-10, max_iter=10_000).fit(scaled, label)
    np.testing.assert_allclose(model.weights, other.coef_[0], atol=1e-6)
    assert model.intercept == pytest.approx(other.intercept_[0], abs=1e-6)


def test_scaling_comes_from_the_training_rows() -> None:
    """Bounds are the 0.5 and 99.5 percentiles, columns have mean 0 and deviation 1, and a constant has no weight."""
    values, label = market()
    model = LogisticTrainer().fit(values, label, names=NAMES, seed=7)
    np.testing.assert_allclose(model.lower[:3], np.percentile(values[:, :3], 0.5, axis=0))
    np.testing.assert_allclose(model.upper[:3], np.percentile(values[:, :3], 99.5, axis=0))
    scaled = (np.clip(values, model.lower, model.upper) - np.array(model.mean)) / np.array(model.scale)
    np.testing.assert_allclose(scaled.std(axis=0), [1.0, 1.0, 1.0, 0.0], atol=1e-9)
    assert model.weights[3] == 0.0


def test_fixed_takes_the_weights_of_the_variant() -> None:
    """Bars without spread or volume get the seed's weights of the columns that are left, by name."""
    values, label = market(4)
    names = FEATURE_SETS["v1.8-b0"].variant(frozenset({"volume"})).names
    assert names == ("bias", "mid", "vol1m", "rsi14", "log_vol1m")
    assert FixedTrainer().fit(values, label, names=names, seed=7).weights == (-3.0, 0.0004, 0.00003, 0.01, 0.0002)
    with pytest.raises(UnknownNameError, match="tod_sin"):
        FixedTrainer().fit(values, label, names=("tod_sin",), seed=7)


@pytest.mark.parametrize(("error", "hint"), [(OSError("libgomp.so.1"), "libgomp1"), (ImportError(), "not installed")])
def test_missing_lightgbm_says_what_to_install(error: Exception, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, or without libgomp, LightGBM asks for it; nothing else is touched."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "lightgbm":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    values, label = market(50)
    with pytest.raises(MissingExtraError, match=hint) as caught:
        TreesTrainer().fit(values, label, names=NAMES, seed=7)
    assert caught.value.exit_code == 2


def test_unknown_trainer_lists_the_installed() -> None:
    """A model name that no package registers is refused with the known ones."""
    with pytest.raises(UnknownNameError, match="fixed, lightgbm, logistic"):
        get_trainer("logistics")


def test_a_class_that_is_no_trainer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point that does not have ``fit`` is refused before training starts."""
    monkeypatch.setattr(trainer_module, "load_entry_point", lambda name: dict)  # noqa: ARG005
    with pytest.raises(ParameterError, match="fit"):
        get_trainer("mine")
