"""Serve the engine over HTTP: a raw-ASGI fast path for the hot POSTs, FastAPI for everything else and the document.

The fast path and FastAPI's route call the same function with the same bytes; a test holds their answers equal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from probatum import __version__
from probatum.core.clock import format_utc
from probatum.core.errors import ProbatumError
from probatum.services.auth import Role, Tokens
from probatum.services.engine import protocols, schema
from probatum.services.engine.decode import Decoder
from probatum.services.engine.predict import Predictor
from probatum.services.engine.swap import Swapper
from probatum.services.http import (
    Answer,
    ErrorBody,
    Receive,
    RequestError,
    Scope,
    Send,
    error_body,
    read_body,
    refusal,
    reply,
    require_json,
)
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import CONTENT_TYPE, Registry

SERVICE = "probatum-engine"
V2_PREFIX = "/v2/models/"
V2_SUFFIX = "/infer"

_log = logging.getLogger("probatum.engine")
_decode_swap = Decoder(schema.SwapRequest)

Handler = Callable[[bytes], Answer]


class EngineApp:
    """The ASGI application: hot paths by table, the rest by FastAPI (``cold``)."""

    def __init__(self, predictor: Predictor, registry: Registry, swapper: Swapper, tokens: Tokens) -> None:
        self._predictor = predictor
        self._abandoned = registry.counter(metrics.REQUESTS_ABANDONED).inc
        self._hot: dict[str, Handler] = {
            "/ml/predict": predictor.predict,
            "/invocations": partial(protocols.invoke, predictor),
        }
        self.cold = _fastapi(predictor, registry, swapper, tokens, self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            handler = self._hot.get(scope["path"]) or self._infer(scope["path"])
            if handler is not None:
                answer = await self.answer(handler, scope, receive)
                if answer is not None:
                    await reply(send, *answer)
                return
        await self.cold(scope, receive, send)

    async def answer(self, handler: Handler, scope: Scope, receive: Receive) -> Answer | None:
        """Read and answer one request; None when its client has left."""
        try:
            require_json(scope["headers"])
            body = await read_body(receive)
        except RequestError as error:
            self._predictor.model.rejected()
            return refusal(error)
        if body is None:
            self._abandoned()
            return None
        return handler(body)

    def _infer(self, path: str) -> Handler | None:
        if not (path.startswith(V2_PREFIX) and path.endswith(V2_SUFFIX)):
            return None
        name = path[len(V2_PREFIX) : -len(V2_SUFFIX)]
        return None if "/" in name or not name else partial(protocols.infer, self._predictor, name)


def _fastapi(predictor: Predictor, registry: Registry, swapper: Swapper, tokens: Tokens, fast: EngineApp) -> FastAPI:
    app = FastAPI(
        title="Probatum prediction engine", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ProbatumError, _our_error)
    app.add_exception_handler(Exception, _internal_error)
    _cold_routes(app, predictor, registry)
    _protocol_routes(app, predictor)
    _swap_route(app, swapper, tokens)

    async def twin(request: Request, handler: Handler) -> Response:
        answer = await fast.answer(handler, request.scope, request.receive)
        return Response(status_code=499) if answer is None else _json(answer[1], answer[0])

    @app.post("/ml/predict", **_documented("predict", schema.PredictRequest, schema.PredictReply, schema.BatchReply))
    async def predict(request: Request) -> Response:
        return await twin(request, predictor.predict)

    @app.post("/v2/models/{model}/infer", **_documented("infer", schema.InferRequest, schema.InferReply, unknown=True))
    async def infer(request: Request, model: str) -> Response:
        return await twin(request, partial(protocols.infer, predictor, model))

    @app.post("/invocations", **_documented("invocations", schema.Invocation, schema.Predictions))
    async def invocations(request: Request) -> Response:
        return await twin(request, partial(protocols.invoke, predictor))

    document = partial(_document, app.openapi)
    app.openapi = document  # type: ignore[method-assign]
    return app


def _cold_routes(app: FastAPI, predictor: Predictor, registry: Registry) -> None:
    @app.get("/ml/health")
    async def health() -> dict[str, Any]:
        """Say that the process answers, and with which model."""
        timestamp = format_utc(predictor.clock.now_ns())
        return {"ok": True, "model": predictor.model.version, "service": SERVICE, "timestamp": timestamp}

    @app.get("/ml/ready")
    async def ready() -> dict[str, Any]:
        """Say that a verified model is loaded; the port opens only then."""
        return {"ready": True, "model": predictor.model.version, "digest": predictor.model.digest}

    @app.get("/ml/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def exposition() -> Response:
        """Return the metrics of all workers as Prometheus text."""
        return Response(registry.expose(), headers={"content-type": CONTENT_TYPE.decode()})

    @app.get("/ml/model/info")
    async def info() -> dict[str, Any]:
        """Describe the served model: what it is called, what it needs, and which bytes it is."""
        model = predictor.model
        return {
            "version": model.version,
            "type": model.type,
            "features": list(model.names),
            "dimension": len(model.names),
            "digest": model.digest,
            "alias": model.alias,
            "fingerprint": model.fingerprint,
            "feature_set": model.artifact.features.set,
            "target": model.artifact.target,
            "previous": predictor.previous.digest if predictor.previous else None,
        }

    @app.get("/ping")
    async def ping() -> Response:
        """Answer MLflow's and SageMaker's health check."""
        return _json(b"{}")


def _protocol_routes(app: FastAPI, predictor: Predictor) -> None:
    unknown: Any = {404: _error_response("No such model.")}

    @app.get("/v2")
    async def server() -> dict[str, Any]:
        """Describe the server, as the Open Inference Protocol asks."""
        return {"name": SERVICE, "version": __version__, "extensions": []}

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v2/models/{model}", responses=unknown)
    async def metadata(model: str) -> dict[str, Any]:
        """Describe the served model's tensors."""
        protocols.require_model(predictor.model, model)
        return protocols.metadata(predictor.model)

    @app.get("/v2/models/{model}/ready", responses=unknown)
    async def model_ready(model: str) -> dict[str, Any]:
        """Say that the named model is served."""
        protocols.require_model(predictor.model, model)
        return {"name": predictor.model.version, "ready": True}


