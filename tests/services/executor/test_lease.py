"""The lease's thread reads on whatever its source does, and a hanging one costs the share and nothing else."""

from __future__ import annotations

import threading
import time

from probatum.rollout.choose import Mode
from probatum.rollout.lease import RolloutDocument
from probatum.services.executor.lease import Lease


class Source:
    """Give a document whose sequence counts the reads; every other one fails, and so does every wait."""

    def __init__(self) -> None:
        self.reads = 0

    def current(self) -> RolloutDocument:
        self.reads += 1
        if self.reads % 2:
            raise ConnectionError
        return RolloutDocument(mode=Mode.GATED, share=0.5, sequence=self.reads)

    def wait(self) -> None:
        raise TimeoutError


def test_errors_of_a_source_do_not_end_the_thread() -> None:
    """Reads go on after failed ones, and after waits that failed."""
    lease = Lease(Source(), time.monotonic_ns)
    lease.start()
    while lease.read()[0].sequence < 4:
        time.sleep(0.01)
    lease.stop()


def test_a_source_that_hangs_leaves_share_0_and_lets_start_return() -> None:
    """The loop that starts the lease is not held up for longer than a lease, and nothing may be served."""
    release = threading.Event()

    class Hanging(Source):
        def current(self) -> RolloutDocument:
            release.wait()
            return RolloutDocument(mode=Mode.GATED, share=1.0)

    lease = Lease(Hanging(), time.monotonic_ns)
    lease.start()
    assert lease.read() == (RolloutDocument(mode=Mode.OFF, share=0.0), 0.0)
    lease.stop()
    release.set()


def test_a_read_that_took_longer_than_a_lease_renews_nothing() -> None:
    """What it returned may have been true only when it began."""
    now = [0]

    class Slow(Source):
        def current(self) -> RolloutDocument:
            now[0] += 500_000_001
            return RolloutDocument(mode=Mode.GATED, share=1.0)

    lease = Lease(Slow(), lambda: now[0])
    lease.renew()
    assert lease.read()[1] == 0.0
    assert lease.document.mode is Mode.GATED
