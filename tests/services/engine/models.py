"""Build small artifacts by hand, so that the engine's tests need no training, and a loader over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from probatum.core.errors import UnknownNameError
from probatum.core.verdict import Provenance
from probatum.features.sets import get_feature_set
from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, FixedModel, LogisticModel, ReferenceBins

SEED_WEIGHTS = (-3.0, 0.0004, -0.02, 0.00003, 0.01, 0.0002)


def _artifact(name: str, set_name: str, model: LogisticModel | FixedModel) -> Artifact:
    feature_set = get_feature_set(set_name)
    bins = ReferenceBins((-1.0, 0.0, 1.0), (10, 10, 10, 10), 0, 20, ((5, 5, 5, 5, 0), (5, 5, 5, 5, 0)))
    return Artifact(
        name=name,
        model=model,
        features=FeatureSpec(set_name, feature_set.names, feature_set.fingerprint),
        target="direction@60s",
        grid_ns=None,
        reference=dict.fromkeys(feature_set.names, bins),
        data=DataSpec(("TEST",), ("0" * 64,), Provenance.SYNTHETIC, 40, "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"),
        split={"train": 0.6},
        seed=7,
        versions={},
        metrics={},
    )


def seed_artifact() -> Artifact:
    """Return the seed's v1.8-b0."""
    return _artifact("v1.8-b0", "v1.8-b0", FixedModel(SEED_WEIGHTS))


def logistic_artifact(name: str = "robust-1", set_name: str = "robust", intercept: float = 0.1) -> Artifact:
    """Return a logistic model whose score tells the models apart by their intercept."""
    count = len(get_feature_set(set_name).names)
    weights = tuple(0.05 * (i + 1) for i in range(count))
    zeros, ones = (0.0,) * count, (1.0,) * count
    return _artifact(name, set_name, LogisticModel(intercept, weights, (-5.0,) * count, (5.0,) * count, zeros, ones))


def loader(aliases: Mapping[str, Artifact]) -> Callable[[str], tuple[str, bytes]]:
    """Return a loader that knows these aliases, and the digests of their artifacts."""

    def load(reference: str) -> tuple[str, bytes]:
        for alias, artifact in aliases.items():
            if reference in (alias, artifact.digest):
                return artifact.digest, artifact.to_bytes()
        raise UnknownNameError("model", reference, aliases)

    return load


def with_features(artifact: Artifact, **changes: object) -> Artifact:
    """Return the artifact with another feature spec."""
    return msgspec.structs.replace(artifact, features=msgspec.structs.replace(artifact.features, **changes))
