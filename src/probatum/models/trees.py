"""Train a LightGBM model and keep it as LightGBM's own text, compiled to code where it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probatum.core.errors import MissingExtraError
from probatum.models.artifact import TreesModel

ROUNDS = 100
PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 31,
    "learning_rate": 0.05,
    "min_data_in_leaf": 100,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}


class TreesTrainer:
    """Fit 100 trees of 31 leaves, deterministic and on one thread.

    Leaves hold at least 100 rows: the signal in market data is weak and small leaves learn noise.
    """

    def fit(
        self, values: NDArray[np.float64], label: NDArray[np.int8], *, names: Sequence[str], seed: int
    ) -> TreesModel:
        """Return the fitted model; see :class:`probatum.models.trainer.Trainer`."""
        lightgbm = load_lightgbm()
        # Columns are numbered: LightGBM's text must not depend on what the features are called.
        columns = [f"f{i}" for i in range(len(names))]
        data = lightgbm.Dataset(np.ascontiguousarray(values), label, feature_name=columns)
        booster = lightgbm.train({**PARAMETERS, "seed": seed}, data, ROUNDS)
        return TreesModel(booster.model_to_string())


def load_lightgbm() -> Any:
    """Import LightGBM, or say what is missing: the extra, or the system's libgomp that its wheel needs."""
    try:
        import lightgbm
    except ImportError:
        raise MissingExtraError("trees", "LightGBM is not installed") from None
    except OSError as error:
        reason = f"LightGBM is installed but its library does not load ({error}); on Debian: apt-get install libgomp1"
        raise MissingExtraError("trees", reason) from None
    return lightgbm
