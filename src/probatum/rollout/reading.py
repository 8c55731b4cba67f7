"""Turn what executors expose into measurements: raw counters per process and start, added up, never extrapolated.

Both sources, the embedded scraper and Prometheus, bring the same scrapes here, so they cannot disagree. A process that
ended keeps what it had counted when last seen: the samples of the reading before are carried over, and so a restart
loses nothing and a counter that begins at 0 again is another process, not a fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Protocol

import msgspec

from probatum.core.clock import NS_PER_S
from probatum.core.errors import DataError
from probatum.core.verdict import Provenance
from probatum.rollout.measurement import RateMeasurement
from probatum.rollout.series import BAD, FIRST, LAST, MODEL, SAMPLES, START


class Sample(msgspec.Struct, frozen=True):
    """Hold one series of one scrape."""

    name: str
    labels: dict[str, str]
    value: float


class Scrape(msgspec.Struct, frozen=True):
    """Hold what one replica said at one instant (ns UTC)."""

    instance: str
    ts: int
    samples: tuple[Sample, ...]

    def value(self, name: str, run: str | None = None) -> float | None:
        """Return the value of a series without labels, or of a run's, or None."""
        found = (s.value for s in self.samples if s.name == name and (run is None or s.labels.get("run") == run))
        return next(found, None)


class Reading(msgspec.Struct, frozen=True):
    """Hold one read of a source: no measurement, and why, where it could not be read whole.

    ``models`` are the digests that the engines said they serve.
    """

    measurements: tuple[RateMeasurement, ...] = ()
    models: frozenset[str] = frozenset()
    problem: str = ""


class Source(Protocol):
    """Where counts are read. Whatever goes wrong, :meth:`read` returns a Reading that says so."""

    def read(self, run: str, before: Mapping[str, RateMeasurement]) -> Reading:
        """Return the counts of an attempt so far; ``before`` is what was last read of it, by measure."""
        ...


def combine(
    scrapes: Iterable[Scrape], run: str, before: Mapping[str, RateMeasurement], *, read_ts: int, source: str, query: str
) -> Reading:
    """Add up the newest scrape of every process, and what processes that are gone had counted.

    Raises DataError for a value that no counter can have and for a replica that does not say when it started.
    """
    in_order = sorted(scrapes, key=lambda scrape: scrape.ts)
    newest, now = {_process(scrape): scrape for scrape in in_order}, {scrape.instance: scrape for scrape in in_order}
    found = [(process, scrape) for process, scrape in newest.items() if _counts(scrape, run)]
    models = frozenset(s.labels["digest"] for scrape in now.values() for s in scrape.samples if s.name == MODEL)
    if not found:
        return Reading((), models, f"no executor follows the rollout {run}")
    measures = {measure: None for _, scrape in found for measure in _counts(scrape, run)} | dict.fromkeys(before)
    seen = [_seen(scrape, run) for _, scrape in found]
    measurements = tuple(
        _measurement(measure, found, run, before.get(measure), seen, read_ts, source, query) for measure in measures
    )
    return Reading(measurements, models)


def _measurement(
    measure: str,
    found: Sequence[tuple[str, Scrape]],
    run: str,
    before: RateMeasurement | None,
    seen: Sequence[tuple[int | None, int | None]],
    read_ts: int,
    source: str,
    query: str,
) -> RateMeasurement:
    raw: dict[str, float] = dict(before.raw) if before else {}
    classes = [before.provenance] if before else []
    for process, scrape in found:
        n, bad, provenance = _counts(scrape, run).get(measure, (0.0, 0.0, Provenance.SYNTHETIC))
        raw |= {f"{process} n": n, f"{process} bad": bad}
        classes.append(provenance)
    n, bad = (int(sum(v for key, v in raw.items() if key.endswith(end))) for end in (" n", " bad"))
    known = [(before.first_ts, before.last_ts)] if before else []
    firsts, lasts = ([ts for ts in column if ts is not None] for column in zip(*seen, *known, strict=True))
    if n and not (firsts and lasts):
        raise DataError("samples without the time of the first and the last", field=measure)
    first, last = (min(firsts), min(max(lasts), read_ts)) if n else (None, None)
    # The clocks of replicas differ a little: a newest decision is no younger than the read that saw it. A first one that is
    # will not be for long, or somebody's clock is wrong.
    if first is not None and first > read_ts:
        raise DataError("the first sample is later than this read: clocks differ", field=measure)
    return RateMeasurement(
        measure=measure, n=n, bad=bad, first_ts=first, last_ts=last,
        read_ts=read_ts, source=source, query=query, provenance=Provenance.weakest(classes), raw=raw,
    )  # fmt: skip


def _process(scrape: Scrape) -> str:
    start = scrape.value(START)
    if start is None or not isfinite(start):
        raise DataError(f"{scrape.instance} does not say when it started", field=START)
    return f"{scrape.instance}@{start!r}"


def _counts(scrape: Scrape, run: str) -> dict[str, tuple[float, float, Provenance]]:
    values = {
        (s.name, s.labels["measure"]): (s.value, s.labels["provenance"])
        for s in scrape.samples
        if s.name in (SAMPLES, BAD) and s.labels.get("run") == run
    }
    for (name, measure), (value, _) in values.items():
        if not (isfinite(value) and value >= 0.0 and value.is_integer()):
            raise DataError(
                "no counter can have this value", file=scrape.instance, field=f"{name} {measure}", value=value
            )
    return {
        measure: (value, values.get((BAD, measure), (0.0, ""))[0], Provenance(provenance))
        for (name, measure), (value, provenance) in values.items()
        if name == SAMPLES
    }


def _seen(scrape: Scrape, run: str) -> tuple[int | None, int | None]:
    first, last = (scrape.value(name, run) for name in (FIRST, LAST))
    return _ns(first), _ns(last)


def _ns(seconds: float | None) -> int | None:
    return round(seconds * NS_PER_S) if seconds is not None and isfinite(seconds) else None
