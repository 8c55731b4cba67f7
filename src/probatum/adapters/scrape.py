"""Read the metrics of every executor replica, and of the engines, oneself: measurements without a Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from probatum.core.clock import Clock
from probatum.core.errors import ProbatumError
from probatum.rollout.measurement import RateMeasurement
from probatum.rollout.reading import Reading, Sample, Scrape, combine
from probatum.rollout.series import NAMES

TIMEOUT_S = 2.0  # well within a controller's lead, which waits for this
BODY_BYTES_MAX = 8 << 20


class ScrapeSource:
    """Read replicas by their addresses. Implements ``rollout.reading.Source``.

    One executor that does not answer makes the reading void: what it does is not known. An engine that does not answer
    says nothing of its model; what its silence does to decisions the executors have counted.
    """

    def __init__(self, executors: Sequence[str], engines: Sequence[str], clock: Clock) -> None:
        self._targets = [(f"{url.rstrip('/')}/metrics", True) for url in executors]
        self._targets += [(f"{url.rstrip('/')}/ml/metrics", False) for url in engines]
        self._query, self._clock = " ".join(url for url, needed in self._targets if needed), clock
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self._pool = ThreadPoolExecutor(len(self._targets) or 1, thread_name_prefix="scrape")

    def read(self, run: str, before: Mapping[str, RateMeasurement]) -> Reading:
        """Return the counts of an attempt so far, or why there are none."""
        try:
            scrapes = [
                scrape for scrape in self._pool.map(lambda target: self._scrape(*target), self._targets) if scrape
            ]
            return combine(scrapes, run, before, read_ts=self._clock.now_ns(), source="scrape", query=self._query)
        except (httpx.HTTPError, ProbatumError, ValueError, KeyError) as error:
            return Reading(problem=f"scrape: {str(error) or type(error).__name__}")

    def _scrape(self, url: str, needed: bool) -> Scrape | None:
        try:
            reply = self._client.get(url)
            reply.raise_for_status()
        except httpx.HTTPError as error:
            if needed:
                raise httpx.HTTPError(f"{url}: {str(error) or type(error).__name__}") from None
            return None
        if len(reply.content) > BODY_BYTES_MAX:
            raise ValueError(f"{url}: more than {BODY_BYTES_MAX} bytes")
        return Scrape(urlsplit(url).netloc, self._clock.now_ns(), parse_text(reply.text))


def parse_text(text: str) -> tuple[Sample, ...]:
    """Return the series of an exposition that a rollout is judged by; ValueError where it is not in the text format.

    >>> parse_text("# TYPE process_start_time_seconds gauge\\nprocess_start_time_seconds 5\\n")
    (Sample(name='process_start_time_seconds', labels={}, value=5.0),)
    """
    wanted = "\n".join(line for line in text.splitlines() if line.partition("{")[0].partition(" ")[0] in NAMES)
    return tuple(
        Sample(sample.name, dict(sample.labels), float(sample.value))
        for family in text_string_to_metric_families(wanted + "\n")
        for sample in family.samples
    )
