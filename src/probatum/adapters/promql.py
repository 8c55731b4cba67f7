"""Read measurements from Prometheus: the raw samples it stored, each with its own time, over all replicas.

An instant query with a range selector returns what was scraped, nothing interpolated or extrapolated, and the counters of
one scrape share one timestamp with the start time of their process, so that a restart between two of them shows.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import msgspec

from probatum.core.clock import NS_PER_MS, NS_PER_S, Clock
from probatum.core.errors import DataError, ProbatumError
from probatum.rollout.measurement import RateMeasurement
from probatum.rollout.reading import Reading, Sample, Scrape, combine
from probatum.rollout.series import ENGINES, EXECUTORS, MODEL, NAMES, START

TIMEOUT_S = 2.0  # well within a controller's lead, which waits for this


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    values: list[tuple[float, str]]


class _Data(msgspec.Struct, frozen=True):
    result: list[_Series]


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Data


_DECODER = msgspec.json.Decoder(_Answer)
_Points = dict[tuple[str, int], list[Sample]]


class PrometheusSource:
    """Read the jobs of one rollout. Implements ``rollout.reading.Source``.

    ``window_s`` is the age beyond which a scrape is no evidence. One executor that Prometheus could not reach makes the
    reading void, until it is reached again or Prometheus is no longer told to scrape it. What it had counted by its last
    scrape is read for another ``gone_s``: nobody lets a rollout go on that was blind for longer.
    The jobs are named after what they scrape; the engines' job holds those that serve the rollout's model.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        window_s: int,
        gone_s: int = 0,
        executors: str = EXECUTORS,
        engines: str = ENGINES,
    ) -> None:
        self._url, self._clock, self._executors = f"{url.rstrip('/')}/api/v1/query", clock, executors
        jobs, names = f"{executors}|{engines}", "|".join(sorted(NAMES))
        self._window_ns = window_s * NS_PER_S
        self._query = f'{{__name__=~"{names}|up",job=~"{jobs}"}}[{window_s + gone_s}s]'
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)

    def read(self, run: str, before: Mapping[str, RateMeasurement]) -> Reading:
        """Return the counts of an attempt so far, or why there are none."""
        now_ns = self._clock.now_ns()
        try:
            reply = self._client.post(self._url, data={"query": self._query, "time": f"{now_ns / NS_PER_S:.3f}"})
            reply.raise_for_status()
            scrapes = self._scrapes(_DECODER.decode(reply.content), now_ns - self._window_ns)
            read_ts = max((scrape.ts for scrape in scrapes), default=0)
            return combine(scrapes, run, before, read_ts=read_ts, source="prometheus", query=self._query)
        except (httpx.HTTPError, ProbatumError, msgspec.MsgspecError, ValueError, KeyError) as error:
            return Reading(problem=f"prometheus: {str(error) or type(error).__name__}")

    def _scrapes(self, answer: _Answer, since_ns: int) -> list[Scrape]:
        """Return the scrapes that succeeded, by replica and time; of those before ``since_ns`` what was counted only."""
        points: _Points = {}
        up: dict[str, tuple[int, str]] = {}
        for series in answer.data.result:
            labels = dict(series.metric)
            name, job, instance = (labels.pop(key, "") for key in ("__name__", "job", "instance"))
            for seconds, value in series.values:
                ts = round(seconds * 1_000) * NS_PER_MS
                if name == MODEL and ts < since_ns:
                    continue
                if name != "up":
                    points.setdefault((instance, ts), []).append(Sample(name, labels, float(value)))
                elif job == self._executors and ts >= since_ns:
                    up[instance] = max(up.get(instance, (0, "")), (ts, value))
        if not up:
            raise DataError("scrapes no executor", field=self._executors)
        for instance, (_, value) in up.items():
            if float(value) != 1.0:
                raise DataError("executor not reached", field=instance)
        return [
            Scrape(instance, ts, tuple(samples)) for (instance, ts), samples in points.items() if _is_whole(samples)
        ]


def _is_whole(samples: list[Sample]) -> bool:
    return any(sample.name == START for sample in samples)
