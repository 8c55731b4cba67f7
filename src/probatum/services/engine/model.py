"""Hold a model that is ready to score: verified, compiled, probed, and with its counters resolved."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from probatum.models.artifact import FixedModel, LogisticModel, ModelData, PluginModel, parse_artifact, served_set
from probatum.models.scoring import compile_scorer
from probatum.services.engine.rows import in_order, snapshot_row
from probatum.services.engine.schema import PredictRequest, Row
from probatum.services.http import RequestError
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

NOT_A_NUMBER = "not_a_number"
EXCEPTION = "exception"


class ModelFailed(RequestError):
    """The model gave no score for a valid request: counted as its error, never served as a number."""


class Model:
    """Score rows with one artifact; ``reference`` is what it was asked for by: an alias, its name or digest.

    Building it refuses, before anything is served: bytes that are not their digest's (IntegrityError), an unknown
    feature set (UnknownNameError), columns or a fingerprint that this version of the set does not have, and a model
    that returns NaN (IntegrityError).
    """

    def __init__(self, data: bytes, digest: str, reference: str, registry: Registry) -> None:
        place = f"artifact {digest[:12]}"
        self.artifact = artifact = parse_artifact(data, expected_digest=digest, place=place)
        served_set(artifact.features, place)
        self.digest, self.version = digest, artifact.name
        self.alias = "" if digest.startswith(reference) or reference == artifact.name else reference
        self.names = artifact.features.names
        self.fingerprint = artifact.features.fingerprint
        self._score = compile_scorer(artifact)
        self._failed = registry.counter(metrics.MODEL_ERRORS, NOT_A_NUMBER).inc
        self._crashed = registry.counter(metrics.MODEL_ERRORS, EXCEPTION).inc
        self._extracted = registry.counter(metrics.FEATURE_EXTRACTIONS).inc
        self._gauges = (
            registry.gauge(metrics.MODEL_VERSION, self.version),
            registry.gauge(metrics.MODEL_INFO, self.version, digest, self.alias, artifact.features.set),
        )
        status: Callable[[str], Callable[..., None]] = lambda name: (  # noqa: E731
            registry.counter(metrics.PREDICT_REQUESTS, self.version, name).inc
        )
        self.succeeded, self.rejected, self.errored = status("success"), status("rejected"), status("error")
        self.observe_latency_ms = registry.histogram(metrics.PREDICT_LATENCY, self.version).observe

    @property
    def type(self) -> str:
        """Return the kind of model, in the seed's words where it had one."""
        return _type_of(self.artifact.model)

    def announce(self, served: bool) -> None:
        """Show in the gauges whether this is the model that is served."""
        for gauge in self._gauges:
            gauge.set(1.0) if served else gauge.clear()

    def score(self, row: Sequence[float], field: str = "features") -> float:
        """Return the score of a checked row; ModelFailed where the model has none."""
        try:
            score = self._score(row)
        except ArithmeticError:
            score = math.nan
        except Exception as error:
            self._crashed()
            raise ModelFailed(500, f"the model failed: {type(error).__name__}", field=field) from error
        if 0.0 <= score <= 1.0:
            return score
        self._failed()
        raise ModelFailed(
            422, "the model gives no score for these values", field=field, allowed="values it was made for"
        )

    def check_fingerprint(self, fingerprint: str) -> None:
        """Refuse features that were computed by another feature set or version of it."""
        if fingerprint != self.fingerprint:
            raise RequestError(
                422,
                "fingerprint is of another feature set",
                field="fingerprint",
                allowed=self.fingerprint,
                value=fingerprint,
            )

    def row(self, features: Row, field: str = "features") -> list[float]:
        """Return the features in the model's order, or refuse a missing, unknown or surplus one by name."""
        return in_order(features, self.names, field)

    def request_row(self, request: PredictRequest) -> Sequence[float]:
        """Return the row of a single prediction; features win over a snapshot."""
        if request.features is not None:
            return self.row(request.features)
        if request.snapshot is not None:
            row = snapshot_row(request.snapshot, self.artifact.features.set, self.names)
            self._extracted()
            return row
        raise RequestError(
            400, "features or snapshot is missing", field="features", allowed="features, snapshot or rows"
        )


def _type_of(model: ModelData) -> str:
    if isinstance(model, LogisticModel | FixedModel):
        return "logistic_regression"
    return model.entry_point if isinstance(model, PluginModel) else "lightgbm"
