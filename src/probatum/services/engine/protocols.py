"""Speak other people's protocols: thin adapters that turn a body into rows for the one predict path, and scores back.

Open Inference Protocol v2 (KServe, Triton) in JSON, and MLflow's and SageMaker's ``/invocations``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from probatum.services.engine.decode import Decoder
from probatum.services.engine.model import Model
from probatum.services.engine.predict import Predictor
from probatum.services.engine.schema import (
    ROWS_MAX,
    InferReply,
    InferRequest,
    InferTensor,
    Invocation,
    Predictions,
    Row,
    ScoreTensor,
)
from probatum.services.http import Answer, RequestError

DATATYPES = frozenset(
    ("FP64", "FP32", "FP16", "BF16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
)
OUTPUT = "score"

_decode_infer = Decoder(InferRequest)
_decode_invocation = Decoder(Invocation)
_encode = msgspec.json.Encoder().encode


def infer(predictor: Predictor, name: str, body: bytes) -> Answer:
    """Answer ``POST /v2/models/{name}/infer``; parameter ``fingerprint`` may carry the feature set's."""
    return predictor.answer(body, partial(_infer, predictor, name))


def invoke(predictor: Predictor, body: bytes) -> Answer:
    """Answer ``POST /invocations``."""
    return predictor.answer(body, partial(_invoke, predictor))


def metadata(model: Model) -> dict[str, Any]:
    """Describe the served model in the words of the protocol."""
    return {
        "name": model.version,
        "versions": [model.digest],
        "platform": "probatum",
        "inputs": [{"name": "features", "datatype": "FP64", "shape": [-1, len(model.names)]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP64", "shape": [-1]}],
        "parameters": {"features": ",".join(model.names), "fingerprint": model.fingerprint, "alias": model.alias},
    }


def require_model(model: Model, name: str) -> None:
    """Refuse a name that is none of the served model's: its version, its alias, its digest."""
    known = [name for name in (model.version, model.alias, model.digest) if name]
    if name not in known:
        raise RequestError(404, "no such model is served", field="model", allowed=", ".join(known), value=name)


def _infer(predictor: Predictor, name: str, model: Model, body: bytes, started: int) -> bytes:
    require_model(model, name)
    request: InferRequest = _decode_infer(body)
    for output in request.outputs or ():
        if output.name != OUTPUT:
            raise RequestError(422, "no such output", field="outputs.name", allowed=OUTPUT, value=output.name)
    fingerprint = (request.parameters or {}).get("fingerprint")
    if not isinstance(fingerprint, str | None):
        raise RequestError(422, "fingerprint is not a text", field="parameters.fingerprint", allowed=model.fingerprint)
    predictor.check(model, fingerprint)
    scores, _ = predictor.score_rows(model, _tensor_rows(request.inputs, model), "inputs", started)
    tensor = ScoreTensor(OUTPUT, "FP64", [len(scores)], scores)
    return _encode(InferReply(model.version, model.digest, [tensor], request.id))


def _tensor_rows(inputs: Sequence[InferTensor], model: Model) -> Sequence[Row]:
    for tensor in inputs:
        _check_tensor(tensor)
    if len(inputs) == 1 and (len(inputs[0].shape) == 2 or len(model.names) > 1):
        shape = inputs[0].shape
        return _grid(_flat(inputs[0]), shape[-1])
    return _columns({tensor.name: _flat(tensor) for tensor in inputs}, "inputs", len(inputs))


def _check_tensor(tensor: InferTensor) -> None:
    field = f"inputs.{tensor.name}"
    if tensor.datatype not in DATATYPES:
        allowed = ", ".join(sorted(DATATYPES))
        raise RequestError(422, "datatype is not a number", field=field, allowed=allowed, value=tensor.datatype)
    if tensor.shape[0] > ROWS_MAX and len(tensor.shape) == 2:
        raise RequestError(422, "too many rows", field=field, allowed=f"at most {ROWS_MAX}", value=tensor.shape[0])
    count = 1
    for size in tensor.shape:
        count *= size
    if len(_flat(tensor)) != count:
        raise RequestError(
            422, "data and shape disagree", field=field, allowed=f"{count} values", value=len(_flat(tensor))
        )


def _flat(tensor: InferTensor) -> list[float]:
    flat: list[float] = []
    for item in tensor.data:
        flat.extend(item if isinstance(item, list) else (item,))
    return flat


def _grid(flat: list[float], width: int) -> list[Row]:
    return [flat[i : i + width] for i in range(0, len(flat), width)]


def _columns(columns: dict[str, list[float]], field: str, given: int) -> list[Row]:
    """Turn one list per feature into one object per row."""
    lengths = {len(values) for values in columns.values()}
    if len(columns) < given or len(lengths) != 1:
        raise RequestError(422, "columns differ in length, or share a name", field=field, allowed="one list a feature")
    if not 1 <= max(lengths) <= ROWS_MAX:
        raise RequestError(422, "number of rows", field=field, allowed=f"1 to {ROWS_MAX}", value=max(lengths))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _invoke(predictor: Predictor, model: Model, body: bytes, started: int) -> bytes:
    rows, field = _invocation_rows(_decode_invocation(body))
    predictor.check(model, None)
    scores, _ = predictor.score_rows(model, rows, field, started)
    return _encode(Predictions(scores))


def _invocation_rows(request: Invocation) -> tuple[Sequence[Row], str]:
    given = [name for name in request.__struct_fields__ if getattr(request, name) is not None]
    if len(given) != 1:
        raise RequestError(
            422 if given else 400, "give exactly one form", field="body", allowed=", ".join(request.__struct_fields__)
        )
    field = given[0]
    if request.dataframe_split is not None:
        return _split_rows(request.dataframe_split.columns, request.dataframe_split.data), field
    value: Any = getattr(request, field)
    return (_columns(value, field, len(value)) if isinstance(value, dict) else value), field


def _split_rows(columns: list[str], data: list[list[float]]) -> list[Row]:
    for i, row in enumerate(data):
        if len(row) != len(columns) or len(set(columns)) < len(columns):
            raise RequestError(
                422, "columns and data disagree, or a column is named twice",
                field=f"dataframe_split.data[{i}]", allowed=f"{len(columns)} values for {len(columns)} names",
            )  # fmt: skip
    return [dict(zip(columns, row, strict=True)) for row in data]
