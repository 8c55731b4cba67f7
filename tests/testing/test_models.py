"""The conformance check passes every model of ours and names what each kind of bad model breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest

from probatum.core.errors import ParameterError
from probatum.models.artifact import FixedModel, PluginModel
from probatum.models.trainer import get_trainer
from probatum.testing import check_model


@pytest.mark.parametrize("name", ["logistic", "lightgbm"])
def test_our_models_conform(name: str) -> None:
    """The shipped trainers keep the promises that a user's must."""
    check_model(get_trainer(name))


def test_the_seeds_model_conforms() -> None:
    """So does the seed's fixed model, on its own columns."""
    check_model(get_trainer("fixed"), names=("bias", "mid", "rsi14"))


TICKS = count()


class Model:
    """A plugin whose parts the cases below break."""

    calls = 0

    def __init__(self, score: Any = 0.5, payload: Any = None, spoil: bool = False, drifting: bool = False) -> None:
        self.score, self.payload, self.spoil, self.drifting = score, payload or {}, spoil, drifting

    def fit(self, values: Any, label: Any, *, names: Sequence[str], seed: int) -> PluginModel:  # noqa: ARG002
        if self.spoil:
            values[0, 0] = 0.0
        self.calls += 1
        return PluginModel("mine", {"calls": self.calls} if self.drifting else self.payload)

    def scorer(self, payload: dict[str, Any]) -> Callable[[Sequence[float]], float]:  # noqa: ARG002
        return self.score if callable(self.score) else lambda row: self.score  # noqa: ARG005


def test_a_good_plugin_conforms() -> None:
    """A plugin is checked without being installed."""
    check_model(Model())


@pytest.mark.parametrize(
    ("model", "error", "promise"),
    [
        (Model(float("nan")), AssertionError, "within"),
        (Model(1.5), AssertionError, "within"),
        (Model("0.5"), AssertionError, "float"),
        (Model(lambda row: 1.0 / (2 + next(TICKS))), AssertionError, "second time"),  # noqa: ARG005
        (Model(lambda row: abs(row[0]) / 9.0), AssertionError, "within"),
        (Model(payload={"weights": float("nan")}), ParameterError, "RFC 8785"),
        (Model(payload={"f": {1: 2}}), ParameterError, "RFC 8785"),
        (Model(spoil=True), ValueError, "read-only"),
        (Model(drifting=True), AssertionError, "other bytes"),
        (object(), ParameterError, "fit"),
    ],
)
def test_broken_promises_are_named(model: Any, error: type[Exception], promise: str) -> None:
    """NaN, impossible, moving or mutating models, and payloads that are no plain data, are each refused by name."""
    with pytest.raises(error, match=promise):
        check_model(model)


def test_a_plugin_without_scorer_is_refused() -> None:
    """A trainer that returns a PluginModel must also know how to score it."""

    class Mute:
        def fit(self, values: Any, label: Any, *, names: Sequence[str], seed: int) -> PluginModel:  # noqa: ARG002
            return PluginModel("mine", {})

    with pytest.raises(AssertionError, match="scorer"):
        check_model(Mute())


def test_only_model_data_is_a_model() -> None:
    """A trainer that returns something else, however plausible, is refused."""

    class Wrong:
        def fit(self, values: Any, label: Any, *, names: Sequence[str], seed: int) -> Any:  # noqa: ARG002
            return FixedModel((1.0,)).weights

    with pytest.raises(AssertionError, match="ModelData"):
        check_model(Wrong())