def _swap_route(app: FastAPI, swapper: Swapper, tokens: Tokens) -> None:
    extra: dict[int | str, Any] = {401: _error_response("No token."), 403: _error_response("A token without the role."),
             409: _error_response("Another swap is under way."), 503: _error_response("Not all workers could follow.")}  # fmt: skip

    @app.post("/ml/model/swap", **_documented("swap", schema.SwapRequest, schema.SwapReply, extra=extra))
    async def swap(request: Request) -> Response:
        """Serve another model in all workers; needs a token with role operate."""
        authorization = request.headers.get("authorization")
        tokens.require(authorization.encode() if authorization else None, Role.OPERATE)
        require_json(request.scope["headers"])
        body = await read_body(request.receive)
        if body is None:
            return Response(status_code=499)
        done = await swapper.swap(_decode_swap(body).to)
        return _json(msgspec.json.encode(done))


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _json(error_body(str(error.detail)), error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _our_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProbatumError)
    status, body = refusal(error)
    return _json(body, status)


async def _internal_error(_: Request, error: Exception) -> Response:
    _log.error("internal error", exc_info=error)
    return _json(error_body("internal error"), 500)


# The OpenAPI document: msgspec's own schema of the structs that decode the requests.
def _documented(
    name: str, request: type, *replies: type, unknown: bool = False, extra: dict[int | str, Any] | None = None
) -> dict[str, Any]:
    statuses: dict[int | str, Any] = {
        400: "Not JSON, or nothing to predict from.",
        413: "The body is too large.",
        415: "The body is declared to be something else than JSON.",
        422: "A field is missing, unknown, of the wrong type or outside its range.",
        **({404: "No such model."} if unknown else {}),
    }
    responses: dict[int | str, Any] = {status: _error_response(text) for status, text in statuses.items()} | (
        extra or {}
    )
    options = [_ref(item) for item in replies]
    responses[200] = {
        "content": {"application/json": {"schema": options[0] if len(options) == 1 else {"anyOf": options}}}
    }
    body = {"required": True, "content": {"application/json": {"schema": _ref(request)}}}
    return {
        "operation_id": name,
        "response_class": Response,
        "responses": responses,
        "openapi_extra": {"requestBody": body},
    }


def _error_response(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _ref(ErrorBody)}}}


def _ref(item: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{item.__name__}"}


_SCHEMAS = (
    schema.PredictRequest, schema.PredictReply, schema.BatchReply, schema.InferRequest, schema.InferReply,
    schema.Invocation, schema.Predictions, schema.SwapRequest, schema.SwapReply, ErrorBody,
)  # fmt: skip


def _document(generate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    document = generate()
    _, schemas = msgspec.json.schema_components(_SCHEMAS, ref_template="#/components/schemas/{name}")
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
    return document
