"""Turn what a request gave into the row a feature set means, in its order; engine and executor refuse alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from probatum.services.engine.schema import Row, Snapshot
from probatum.services.http import RequestError

SNAPSHOT_SET = "v1.8-b0"


def in_order(features: Row, names: Sequence[str], field: str = "features") -> list[float]:
    """Return the features in the order of ``names``, or refuse a missing, unknown or surplus one by name (422)."""
    if len(features) == len(names):
        if type(features) is list:
            return features
        try:
            return [features[name] for name in names]  # type: ignore[call-overload]
        except KeyError:
            pass
    allowed = ", ".join(names)
    if not isinstance(features, dict):
        raise RequestError(
            422, f"{field} must have {len(names)} values, got {len(features)}", field=field, allowed=allowed
        )
    unknown = [(name, "not a feature of this model") for name in features if name not in names]
    name, problem = (unknown + [(name, "missing") for name in names if name not in features])[0]
    raise RequestError(422, f"{field}.{name} is {problem}", field=f"{field}.{name}", allowed=allowed)


def snapshot_row(snapshot: Snapshot, set_name: str, names: Sequence[str]) -> list[float]:
    """Return the seed's vector of a snapshot; only a whole ``v1.8-b0`` can be computed from one alone (else 422)."""
    if set_name != SNAPSHOT_SET or len(names) != 6:
        raise RequestError(
            422, f"a snapshot serves only {SNAPSHOT_SET}; this model needs the features of {set_name!r}",
            field="snapshot", allowed="features: " + ", ".join(names),
        )  # fmt: skip
    volume = snapshot.vol1m
    return [1.0, snapshot.mid, snapshot.spreadBp, volume, snapshot.rsi14, math.log1p(volume)]
