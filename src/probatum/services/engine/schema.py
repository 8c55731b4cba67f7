"""Say what goes over the wire. These structs decode the requests, and their JSON Schema stands in the OpenAPI document.

``/ml/predict`` takes one of three forms::

    {"features": [..] | {"name": ..}}                                      -> {"score", "version", "latency_ms"}
    {"snapshot": {"ts", "mid", "spreadBp", "vol1m", "rsi14"}}               -> the same; only for v1.8-b0
    {"rows": [[..] | {"name": ..}, ..]}                                    -> {"scores", "version", "latency_ms"}

each with ``symbol``, ``fingerprint`` (of the feature set) and ``as_of`` where the caller has them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

ROWS_MAX = 1024

Row = list[float] | dict[str, float]
Rows = Annotated[list[Row], Meta(min_length=1, max_length=ROWS_MAX)]
Name = Annotated[str, Meta(max_length=128)]
Parameters = dict[str, bool | int | float | str | None]


class Snapshot(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The seed's market snapshot. ``ts`` is the caller's own time stamp and is not judged; ``as_of`` is."""

    ts: float
    mid: Annotated[float, Meta(gt=0)]
    spreadBp: Annotated[float, Meta(ge=0)]
    vol1m: Annotated[float, Meta(ge=0)]
    rsi14: Annotated[float, Meta(ge=0, le=100)]


class PredictRequest(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One prediction, or a batch of them. ``features`` win over ``snapshot``; ``as_of`` is ns since 1970 or ISO 8601."""

    features: Row | None = None
    snapshot: Snapshot | None = None
    rows: Rows | None = None
    symbol: Name | None = None
    fingerprint: Name | None = None
    as_of: int | Name | None = None


class PredictReply(Struct, frozen=True, gc=False):
    """A score in [0, 1], the version that gave it, and the time it took inside the engine."""

    score: float
    version: str
    latency_ms: float


class BatchReply(Struct, frozen=True, gc=False):
    """Scores in the order of the rows."""

    scores: list[float]
    version: str
    latency_ms: float


class SwapRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What to serve: an alias, a digest, or ``previous`` for the model that was served before."""

    to: Annotated[str, Meta(min_length=1, max_length=128)]


class SwapReply(Struct, frozen=True):
    """What is served now by all workers, and what stays loaded to go back to."""

    version: str
    digest: str
    alias: str
    previous: str | None
    workers: int


class InferTensor(Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor of the Open Inference Protocol v2, row by row or nested."""

    name: Name
    shape: Annotated[list[Annotated[int, Meta(ge=1)]], Meta(min_length=1, max_length=2)]
    datatype: Name
    data: list[float | list[float]]
    parameters: Parameters | None = None


class InferOutput(Struct, frozen=True, forbid_unknown_fields=True):
    """An output that the client asks for."""

    name: Name
    parameters: Parameters | None = None


class InferRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of shape [rows, features], or one tensor of shape [rows] for each feature by name."""

    inputs: Annotated[list[InferTensor], Meta(min_length=1, max_length=ROWS_MAX)]
    id: Name | None = None
    outputs: list[InferOutput] | None = None
    parameters: Parameters | None = None


class ScoreTensor(Struct, frozen=True):
    """The scores as a tensor."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class InferReply(Struct, frozen=True, omit_defaults=True):
    """The reply of the Open Inference Protocol v2."""

    model_name: str
    model_version: str
    outputs: list[ScoreTensor]
    id: str | None = None


class DataframeSplit(Struct, frozen=True, forbid_unknown_fields=True):
    """pandas ``to_dict(orient="split")``."""

    columns: list[Name]
    data: Annotated[list[list[float]], Meta(min_length=1, max_length=ROWS_MAX)]
    index: list[int | float | str | None] | None = None


class Invocation(Struct, frozen=True, forbid_unknown_fields=True):
    """One of MLflow's forms."""

    dataframe_split: DataframeSplit | None = None
    dataframe_records: Annotated[list[dict[str, float]], Meta(min_length=1, max_length=ROWS_MAX)] | None = None
    instances: Rows | None = None
    inputs: Rows | dict[str, list[float]] | None = None


class Predictions(Struct, frozen=True):
    """Scores in the order of the rows."""

    predictions: list[float]
