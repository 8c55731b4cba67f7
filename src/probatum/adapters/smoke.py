"""Drive running services for a smoke test and bring back what they said."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeVar

import httpx
import msgspec
import polars as pl

from probatum.adapters.load import Reply, http_post, open_loop
from probatum.core.clock import format_utc
from probatum.core.errors import BlockedError, DataError, ParameterError
from probatum.market.events import Events
from probatum.models.artifact import Artifact
from probatum.pipeline.ports import Progress
from probatum.pipeline.shadowing import ShadowRun
from probatum.pipeline.smoke import SmokeRun

WARM_UP_EVENTS = 4_096  # what the executor takes in one request; a test holds the two together
SETTLE_S = 10.0


def smoke_engine(
    url: str,
    artifact: Artifact,
    rows: Sequence[Sequence[float]],
    *,
    rate_per_s: float,
    now_ns: int,
    progress: Progress | None = None,
) -> SmokeRun:
    """Send one prediction for each row, open loop, and return the replies with the engine's metrics around them.

    Raises BlockedError where the engine serves another artifact than the one that is to be proven.
    """
    host, port = _address(url)
    with _client(url) as client:
        served = _get(client, "/ml/model/info", _Model)
        if served.digest != artifact.digest:
            raise BlockedError(
                f"{url} serves {served.version} ({served.digest[:12]}), not {artifact.name} ({artifact.digest[:12]})"
            )
        before = _request(client, "GET", "/ml/metrics")
        bodies = [json.dumps({"features": list(row), "fingerprint": artifact.features.fingerprint}) for row in rows]
        requests = [http_post(host, port, "/ml/predict", body.encode()) for body in bodies]
        replies = asyncio.run(open_loop(host, port, requests, rate_per_s=rate_per_s, progress=progress))
        after = _request(client, "GET", "/ml/metrics")
    return SmokeRun(
        model=artifact.name,
        version=artifact.name,
        started=format_utc(now_ns),
        rate_per_s=rate_per_s,
        requests=_parquet(replies, "score"),
        metrics_before=before,
        metrics_after=after,
        artifact=artifact.digest,
    )


class ShadowDriver:
    """Replay one symbol's events through a running executor, in order, with decisions where they are due."""

    def __init__(self, url: str, artifact: Artifact, symbol: str, events: Events) -> None:
        self._url, self._artifact, self._symbol, self._events = url, artifact, symbol, events
        self._address = _address(url)
        self._next = 0

    def warm_up(self, until: int, progress: Progress | None = None) -> None:
        """Feed the events before index ``until`` without asking for decisions.

        Raises BlockedError, before the first of them, where the executor serves another feature set.
        """
        with _client(self._url) as client:
            served = _get(client, "/shadow/metrics", _Shadow).config.feature_set
            if served != (wanted := self._artifact.features.set):
                raise BlockedError(f"{self._url} serves feature set {served}, not {wanted}")
            for start in range(self._next, until, WARM_UP_EVENTS):
                end = min(start + WARM_UP_EVENTS, until)
                body = {"symbol": self._symbol, "events": self._wire(start, end)}
                _request(client, "POST", "/market/events", content=msgspec.json.encode(body), headers=_JSON)
                if progress is not None:
                    progress.step(f"warm-up {self._symbol}", end, until)
        self._next = until

    def decide(
        self, ends: Sequence[int], *, rate_per_s: float, now_ns: int, progress: Progress | None = None
    ) -> ShadowRun:
        """Ask for one decision after each of these event indices, and return replies and counts around them.

        One connection: a symbol's events must arrive in order. Waits until every comparison is in.
        """
        host, port = self._address
        spans = pairwise([self._next, *ends])
        bodies = [{"symbol": self._symbol, "events": self._wire(start, end)} for start, end in spans]
        requests = [http_post(host, port, "/predict-with-shadow", msgspec.json.encode(body)) for body in bodies]
        with _client(self._url) as client:
            before = _get(client, "/shadow/metrics", _Shadow)
            replies = asyncio.run(
                open_loop(host, port, requests, rate_per_s=rate_per_s, connections=1, timeout_s=10.0, progress=progress)
            )
            after = self._settled(client)
        self._next = ends[-1]
        return ShadowRun(
            model=self._artifact.name,
            artifact=self._artifact.digest,
            symbol=self._symbol,
            delivery=after.config.delivery,
            started=format_utc(now_ns),
            rate_per_s=rate_per_s,
            replies=_parquet(replies, "prediction"),
            before=msgspec.json.encode(before.counts),
            after=msgspec.json.encode(after.counts),
        )

    def _settled(self, client: httpx.Client) -> _Shadow:
        """Return the metrics once no comparison is pending; what still is then shows as uncounted."""
        import time

        deadline = time.monotonic() + SETTLE_S
        while (found := _get(client, "/shadow/metrics", _Shadow)).pending and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def _wire(self, start: int, end: int) -> list[list[float | int]]:
        return list(_wire_events(self._events, start, end))


def _wire_events(events: Events, start: int, end: int) -> Iterator[list[float | int]]:
    values = events.values[start:end].tolist()  # NaN, a value that the source lacks, goes over the wire as null
    for ts, kind, row in zip(events.ts[start:end].tolist(), events.kind[start:end].tolist(), values, strict=True):
        yield [ts, kind, *row]


def _parquet(replies: Sequence[Reply], field: str) -> bytes:
    frame = pl.DataFrame(
        {
            "intended_ns": [reply.intended_ns for reply in replies],
            "latency_ns": [reply.latency_ns for reply in replies],
            "status": [reply.status for reply in replies],
            field: [_number(reply, field) for reply in replies],
        },
        schema={"intended_ns": pl.Int64, "latency_ns": pl.Int64, "status": pl.Int64, field: pl.Float64},
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _number(reply: Reply, field: str) -> float | None:
    if reply.status != 200:
        return None
    try:
        value = json.loads(reply.body)[field]
    except (ValueError, KeyError, TypeError):
        return None
    return float(value) if isinstance(value, int | float) else None


def _address(url: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(url)
    with suppress(ValueError):  # a port beyond 65,535
        if parts.scheme == "http" and parts.hostname and parts.port and parts.path in ("", "/") and " " not in url:
            return parts.hostname, parts.port
    raise ParameterError("url", "http://HOST:PORT", url)


class _Model(msgspec.Struct):
    digest: str
    version: str


class _Config(msgspec.Struct):
    delivery: str
    feature_set: str


class _Shadow(msgspec.Struct):
    pending: int
    config: _Config
    counts: dict[str, Any]


_JSON = {"Content-Type": "application/json"}
T = TypeVar("T")


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=10.0, trust_env=False)


def _get(client: httpx.Client, path: str, schema: type[T]) -> T:
    try:
        return msgspec.json.decode(_request(client, "GET", path), type=schema)
    except msgspec.DecodeError:
        raise DataError("is not what a service of ours answers", file=client.base_url.join(path)) from None


def _request(client: httpx.Client, method: str, path: str, **content: Any) -> bytes:
    place = client.base_url.join(path)
    try:
        reply = client.request(method, path, **content)
    except httpx.HTTPError as error:
        raise DataError(f"does not answer ({error})", file=place) from None
    if reply.status_code != 200:
        raise DataError(f"answers {reply.status_code}", file=place, value=reply.text[:200])
    return reply.content
