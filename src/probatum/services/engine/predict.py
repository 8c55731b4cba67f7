"""Answer predictions: the one path from body to reply, under the fast path, FastAPI and every protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter_ns

import msgspec

from probatum.core.clock import NS_PER_MINUTE, NS_PER_S, Clock, format_utc, parse_utc
from probatum.core.errors import ParameterError, ProbatumError
from probatum.services.engine.decode import Decoder, refuse_duplicates
from probatum.services.engine.model import Model, ModelFailed
from probatum.services.engine.schema import BatchReply, PredictReply, PredictRequest, Row
from probatum.services.http import Answer, RequestError, error_body, refusal
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("probatum.engine")
_decode = Decoder(PredictRequest).decode


class Limits(msgspec.Struct, frozen=True):
    """Declare how old, and how far ahead of the engine's clock, an ``as_of`` may be."""

    age_max_ns: int = 5 * NS_PER_MINUTE
    ahead_max_ns: int = 2 * NS_PER_S


class Predictor:
    """Hold the model that is served and the one before it, and answer requests with the former.

    ``model`` is read once per request, so a swap between two requests needs no lock and drops none.
    """

    def __init__(self, model: Model, registry: Registry, clock: Clock, limits: Limits | None = None) -> None:
        self.model = model
        self.previous: Model | None = None
        self.clock = clock
        self.limits = limits or Limits()
        self._unnamed = registry.counter(metrics.FINGERPRINT_MISSING).inc
        self._observe_score = registry.histogram(metrics.PREDICTION_SCORE).observe
        model.announce(True)

    def adopt(self, model: Model) -> None:
        """Serve another model from the next request on, and keep the present one loaded."""
        if model.digest == self.model.digest and model.alias == self.model.alias:
            return
        self.model.announce(False)
        if model.digest != self.model.digest:
            self.previous = self.model
        self.model = model
        model.announce(True)

    def predict(self, body: bytes) -> Answer:
        """Answer one body of ``/ml/predict``."""
        return self.answer(body, self._predict)

    def answer(self, body: bytes, handle: Callable[[Model, bytes, int], bytes]) -> Answer:
        """Run one request against the model of this moment, and count how it ended, exactly once."""
        started = perf_counter_ns()
        model = self.model
        try:
            reply = handle(model, body, started)
        except ModelFailed as error:
            model.errored()
            if error.status >= 500:
                _log.error("%s: %s", model.version, error.message, exc_info=error.__cause__)
            return refusal(error)
        except ProbatumError as error:
            model.rejected()
            return refusal(error)
        except Exception:
            model.errored()
            _log.exception("internal error")
            return 500, error_body("internal error")
        model.succeeded()
        return 200, reply

    def check(self, model: Model, fingerprint: str | None, as_of: int | str | None = None) -> None:
        """Refuse another feature set and a future or stale time; count a request that names no feature set."""
        if fingerprint is None:
            self._unnamed()
        else:
            model.check_fingerprint(fingerprint)
        if as_of is not None:
            self._check_as_of(as_of)

    def score_rows(self, model: Model, rows: Sequence[Row], field: str, started: int) -> tuple[list[float], float]:
        """Return the scores of all rows and the time so far in ms, or refuse the first row that is at fault."""
        scores = [model.score(model.row(row, f"{field}[{i}]"), f"{field}[{i}]") for i, row in enumerate(rows)]
        for score in scores:
            self._observe_score(score)
        return scores, self.taken_ms(model, started)

    def taken_ms(self, model: Model, started: int) -> float:
        """Observe and return the time since ``started``."""
        latency_ms = (perf_counter_ns() - started) // 100 / 1e4
        model.observe_latency_ms(latency_ms)
        return latency_ms

    def _predict(self, model: Model, body: bytes, started: int) -> bytes:
        request = _decode(body)
        colons = body.count(b":")
        if colons != 1 and colons != _names_expected(request):
            refuse_duplicates(body)
        self.check(model, request.fingerprint, request.as_of)
        if request.rows is not None:
            return self._batch(model, request, started)
        score = model.score(model.request_row(request))
        self._observe_score(score)
        return _encode(PredictReply(score, model.version, self.taken_ms(model, started)))

    def _batch(self, model: Model, request: PredictRequest, started: int) -> bytes:
        if request.features is not None or request.snapshot is not None:
            raise RequestError(422, "rows stand alone", field="rows", allowed="rows, or features, or snapshot")
        scores, latency_ms = self.score_rows(model, request.rows or [], "rows", started)
        return _encode(BatchReply(scores, model.version, latency_ms))

    def _check_as_of(self, as_of: int | str) -> None:
        now_ns = self.clock.now_ns()
        try:
            ns = parse_utc(as_of) if isinstance(as_of, str) else as_of
        except ParameterError as error:
            raise RequestError(
                422, "as_of is not a time", field="as_of", allowed=str(error.fields["allowed"]), value=as_of
            ) from None
        low, high = now_ns - self.limits.age_max_ns, now_ns + self.limits.ahead_max_ns
        if not low <= ns <= high:
            problem = "stale" if ns < low else "in the future"
            allowed = f"ns since 1970 or ISO 8601, from {format_utc(low)} to {format_utc(high)}"
            raise RequestError(422, f"as_of is {problem}", field="as_of", allowed=allowed, value=as_of)


def _names_expected(request: PredictRequest) -> int:
    """Count the colons of a body with these names, each once, and none in a text.

    Equal counts rule duplicates out at no cost (a duplicate adds a colon); any other body is looked at closely.
    """
    features, snapshot = request.features, request.snapshot
    count = (features is not None) + (request.rows is not None) + (request.fingerprint is not None)
    count += (request.symbol is not None) + (request.as_of is not None)
    if type(features) is dict:
        count += len(features)
    if snapshot is not None:
        count += 6
    return count
