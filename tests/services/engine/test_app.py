"""Every endpoint, and the fast path against FastAPI."""

from __future__ import annotations

import asyncio
import json
import math
from types import SimpleNamespace
from typing import Any

import pytest

PREDICT = "/ml/predict"
INFER = "/v2/models/v1.8-b0/infer"
ROW = [1.0, 45_000.0, 2.0, 1e6, 55.0, math.log1p(1e6)]
TENSOR = {"name": "x", "shape": [1, 6], "datatype": "FP64", "data": ROW}


@pytest.fixture(scope="module")
def engine(kit: SimpleNamespace) -> Any:
    """Return an engine over the seed's model."""
    return kit.application()[0]


def get(kit: SimpleNamespace, engine: Any, path: str) -> Any:
    reply = kit.call(engine, "GET", path)
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


def test_health_and_info_have_the_seeds_fields(kit: SimpleNamespace, engine: Any):
    """The seed's contract: health {ok, model, service, timestamp}, info {version, type, features, dimension}."""
    health = get(kit, engine, "/ml/health")
    assert health == {
        "ok": True, "model": "v1.8-b0", "service": "probatum-engine", "timestamp": "2024-01-01T00:00:00Z",
    }  # fmt: skip
    info = get(kit, engine, "/ml/model/info")
    artifact = kit.seed_artifact()
    assert info["version"] == "v1.8-b0"
    assert info["type"] == "logistic_regression"
    assert (len(info["features"]), info["dimension"]) == (6, 6)
    assert (info["digest"], info["alias"]) == (artifact.digest, "champion")
    assert info["fingerprint"] == artifact.features.fingerprint
    assert get(kit, engine, "/ml/ready")["ready"] is True


def test_the_open_inference_protocol_describes_the_model_under_each_of_its_names(kit: SimpleNamespace, engine: Any):
    """Server, liveness, readiness and metadata; a model that is not served is a 404 that lists what is."""
    assert get(kit, engine, "/v2")["name"] == "probatum-engine"
    assert get(kit, engine, "/v2/health/live") == {"live": True}
    assert get(kit, engine, "/v2/health/ready") == {"ready": True}
    for name in ("v1.8-b0", "champion", kit.seed_artifact().digest):
        assert get(kit, engine, f"/v2/models/{name}")["inputs"][0]["shape"] == [-1, 6]
        assert get(kit, engine, f"/v2/models/{name}/ready")["ready"] is True
    reply = kit.call(engine, "GET", "/v2/models/nobody")
    assert reply.status == 404
    assert json.loads(reply.body)["allowed"].startswith("v1.8-b0, champion")
    assert kit.call(engine, "GET", "/ping").status == 200


REQUESTS = [
    (PREDICT, {"features": ROW}, {}),
    (PREDICT, {"features": ROW}, {"content_type": "application/json; charset=utf-8"}),
    (PREDICT, {"rows": [ROW]}, {"content_type": "application/vnd.x+json"}),
    (PREDICT, {"features": ROW}, {"content_type": "text/plain"}),
    (PREDICT, {"features": ROW}, {"content_type": "application/x-www-form-urlencoded"}),
    (PREDICT, {"features": ROW}, {"content_type": "application/octet-stream\xff"}),
    (PREDICT, {"features": ROW}, {"x_nothing": "else"}),
    (PREDICT, {"features": ROW[:3]}, {}),
    (PREDICT, {}, {}),
    (PREDICT, b"", {}),
    (PREDICT, b"\x00", {}),
    (PREDICT, b"[" * 2_000_000, {}),
    (INFER, {"inputs": [TENSOR]}, {}),
    (INFER, {"inputs": []}, {}),
    (INFER, {"inputs": [{**TENSOR, "datatype": "BYTES"}]}, {}),
    ("/v2/models/nobody/infer", {"inputs": [TENSOR]}, {}),
    ("/v2/models//infer", {"inputs": [TENSOR]}, {}),
    ("/invocations", {"instances": [ROW]}, {}),
    ("/invocations", {"instances": [ROW], "inputs": [ROW]}, {}),
    ("/invocations", {"instances": [ROW]}, {"content_type": "text/csv"}),
]


