"""Ask each executor what its shadow has counted."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec

TIMEOUT_S = 1.0
BODY_BYTES_MAX = 1 << 20


class ShadowReader:
    """Call it for one entry an executor: ``url``, ``problem`` where it does not answer, and what ``/shadow/metrics`` says."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self._pool = ThreadPoolExecutor(len(urls) or 1, thread_name_prefix="shadow")

    def __call__(self) -> list[dict[str, Any]]:
        return list(self._pool.map(self._ask, self._urls))

    def _ask(self, url: str) -> dict[str, Any]:
        try:
            reply = self._client.get(f"{url.rstrip('/')}/shadow/metrics")
            reply.raise_for_status()
            if len(reply.content) > BODY_BYTES_MAX:
                raise ValueError(f"more than {BODY_BYTES_MAX} bytes")
            said = msgspec.json.decode(reply.content, type=dict[str, Any])
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError, ValueError) as error:
            return {"url": url, "problem": f"does not answer: {error or type(error).__name__}"}
        keys = ("match_rate", "breaker", "rollout", "rank_correlation", "decisions", "counts", "config", "pending")
        return {"url": url, "problem": "", **{key: said.get(key) for key in keys}}
