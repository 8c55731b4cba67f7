"""Hold a trained model as plain data, named by the digest of its bytes. No pickle: reading one cannot run code."""

from __future__ import annotations

from typing import Any

import msgspec

from probatum.core.canonical import canonical_json, sha256_hex
from probatum.core.errors import IntegrityError
from probatum.core.verdict import Provenance
from probatum.features.sets import FeatureSet, get_feature_set

SCHEMA = "probatum.artifact/1"


class LogisticModel(msgspec.Struct, frozen=True, tag="logistic"):
    """Score = sigmoid(intercept + Σ weight·(clip(x, lower, upper) − mean)/scale), features in artifact order."""

    intercept: float
    weights: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]


class FixedModel(msgspec.Struct, frozen=True, tag="fixed"):
    """Score = sigmoid(Σ weight·x), clipped to [1e-6, 1 − 1e-6]: the seed's v1.8-b0."""

    weights: tuple[float, ...]


class TreesModel(msgspec.Struct, frozen=True, tag="lightgbm"):
    """Hold LightGBM's own text format; compiled to code where it is loaded."""

    text: str


class PluginModel(msgspec.Struct, frozen=True, tag="plugin"):
    """Hold a user's model: the entry point in group ``probatum.models`` that loads it, and its plain-data payload."""

    entry_point: str
    payload: dict[str, Any]


ModelData = LogisticModel | FixedModel | TreesModel | PluginModel


class FeatureSpec(msgspec.Struct, frozen=True):
    """Name the feature set, the columns in order, and the fingerprint that serving must present."""

    set: str
    names: tuple[str, ...]
    fingerprint: str


class ReferenceBins(msgspec.Struct, frozen=True):
    """Freeze one column's distribution in the training window.

    ``edges`` are the B − 1 inner edges of B open-ended bins; ``counts`` has B entries and ``nan`` its own.
    ``block_counts`` holds the same counts (B + 1 entries, NaN last) for consecutive blocks of ``block_rows`` rows, from
    which the null distribution of a window is drawn. ``raw`` marks columns that count in the overall PSI.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    nan: int
    block_rows: int
    block_counts: tuple[tuple[int, ...], ...]
    raw: bool = True


class DataSpec(msgspec.Struct, frozen=True):
    """Name the data a model was trained on; times are ISO 8601 UTC."""

    symbols: tuple[str, ...]
    sha256: tuple[str, ...]
    provenance: Provenance
    rows: int
    start: str
    end: str


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """Hold everything that scoring, drift and verification need, and nothing that changes between two equal trainings."""

    schema: str = SCHEMA
    name: str
    model: ModelData
    features: FeatureSpec
    target: str
    grid_ns: int | None
    reference: dict[str, ReferenceBins]
    data: DataSpec
    split: dict[str, Any]
    seed: int
    versions: dict[str, str]
    metrics: dict[str, float]

    def to_bytes(self) -> bytes:
        """Return the canonical bytes; their SHA-256 is the artifact's digest."""
        return canonical_json(msgspec.to_builtins(self))

    @property
    def digest(self) -> str:
        """Return the content address, 64 hex digits."""
        return sha256_hex(self.to_bytes())


def parse_artifact(data: bytes, *, expected_digest: str | None, place: str) -> Artifact:
    """Read an artifact and verify that its bytes are the ones its digest names.

    Raises IntegrityError, naming ``place``, when a byte was changed or a field is missing or of the wrong type.
    """
    if expected_digest is not None and sha256_hex(data) != expected_digest:
        raise IntegrityError(place, f"digest is {sha256_hex(data)[:12]}…, the record says {expected_digest[:12]}…")
    try:
        artifact = msgspec.json.decode(data, type=Artifact)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(place, f"not an artifact: {error}") from None
    names = artifact.features.names
    if not names or len(set(names)) != len(names):
        raise IntegrityError(place, "features must be at least one, each named once")
    if artifact.schema != SCHEMA:
        raise IntegrityError(place, f"schema is {artifact.schema!r}, this version reads {SCHEMA!r}")
    return artifact


def served_set(spec: FeatureSpec, place: str) -> FeatureSet:
    """Return the feature set of an artifact's columns, as this version computes it: the same names mean the same numbers.

    Raises UnknownNameError for a set that does not exist, and IntegrityError for other columns or another fingerprint.
    """
    known = get_feature_set(spec.set)
    found = msgspec.structs.replace(known, features=tuple(item for item in known.features if item.name in spec.names))
    if found.names != spec.names:
        raise IntegrityError(place, f"columns are {', '.join(spec.names)}; {spec.set} has {', '.join(known.names)}")
    if found.fingerprint != spec.fingerprint:
        raise IntegrityError(place, f"fingerprint is of another version of feature set {spec.set!r}; train it anew")
    return found
