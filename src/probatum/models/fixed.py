"""Hold the seed's v1.8-b0: weights that nobody trained. It is tried first, and the gate shows why it must be refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from probatum.core.errors import UnknownNameError
from probatum.models.artifact import FixedModel

WEIGHTS: dict[str, float] = {
    "bias": -3.0,
    "mid": 0.0004,
    "spread_bp": -0.02,
    "vol1m": 0.00003,
    "rsi14": 0.01,
    "log_vol1m": 0.0002,
}


class FixedTrainer:
    """Take the seed's weights by name, for the columns that the data support; nothing is learnt."""

    def fit(
        self,
        values: NDArray[np.float64],  # noqa: ARG002
        label: NDArray[np.int8],  # noqa: ARG002
        *,
        names: Sequence[str],
        seed: int,  # noqa: ARG002
    ) -> FixedModel:
        """Return the weights of ``names``; UnknownNameError where the set is not v1.8-b0."""
        for name in names:
            if name not in WEIGHTS:
                raise UnknownNameError("v1.8-b0 feature", name, WEIGHTS)
        return FixedModel(tuple(WEIGHTS[name] for name in names))
