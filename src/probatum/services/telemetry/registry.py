"""Count in flat pages of shared memory: one page per process, summed when somebody looks.

Prometheus clients for Python cost 2 µs a request in one process and 5 µs in several. Here a counter is one cell of a
page that its process alone writes, so an increment is one addition without a lock, and a scrape of any worker adds
up the pages of all. Pages are anonymous shared mappings made before the fork; a replaced worker goes on in the page of
the one that died, so counters never fall while the service lives.
"""

from __future__ import annotations

import math
import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

import msgspec

from probatum.core.errors import ParameterError, StorageError, UnknownNameError
from probatum.services.telemetry.metrics import METRICS, Metric

_KEYS_BYTES = 1 << 17
PAGE_BYTES = 1 << 20  # anonymous memory: what is not written costs nothing
_UNSET = math.nan
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
Series = dict[Labels, list[float]]


def new_pages(count: int) -> list[mmap.mmap]:
    """Return shared pages for ``count`` processes; make them before forking."""
    return [mmap.mmap(-1, PAGE_BYTES) for _ in range(count)]


class Counter:
    """Count events. ``inc`` is for one thread (the event loop's)."""

    __slots__ = ("inc",)

    def __init__(self, cells: memoryview[float]) -> None:
        def inc(amount: float = 1.0) -> None:
            cells[0] += amount

        self.inc: Callable[..., None] = inc


class Gauge:
    """Hold a value that goes up and down; absent from the exposition until set, and after ``clear``."""

    __slots__ = ("_cells",)

    def __init__(self, cells: memoryview[float]) -> None:
        self._cells = cells

    def set(self, value: float) -> None:
        self._cells[0] = value

    def clear(self) -> None:
        self._cells[0] = _UNSET


class Histogram:
    """Count values into buckets; ``le`` edges are inclusive."""

    __slots__ = ("observe",)

    def __init__(self, cells: memoryview[float], edges: Sequence[float]) -> None:
        edges, total = tuple(edges), len(edges) + 1

        def observe(value: float) -> None:
            cells[bisect_left(edges, value)] += 1.0
            cells[total] += value

        self.observe: Callable[[float], None] = observe


class Registry:
    """Hand out the cells of one process and expose the sum over all.

    ``pages`` are those of the whole service and ``own`` is the index of this process's; without pages the registry is
    private. A child (metric and label values) is resolved once and kept by the caller.

    >>> from probatum.services.telemetry import metrics
    >>> registry = Registry()
    >>> registry.counter(metrics.MODEL_ERRORS, "nan").inc()
    >>> [line for line in registry.expose().decode().splitlines() if line.startswith("ml_model_errors")]
    ['ml_model_errors_total{error_type="nan"} 1']
    """

    def __init__(
        self, pages: Sequence[mmap.mmap] | None = None, own: int = 0, metrics: Iterable[Metric] = METRICS
    ) -> None:
        self._pages = list(pages) if pages is not None else new_pages(1)
        self._own = self._pages[own]
        self._metrics = {metric.name: metric for metric in metrics}
        self._cells: dict[tuple[str, Labels], memoryview[float]] = {}
        self._before: list[Callable[[], None]] = []
        for name, labels, cells in _read(self._own, self._metrics):
            self._cells[name, labels] = cells

    def counter(self, metric: Metric, *labels: str) -> Counter:
        """Return the child with these label values, at 0 when new."""
        return Counter(self._child(metric, "counter", labels))

    def gauge(self, metric: Metric, *labels: str) -> Gauge:
        """Return the child with these label values, unset when new."""
        return Gauge(self._child(metric, "gauge", labels))

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """Return the child with these label values, empty when new."""
        return Histogram(self._child(metric, "histogram", labels), metric.buckets)

    def before_expose(self, callback: Callable[[], None]) -> None:
        """Call back before each exposition, for gauges that derive from counts."""
        self._before.append(callback)

    def value(self, metric: Metric, *labels: str) -> float:
        """Return a counter's or gauge's value over all processes; 0 for a counter that nobody touched."""
        cells = self._collect().get(metric.name, {}).get(labels)
        return cells[0] if cells else (0.0 if metric.kind == "counter" else _UNSET)

    def expose(self) -> bytes:
        """Return the Prometheus text format 0.0.4, twins included."""
        for callback in self._before:
            callback()
        collected = self._collect()
        lines: list[str] = []
        for name, series in collected.items():
            metric = self._metrics[name]
            lines += _text(metric, metric.name, 1.0, series)
            if metric.twin:
                lines += _text(metric, metric.twin.name, metric.twin.scale, series)
        return ("\n".join(lines) + "\n").encode()

    def _child(self, metric: Metric, kind: str, labels: Labels) -> memoryview[float]:
        if metric.kind != kind or self._metrics.get(metric.name) is not metric:
            raise UnknownNameError(kind, metric.name, [m.name for m in self._metrics.values() if m.kind == kind])
        if len(labels) != len(metric.labels):
            raise ParameterError(f"labels of {metric.name}", f"values of {metric.labels}", labels)
        if (metric.name, labels) not in self._cells:
            start = sum(_width(self._metrics[name]) for name, _ in self._cells)
            self._cells[metric.name, labels] = _allocate(self._own, metric, labels, start)
        return self._cells[metric.name, labels]

    def _collect(self) -> dict[str, Series]:
        collected: dict[str, Series] = {name: {} for name in self._metrics}
        for page in self._pages:
            for name, labels, cells in _read(page, self._metrics):
                _merge(self._metrics[name], collected[name], labels, list(cells))
        return {name: series for name, series in collected.items() if series}