@pytest.mark.parametrize(("path", "body", "headers"), REQUESTS)
def test_the_fast_path_answers_as_fastapi_does(
    kit: SimpleNamespace, engine: Any, path: str, body: Any, headers: dict[str, str]
):
    """Status, content type and body (but for the time taken) are the same by both ways, errors included."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fast, cold = (kit.call(app, "POST", path, data, **headers) for app in (engine, engine.cold))
    assert fast.status == cold.status
    assert fast.headers["content-type"] == cold.headers["content-type"] == "application/json"
    assert fast.headers["content-length"] == str(len(fast.body))
    one, two = json.loads(fast.body), json.loads(cold.body)
    assert one.pop("latency_ms", 1) > 0
    assert two.pop("latency_ms", 1) > 0
    assert one == two
    assert fast.status < 500


def test_errors_of_every_route_have_one_shape(kit: SimpleNamespace, engine: Any):
    """Unknown paths and methods, too, answer {error, …}."""
    for method, path, status in (
        ("GET", "/nope", 404), ("PUT", PREDICT, 405), ("GET", PREDICT, 405), ("POST", "/ml/health", 405), ("GET", "/ml/health/", 404),
    ):  # fmt: skip
        reply = kit.call(engine, method, path)
        assert reply.status == status
        assert set(json.loads(reply.body)) == {"error"}


def test_a_body_over_the_limit_is_refused_before_it_is_held(engine: Any):
    """Ten megabytes in pieces of 64 KiB are refused after the first megabyte: what follows is not asked for."""
    asked: list[int] = []
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        asked.append(1)
        return {"type": "http.request", "body": b" " * 65_536, "more_body": len(asked) < 160}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": PREDICT, "headers": []}
    asyncio.run(engine(scope, receive, send))
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["field"] == "body"
    assert len(asked) == 17


@pytest.mark.parametrize("path", [PREDICT, INFER, "/invocations", "/ml/model/swap"])
def test_a_client_that_leaves_is_counted_and_harms_nothing(kit: SimpleNamespace, path: str):
    """http.disconnect in the middle of a body ends the request without a reply and without an error."""
    app, _ = kit.application()
    headers = {"content-type": "application/json", "authorization": "Bearer operator"}
    for parts in ([b'{"fea'], [b'{"fea', b"tures"]):
        for each in (app, app.cold):
            reply = asyncio.run(kit.exchange(each, "POST", path, list(parts), headers, leave=True))
            assert reply.status in (None, 499)
    if path != "/ml/model/swap":
        assert b"ml_requests_abandoned_total 4" in kit.call(app, "GET", "/ml/metrics").body


def test_the_document_describes_the_bodies_by_the_structs_that_decode_them(kit: SimpleNamespace, engine: Any):
    """Each POST names a request schema and its errors; every reference in the document resolves."""
    document = get(kit, engine, "/openapi.json")
    schemas = document["components"]["schemas"]
    assert set(schemas["PredictRequest"]["properties"]) == {
        "features", "snapshot", "rows", "symbol", "fingerprint", "as_of",
    }  # fmt: skip
    assert schemas["Snapshot"]["properties"]["rsi14"]["maximum"] == 100
    text = json.dumps(document)
    for part in text.split('"$ref": "')[1:]:
        assert part.split('"')[0].removeprefix("#/components/schemas/") in schemas
    for path in (PREDICT, "/invocations", "/v2/models/{model}/infer", "/ml/model/swap"):
        post = document["paths"][path]["post"]
        assert {"200", "400", "413", "415", "422"} <= set(post["responses"])
        assert post["requestBody"]["required"] is True
