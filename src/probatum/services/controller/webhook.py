"""Take what Alertmanager tells: ``POST /alerts/webhook``, its JSON of version 4, with a token of role operate.

Only alerts that are declared enter the ledger. What is told twice, or to two controllers, is one record. Where the ledger
does not answer, or too much is told at once, the reply is a 503, and Alertmanager tells it again.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from probatum.core.clock import Clock, format_utc, parse_utc
from probatum.core.errors import ParameterError, StorageError
from probatum.pipeline.notices import take
from probatum.pipeline.ports import Sources
from probatum.rollout.alerts import ALERTS
from probatum.rollout.notices import Notice, Status
from probatum.services.auth import Role, Tokens
from probatum.services.engine.decode import Decoder
from probatum.services.http import RequestError, read_body, require_json
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

PATH = "/alerts/webhook"
ALERTS_MAX = 200
WAITING_MAX = 8
KNOWN = frozenset(name for alert in ALERTS for name in (alert.name, alert.twin))

_log = logging.getLogger("probatum.controller")
_Name = Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,127}\Z")]
_Value = Annotated[str, Meta(max_length=256)]
_Time = Annotated[str, Meta(max_length=40)]


class AlertBody(msgspec.Struct, frozen=True, rename="camel"):
    """Hold one alert as Alertmanager writes it; what else it writes is not read."""

    status: Status
    labels: Annotated[dict[_Name, _Value], Meta(max_length=64)]
    starts_at: _Time
    ends_at: _Time
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9a-f]{1,64}\Z")]


class WebhookBody(msgspec.Struct, frozen=True):
    """Hold one notification."""

    version: Literal["4"]
    alerts: Annotated[list[AlertBody], Meta(min_length=1, max_length=ALERTS_MAX)]


_decode = Decoder(WebhookBody)


class Webhook:
    """Enter notifications one at a time, off the loop that serves."""

    def __init__(self, sources: Sources, tokens: Tokens, clock: Clock, registry: Registry) -> None:
        self._sources, self._tokens, self._clock = sources, tokens, clock
        self._one, self._waiting = ThreadPoolExecutor(1, "webhook"), 0
        self._count = {name: registry.counter(metrics.ALERTS_RECEIVED, name).inc for name in ("taken", "refused")}

    @property
    def routes(self) -> list[BaseRoute]:
        """Return the route to wire into the controller's."""
        return [Route(PATH, self._post, methods=["POST"])]

    async def _post(self, request: Request) -> Response:
        self._tokens.require(request.headers.get("authorization", "").encode("latin-1"), Role.OPERATE)
        require_json(request.scope["headers"])
        body = await read_body(request.receive)
        if body is None:  # the client has left: nobody reads this
            return Response(status_code=400)
        told: WebhookBody = _decode(body)
        known = [_notice(alert) for alert in told.alerts if alert.labels.get("alertname") in KNOWN]
        refused = len(told.alerts) - len(known)
        self._count["refused"](refused)
        if refused:
            _log.warning("%d alerts are not of ours: they are not entered", refused)
        done = await self._take(known)
        self._count["taken"](len(known))
        return Response(msgspec.json.encode({**done, "refused": refused}), media_type="application/json")

    async def _take(self, notices: list[Notice]) -> dict[str, Any]:
        if self._waiting >= WAITING_MAX:
            raise RequestError(503, f"{WAITING_MAX} notifications wait already; tell it again")
        self._waiting += 1
        try:
            loop, now_ns = asyncio.get_running_loop(), self._clock.now_ns()
            return await loop.run_in_executor(self._one, take, self._sources.ledger, self._sources, notices, now_ns)
        except StorageError as error:
            _log.error("%s", error.message)
            raise RequestError(503, "the ledger does not answer; tell it again") from None
        finally:
            self._waiting -= 1


def _notice(alert: AlertBody) -> Notice:
    """Return what enters the ledger: times in one spelling, control characters spelled out."""
    try:
        return Notice(
            name=alert.labels["alertname"],
            status=alert.status,
            fingerprint=alert.fingerprint,
            starts=format_utc(parse_utc(alert.starts_at)),
            ends=format_utc(parse_utc(alert.ends_at)) if alert.status == "resolved" else None,
            labels={name: _plain(value) for name, value in alert.labels.items()},
        )
    except ParameterError as error:
        raise RequestError(422, error.message, field="alerts") from None


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
