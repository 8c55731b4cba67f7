"""Ask Prometheus which alerts fired in a window, and whether it was in a position to know."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from probatum.adapters.promql import TIMEOUT_S
from probatum.core.clock import NS_PER_S, format_utc, parse_utc
from probatum.core.errors import ParameterError, ProbatumError
from probatum.pipeline.alerts import PREFIX, Answer, Rule, Series, grid
from probatum.rollout.series import ENGINES, EXECUTORS

_JOBS = (EXECUTORS, ENGINES)


class PrometheusAlerts:
    """Read one Prometheus. Implements ``pipeline.alerts.AlertHistory``; what it cannot say is in the answer as its
    problem. ParameterError where the URL is none."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        try:
            at = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL:
            at = httpx.URL()
        if at.scheme not in ("http", "https") or not at.host:
            raise ParameterError("prometheus", "a URL such as http://127.0.0.1:9090", url)
        self._client = httpx.Client(base_url=at, timeout=timeout_s, trust_env=False)
        self.source = f"{at.scheme}://{at.netloc.decode()}"  # a password in the URL is not for the record

    def read(self, window_s: int, now_ns: int) -> bytes:
        """Return the answer about the window that ends now, as JSON."""
        start, end, step_s = grid(window_s, now_ns)
        queries = {
            "up": f'max by (job) (max_over_time(up{{job=~"{"|".join(_JOBS)}"}}[{step_s}s]))',
            # Twice the step: a rule that is evaluated once a step must not look like one that fires again and again.
            "firing": f"max by (alertname, severity, criterion) (max_over_time("
            f'ALERTS{{alertstate="firing",alertname=~"{PREFIX}.*"}}[{2 * step_s}s]))',
        }
        asked = Answer(
            source=self.source, start=format_utc(start * NS_PER_S), end=format_utc(end * NS_PER_S), step_s=step_s,
            jobs=_JOBS, queries=queries,
        )  # fmt: skip
        try:
            found = {name: self._range(query, start, end, step_s) for name, query in queries.items()}
            answer = msgspec.structs.replace(asked, rules=self._rules(), loaded=self._loaded(), **found)
        except (httpx.HTTPError, ProbatumError, msgspec.MsgspecError, KeyError, TypeError) as error:
            answer = msgspec.structs.replace(asked, problem=f"not answered: {str(error) or type(error).__name__}")
        return msgspec.json.encode(answer)

    def _range(self, query: str, start: int, end: int, step_s: int) -> tuple[Series, ...]:
        asked = {"query": query, "start": start, "end": end, "step": step_s}
        return msgspec.convert(self._get("/api/v1/query_range", asked)["result"], tuple[Series, ...], strict=False)

    def _rules(self) -> tuple[Rule, ...]:
        groups = self._get("/api/v1/rules", {"type": "alert"})["groups"]
        rules = msgspec.convert([rule for group in groups for rule in group["rules"]], tuple[Rule, ...])
        return tuple(rule for rule in rules if rule.name.startswith(PREFIX))

    def _loaded(self) -> str:
        return format_utc(parse_utc(self._get("/api/v1/status/runtimeinfo", {})["lastConfigTime"]))

    def _get(self, path: str, asked: dict[str, Any]) -> Any:
        reply = self._client.get(path, params=asked)
        reply.raise_for_status()
        return msgspec.json.decode(reply.content)["data"]
