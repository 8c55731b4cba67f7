"""One suite for both sources of measurements: the embedded scraper and a real Prometheus say the same of the same replicas."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prometheus import prometheus

from probatum.adapters.promql import PrometheusSource
from probatum.adapters.scrape import ScrapeSource
from probatum.core.clock import SystemClock
from probatum.core.verdict import Provenance
from probatum.monitoring.outcomes import Joined, Made
from probatum.monitoring.shadow import DecisionRow
from probatum.rollout.choose import Mode
from probatum.rollout.lease import RolloutDocument
from probatum.rollout.reading import Reading, Source
from probatum.services.executor.run import MEASURES, RunMeter
from probatum.services.executor.shadow import NoLog
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

RUN = "canary#1"
MODEL = "ab" * 32


class Replica:
    """An executor's own meter and registry behind a port; no decision is made, finished ones are handed to the meter."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            # HTTP/1.0: each reply ends its connection, so that a stopped replica is silent at once.
            def do_GET(self) -> None:
                body = outer.registry.expose() + outer.added
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.starts = 0
        self.start()

    def start(self, run: str = RUN) -> None:
        """Begin a process: everything counts from 0, under a later start time."""
        self.starts += 1
        self.added = b""
        registry = Registry()
        registry.gauge(metrics.PROCESS_START).set(time.time() // 1 + self.starts)
        registry.gauge(metrics.MODEL_INFO, "m", MODEL, "challenger", "robust").set(1.0)
        self.document = RolloutDocument(mode=Mode.OBSERVE, share=0.5, plan="p", challenger=MODEL, run=run)
        self.meter = RunMeter(NoLog(), registry, Provenance.SYNTHETIC)
        self.meter.follow(lambda: self.document)
        self.registry = registry

    def finish(self, outcome: str, count: int = 1, *, late_ms: int = 1, score: float = 0.51) -> None:
        """Hand over finished decisions."""
        for i in range(count):
            row = DecisionRow(i, time.time_ns(), 0, str(i), "", "", "", [], 0.5, 1_000, outcome=outcome)
            row.shadow_ns = late_ms * 1_000_000
            row.challenger = score if outcome == "ok" else None
            self.meter.append(row)

    def lose(self, *lost: bool) -> None:
        """Let outcomes become known, one after the other, on which model and baseline differed."""
        for i, bad in enumerate(lost):
            made = Made("X", i, i, i, 0.4, 0.6, MODEL[:16], RUN)
            self.meter.settle(Joined(i + 1, i, "X", i, i, not bad, made))

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Bench:
    """Two replicas and the source that reads them."""

    def __init__(self, replicas: tuple[Replica, Replica], source: Source, kill: Callable[[], None]) -> None:
        self.first, self.second = replicas
        self.source, self.kill_source = source, kill
        self.known: dict[str, object] = {}

    def read(self, run: str = RUN) -> Reading:
        reading = self.source.read(run, self.known)  # type: ignore[arg-type]
        self.known.update({item.measure: item for item in reading.measurements})
        return reading

    def until(self, wanted: Callable[[Reading], bool]) -> Reading:
        """Read until it is so: Prometheus scrapes when it likes."""
        for _ in range(300):
            if wanted(reading := self.read()):
                return reading
            time.sleep(0.1)
        raise AssertionError(reading)


def counts(reading: Reading) -> dict[str, tuple[int, int]]:
    return {item.measure: (item.n, item.bad) for item in reading.measurements}


@pytest.fixture(params=["scrape", "prometheus"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    replicas = (Replica(), Replica())
    urls = [replica.url for replica in replicas]
    if request.param == "scrape":
        # What kills an embedded source is that none of what it reads answers.
        yield Bench(replicas, ScrapeSource(urls, [], SystemClock()), lambda: [r.stop() for r in replicas] and None)
    else:
        with prometheus(tmp_path, executors=urls, engines=[]) as server:
            yield Bench(replicas, PrometheusSource(server.url, SystemClock(), window_s=3), server.kill)
    for replica in replicas:
        replica.stop()


def test_a_replica_that_is_gone_keeps_what_was_last_scraped(tmp_path: Path) -> None:
    """Counts that Prometheus scraped after the controller's last read survive their executor, once it is not listed."""
    first, second = Replica(), Replica()
    with prometheus(tmp_path, executors=[first.url, second.url], engines=[]) as server:
        bench = Bench((first, second), PrometheusSource(server.url, SystemClock(), window_s=3, gone_s=30), server.kill)
        first.finish("ok", 10)
        second.finish("ok", 1)
        bench.until(lambda reading: counts(reading).get("errors") == (11, 0))
        first.finish("ok", 20)
        first.finish("error", 2)
        time.sleep(1)  # scraped, and read by nobody
        first.stop()
        time.sleep(1)
        bench.until(lambda reading: "not reached" in reading.problem)
        server.drop(first.url)
        second.finish("ok", 1)
        bench.until(lambda reading: counts(reading).get("errors") == (34, 2))
        time.sleep(4)  # no up is left of it, and it is still counted
        assert counts(bench.read())["errors"] == (34, 2)
        second.stop()
        bench.until(lambda reading: "not reached" in reading.problem)


def test_counts_are_added_over_replicas(bench: Bench) -> None:
    """n and bad are the sums over all replicas of what each finished, measure by measure, from integers."""
    bench.first.finish("ok", 90)
    bench.first.finish("ok", 5, late_ms=100)
    bench.second.finish("ok", 3, late_ms=130, score=0.9)
    bench.second.finish("timeout", 2, late_ms=250)
    bench.second.finish("error", 4)
    bench.second.finish("nan", 1)
    bench.second.finish("breaker_open", 6)
    bench.second.finish("shed", 7)
    bench.second.finish("skipped", 1_000)
    bench.first.lose(False, True, True)
    bench.second.lose(False)
    expected = {
        "errors": (105, 7),
        "slower_than_80ms": (100, 10),
        "slower_than_120ms": (100, 5),
        "uncovered": (118, 20),
        "mismatches": (98, 3),
        "outcome_losses": (4, 2),
    }
    reading = bench.until(lambda reading: counts(reading).get("uncovered") == (118, 20))
    assert counts(reading) == expected
    assert not reading.problem
    assert reading.models == {MODEL}
    for item in reading.measurements:
        assert sum(value for name, value in item.raw.items() if name.endswith(" n")) == item.n
        assert len(item.raw) == 4
        assert item.provenance is Provenance.SYNTHETIC
        assert item.source
        assert item.query
        if item.n:
            assert item.first_ts is not None
            assert item.last_ts is not None
            assert item.first_ts <= item.last_ts <= item.read_ts <= time.time_ns()


def test_an_attempt_without_decisions_is_measured_as_none(bench: Bench) -> None:
    """Executors that follow and mirror nothing are 0 of 0, which is a measurement; so is every measure's."""
    reading = bench.until(lambda reading: bool(reading.measurements))
    assert counts(reading) == dict.fromkeys(MEASURES, (0, 0))
    assert all(item.first_ts is item.last_ts is None for item in reading.measurements)


def test_a_restart_neither_loses_nor_repeats(bench: Bench) -> None:
    """A replica that begins at 0 again adds to what its last process had counted, however often it is read."""
    bench.first.finish("ok", 40)
    bench.second.finish("error", 2)
    bench.until(lambda reading: counts(reading).get("errors") == (42, 2))
    bench.first.start()
    bench.first.finish("ok", 3)
    bench.until(lambda reading: counts(reading).get("errors") == (45, 2))
    bench.first.start()
    bench.first.finish("error", 60)
    reading = bench.until(lambda reading: counts(reading).get("errors", (0, 0))[0] > 45)
    assert counts(reading)["errors"] == (105, 62)
    assert counts(bench.read())["errors"] == (105, 62)


def test_another_attempts_counts_are_not_ours(bench: Bench) -> None:
    """Only what was counted under the attempt's own name is read, and an unknown attempt has no measurement at all."""
    bench.first.start(run="canary#0")
    bench.first.finish("error", 50)
    bench.second.finish("ok", 5)
    bench.until(lambda reading: counts(reading).get("errors") == (5, 0))
    assert bench.source.read("canary#2", {}).measurements == ()
    assert "follows" in bench.source.read("canary#2", {}).problem


def test_one_silent_replica_voids_the_reading(bench: Bench) -> None:
    """What a replica does that cannot be read is not known, so nothing is measured, and the reason names it."""
    bench.first.finish("ok", 5)
    bench.until(lambda reading: counts(reading).get("errors") == (5, 0))
    bench.second.stop()
    reading = bench.until(lambda reading: not reading.measurements)
    assert str(bench.second.server.server_port) in reading.problem


def test_a_dead_source_gives_nothing(bench: Bench) -> None:
    """A source that does not answer gives no measurement and says so; it does not raise."""
    bench.first.finish("ok", 5)
    bench.until(lambda reading: counts(reading).get("errors") == (5, 0))
    bench.kill_source()
    reading = bench.read()
    assert reading.measurements == ()
    assert reading.problem


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "2.5"])
def test_impossible_values_void_the_reading(bench: Bench, value: str) -> None:
    """A counter that says NaN, infinity, a negative or broken number is no measurement."""
    bench.first.start(run="")
    labels = f'run="{RUN}",mode="observe",model="m",provenance="synthetic",measure="errors"'
    bench.first.added = f"ml_rollout_samples_total{{{labels}}} {value}\n".encode()
    reading = bench.until(lambda reading: "can have" in reading.problem)
    assert reading.measurements == ()
    assert not math.isfinite(float(value)) or float(value) != abs(int(float(value)))
