"""The seed's fixed model as an artifact, for tests and benchmarks that need some model to serve."""

from __future__ import annotations

from pathlib import Path

from probatum.core.verdict import Provenance
from probatum.features.sets import get_feature_set
from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, FixedModel, ReferenceBins


def write_seed_artifact(path: Path) -> Path:
    """Write the artifact; its scores differ from the baseline's on ordinary snapshots."""
    feature_set = get_feature_set("v1.8-b0")
    bins = ReferenceBins((0.0,), (10, 10), 0, 10, ((5, 5, 0), (5, 5, 0)))
    artifact = Artifact(
        name="v1.8-b0", model=FixedModel((-3.0, 0.00001, -0.02, 0.000001, 0.01, 0.0002)),
        features=FeatureSpec("v1.8-b0", feature_set.names, feature_set.fingerprint), target="direction@60s", grid_ns=None,
        reference=dict.fromkeys(feature_set.names, bins), split={}, seed=7, versions={}, metrics={},
        data=DataSpec(("X",), ("0" * 64,), Provenance.SYNTHETIC, 20, "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"),
    )  # fmt: skip
    path.write_bytes(artifact.to_bytes())
    return path
