"""Train a logistic regression whose scaling and winsorising live in the artifact, so that serving needs no pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from probatum.models.artifact import LogisticModel

WINSORISE_PERCENT = (0.5, 99.5)
C = 1.0
_DIGITS = 10


class LogisticTrainer:
    """Fit L2-penalised logistic regression (C = 1) on clipped and standardised columns.

    The objective is strictly convex, so its one optimum does not depend on the solver. Newton's method finds it to
    rounding within a few steps; parameters are then kept to ten digits, which makes the bytes of the artifact the same
    on machines whose linear algebra rounds differently.
    """

    def fit(
        self,
        values: NDArray[np.float64],
        label: NDArray[np.int8],
        *,
        names: Sequence[str],  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> LogisticModel:
        """Return the fitted model; see :class:`probatum.models.trainer.Trainer`."""
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        lower, upper = _short(np.percentile(values, WINSORISE_PERCENT, axis=0))
        clipped = np.clip(values, lower, upper)
        mean, deviation = _short(clipped.mean(axis=0)), _short(clipped.std(axis=0))
        scale = np.where(deviation > 0.0, deviation, 1.0)
        with threadpool_limits(1):
            fitted = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=100).fit(
                (clipped - mean) / scale, label
            )
        return LogisticModel(
            intercept=float(_short(fitted.intercept_)[0]),
            weights=tuple(_short(fitted.coef_[0]).tolist()),
            lower=tuple(lower.tolist()),
            upper=tuple(upper.tolist()),
            mean=tuple(mean.tolist()),
            scale=tuple(scale.tolist()),
        )


def _short(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to ten significant digits."""
    return np.array([float(f"{value:.{_DIGITS}g}") for value in values.ravel()]).reshape(values.shape)