# A page: 8 bytes of length, keys as JSON lines up to _KEYS_BYTES, then the cells of each key in the same order.
def _width(metric: Metric) -> int:
    return len(metric.buckets) + 2 if metric.buckets else 1


def _cells(page: mmap.mmap, start: int, width: int) -> memoryview[float]:
    return memoryview(page)[_KEYS_BYTES:].cast("d")[start : start + width]


def _read(page: mmap.mmap, metrics: dict[str, Metric]) -> Iterator[tuple[str, Labels, memoryview[float]]]:
    length = int.from_bytes(page[:8], "little")
    start = 0
    for line in page[8 : 8 + length].splitlines():
        name, *labels = msgspec.json.decode(line, type=list[str])
        width = _width(metrics[name])
        yield name, tuple(labels), _cells(page, start, width)
        start += width


def _allocate(page: mmap.mmap, metric: Metric, labels: Labels, start: int) -> memoryview[float]:
    line = msgspec.json.encode([metric.name, *labels]) + b"\n"
    length = int.from_bytes(page[:8], "little")
    if 8 + length + len(line) > _KEYS_BYTES or _KEYS_BYTES + 8 * (start + _width(metric)) > PAGE_BYTES:
        raise StorageError(f"{metric.name}: too many label values; restart the service to forget the old ones")
    cells = _cells(page, start, _width(metric))
    cells[0] = _UNSET if metric.kind == "gauge" else 0.0
    page[8 + length : 8 + length + len(line)] = line
    page[:8] = (length + len(line)).to_bytes(8, "little")  # last: a reader sees whole keys only
    return cells


def _merge(metric: Metric, series: Series, labels: Labels, cells: list[float]) -> None:
    if metric.kind == "gauge":
        present = [value for value in (*cells, *series.get(labels, [])) if not math.isnan(value)]
        if present:
            series[labels] = [max(present)]
    elif labels in series:
        series[labels] = [a + b for a, b in zip(series[labels], cells, strict=True)]
    else:
        series[labels] = cells


def _text(metric: Metric, name: str, scale: float, series: Series) -> Iterator[str]:
    yield f"# HELP {name} {metric.help}"
    yield f"# TYPE {name} {metric.kind}"
    for labels, cells in sorted(series.items()):
        pairs = [f'{key}="{_escape(value)}"' for key, value in zip(metric.labels, labels, strict=True)]
        if metric.kind != "histogram":
            yield f"{name}{_braces(pairs)} {_number(cells[0] * scale)}"
            continue
        counts = list(accumulate(cells[:-1]))
        for edge, count in zip((*metric.buckets, math.inf), counts, strict=True):
            le = f'le="{_edge(edge, scale)}"'
            yield f"{name}_bucket{_braces([*pairs, le])} {_number(count)}"
        yield f"{name}_sum{_braces(pairs)} {_number(cells[-1] * scale)}"
        yield f"{name}_count{_braces(pairs)} {_number(counts[-1])}"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _edge(edge: float, scale: float) -> str:
    return "+Inf" if math.isinf(edge) else repr(round(edge * scale, 12))


def _braces(pairs: Sequence[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
