"""Say what a trainer is: the one small protocol behind which every model is learnt, a user's own among them.

A trainer is a class without arguments, registered by an installed package in the entry-point group ``probatum.models``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from probatum.core.errors import ParameterError
from probatum.models.artifact import ModelData
from probatum.models.scoring import load_entry_point


@runtime_checkable
class Trainer(Protocol):
    """Learn from the training rows. The same rows and seed must give the same model, to the last bit."""

    def fit(
        self, values: NDArray[np.float64], label: NDArray[np.int8], *, names: Sequence[str], seed: int
    ) -> ModelData:
        """Return the model learnt from float64[n, k] rows and their labels (0 or 1); ``names`` are the k columns."""
        ...


@runtime_checkable
class PluginTrainer(Trainer, Protocol):
    """A trainer of a user's own: it returns a PluginModel, and turns that model's plain-data payload into a scorer."""

    def scorer(self, payload: dict[str, Any]) -> Callable[[Sequence[float]], float]:
        """Return the function that scores one row; it must give a number in [0, 1] for any finite row."""
        ...


def get_trainer(name: str) -> Trainer:
    """Return a trainer by its entry point; UnknownNameError lists the installed ones."""
    trainer = load_entry_point(name)()
    if not isinstance(trainer, Trainer):
        raise ParameterError(f"model {name}", "a class with fit(values, label, *, names, seed)", trainer)
    return trainer


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a training rests on, for the artifact."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for library in ("probatum", "numpy", "scikit-learn", "lightgbm"):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "absent"
    return found
