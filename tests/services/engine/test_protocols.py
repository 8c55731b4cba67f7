"""Other people's protocols over the one predict path."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from probatum.models.scoring import compile_scorer

ROWS = [[0.1 * i + j for i in range(7)] for j in range(3)]


@pytest.fixture(scope="module")
def model(kit: SimpleNamespace) -> Any:
    """Return (app, artifact, expected scores) of a logistic model."""
    artifact = kit.logistic_artifact()
    return kit.application(artifact)[0], artifact, [compile_scorer(artifact)(row) for row in ROWS]


def post(kit: SimpleNamespace, app: Any, path: str, body: Any) -> tuple[int, Any]:
    reply = kit.call(app, "POST", path, json.dumps(body).encode())
    return reply.status, json.loads(reply.body)


def test_tritonclient_works_unchanged(kit: SimpleNamespace, tmp_path: Path):
    """The public client in JSON mode, over a real socket: liveness, readiness, metadata, inference, and an error."""
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException

    artifact = kit.logistic_artifact()
    values = np.array(ROWS)
    with kit.running(tmp_path, {"champion": artifact}) as engine:
        client = triton.InferenceServerClient(f"{engine.host}:{engine.port}")
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("champion")
        assert client.get_server_metadata()["name"] == "probatum-engine"
        assert client.get_model_metadata("m1")["versions"] == [artifact.digest]
        tensor = triton.InferInput("features", list(values.shape), "FP64")
        tensor.set_data_from_numpy(values, binary_data=False)
        output = triton.InferRequestedOutput("score", binary_data=False)
        result = client.infer("champion", [tensor], outputs=[output], request_id="7")
        assert result.as_numpy("score").tolist() == [compile_scorer(artifact)(row) for row in ROWS]
        assert result.get_response()["id"] == "7"
        assert client.infer("m1", [tensor]).as_numpy("score").shape == (3,)
        with pytest.raises(InferenceServerException, match="no such model"):
            client.infer("nobody", [tensor], outputs=[output])
        client.close()


def test_a_tensor_may_be_flat_nested_one_row_or_one_column_a_feature(kit: SimpleNamespace, model: Any):
    """All shapes that mean the same rows give the same scores, by any of the model's names."""
    app, artifact, expected = model
    flat = [x for row in ROWS for x in row]
    base = {"name": "x", "shape": [3, 7], "datatype": "FP64"}
    columns = [
        {"name": name, "shape": [3], "datatype": "FP32", "data": [row[i] for row in ROWS]}
        for i, name in enumerate(artifact.features.names)
    ]
    for name, inputs in (
        ("m1", [{**base, "data": flat}]),
        ("champion", [{**base, "data": ROWS}]),
        (artifact.digest, columns),
        ("m1", [{**column, "shape": [3, 1]} for column in reversed(columns)]),
    ):
        status, reply = post(kit, app, f"/v2/models/{name}/infer", {"inputs": inputs})
        assert status == 200, reply
        assert reply["outputs"] == [{"name": "score", "datatype": "FP64", "shape": [3], "data": expected}]
        assert (reply["model_name"], reply["model_version"]) == ("m1", artifact.digest)
    one = {"inputs": [{**base, "shape": [7], "data": ROWS[0]}], "id": "a"}
    status, reply = post(kit, app, "/v2/models/m1/infer", one)
    assert (reply["outputs"][0]["data"], reply["id"]) == (expected[:1], "a")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"datatype": "BYTES"}, "inputs.x"),
        ({"shape": [3, 6]}, "inputs.x"),
        ({"shape": [21, 1]}, "inputs[0]"),
        ({"shape": [0, 7], "data": []}, "inputs[0].shape[0]"),
        ({"shape": [10**30, 10**30]}, "inputs.x"),
        ({"shape": [1, 3, 7]}, "inputs[0].shape"),
        ({"data": ["1"] * 21}, "inputs[0].data[0]"),
        ({"data": None}, "inputs[0].data"),
        ({"parameters": {"binary_data_size": 168}, "data": []}, "inputs.x"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(kit: SimpleNamespace, model: Any, change: Any, field: str):
    """Wrong type, shape or content names the tensor."""
    tensor = {"name": "x", "shape": [3, 7], "datatype": "FP64", "data": ROWS, **change}
    status, reply = post(kit, model[0], "/v2/models/m1/infer", {"inputs": [tensor]})
    assert (status, reply["field"]) == (422, field)


def test_unknown_outputs_and_foreign_fingerprints_are_refused(kit: SimpleNamespace, model: Any):
    """An output that does not exist and a fingerprint of another set are errors, the right fingerprint is none."""
    app, artifact, _ = model
    base = {"inputs": [{"name": "x", "shape": [3, 7], "datatype": "FP64", "data": ROWS}]}
    for extra, status in (
        ({"outputs": [{"name": "score"}]}, 200),
        ({"outputs": [{"name": "proba"}]}, 422),
        ({"parameters": {"fingerprint": artifact.features.fingerprint}}, 200),
        ({"parameters": {"fingerprint": "0" * 64}}, 422),
        ({"parameters": {"fingerprint": 5}}, 422),
    ):
        assert post(kit, app, "/v2/models/m1/infer", {**base, **extra})[0] == status


def test_the_forms_of_mlflow_give_the_same_predictions(kit: SimpleNamespace, model: Any):
    """dataframe_split (pandas writes an index), dataframe_records, instances and inputs, by rows, names or columns."""
    app, artifact, expected = model
    names = list(artifact.features.names)
    records = [dict(zip(names, row, strict=True)) for row in ROWS]
    backwards = {"columns": names[::-1], "data": [row[::-1] for row in ROWS], "index": [0, 1, 2]}
    for body in (
        {"dataframe_split": {"columns": names, "data": ROWS}},
        {"dataframe_split": backwards},
        {"dataframe_records": records},
        {"instances": ROWS},
        {"instances": records},
        {"inputs": ROWS},
        {"inputs": {name: [row[i] for row in ROWS] for i, name in enumerate(names)}},
    ):
        assert post(kit, app, "/invocations", body) == (200, {"predictions": expected})


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "body"),
        ({"instances": ROWS, "inputs": ROWS}, 422, "body"),
        ({"instances": []}, 422, "instances"),
        ({"instances": [ROWS[0][:3]]}, 422, "instances[0]"),
        ({"inputs": {}}, 422, "inputs"),
        ({"inputs": {"bias": []}}, 422, "inputs"),
        ({"inputs": {"bias": [1.0], "spread_bp": [1.0, 2.0]}}, 422, "inputs"),
        ({"dataframe_split": {"columns": ["bias"], "data": [[1.0, 2.0]]}}, 422, "dataframe_split.data[0]"),
        ({"dataframe_split": {"columns": ["bias", "bias"], "data": [[1.0, 2.0]]}}, 422, "dataframe_split.data[0]"),
        ({"dataframe_split": {"columns": ["bias"], "data": [[1.0]]}}, 422, "dataframe_split[0].mid_logret_1m"),
        ({"dataframe_records": [{"bias": 1.0, "foo": 2.0}]}, 422, "dataframe_records[0].foo"),
        ({"params": {}}, 422, "params"),
    ],
)
def test_an_invocation_that_does_not_fit_is_refused(
    kit: SimpleNamespace, model: Any, body: Any, status: int, field: str
):
    """Each misuse names the place."""
    got, reply = post(kit, model[0], "/invocations", body)
    assert (got, reply["field"]) == (status, field)
