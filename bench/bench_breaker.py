"""Choose the breaker's window by simulation, and measure breaker and latency sketch per call.

Learnt: what decides is how a *young* window is judged. The textbook rule (failures / calls made so far, from a minimum of
calls on) is hardest on itself at the minimum: three bad calls among the first hundred trip it, whatever the window is, so a
window of 500 alone is no better than 100. Counting the calls not made yet as good ("full window") removes that at no cost in
delay once the window has filled, and finds a dead engine sooner (call 20 instead of call 100). The Python loop is bound by
attribute loads: the outcome ring is read and written only when a failure enters or leaves it.

    python bench/bench_breaker.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from probatum.monitoring.latency import LatencySketch
from probatum.rollout.breaker import Breaker, BreakerSettings, State

RUNS, CALLS, RATE = 4_000, 1_000, 0.02


def first_trip(failed: NDArray[np.bool_], window: int, calls_min: int, full_window: bool) -> NDArray[np.int64]:
    """Return for each run (row) the call at which it trips, or one past the end."""
    total = np.cumsum(failed, axis=1, dtype=np.int64)
    inside = total.copy()
    inside[:, window:] -= total[:, :-window]
    made = np.minimum(np.arange(1, failed.shape[1] + 1), window)
    trips = (inside > RATE * (window if full_window else made)) & (np.arange(1, failed.shape[1] + 1) >= calls_min)
    return np.where(trips.any(axis=1), trips.argmax(axis=1) + 1, failed.shape[1] + 1)


def simulate() -> None:
    """Print false trips at 0.5 % and 1 % true errors, and the median delay after a healthy window at 5 to 100 %."""
    rng = np.random.default_rng(7)
    runs = {rate: rng.random((RUNS, CALLS)) < rate for rate in (0.005, 0.01)}
    bad = {rate: rng.random((RUNS // 4, 3_000)) < rate for rate in (0.05, 0.1, 0.2, 1.0)}
    print(f"{'rule':<14}{'window':>7}{'min':>5} | false trips in {CALLS} calls at .5 %, 1 % | delay cold at 100 % |"
          " median delay after a healthy window at 5, 10, 20, 100 %")  # fmt: skip
    for full_window, calls_min in ((False, 20), (False, 100), (True, 20)):
        for window in (100, 200, 300, 500, 1_000):
            false = [float((first_trip(x, window, calls_min, full_window) <= CALLS).mean()) for x in runs.values()]
            cold = int(np.median(first_trip(bad[1.0], window, calls_min, full_window)))
            delays = []
            for failed in bad.values():
                healthy = np.zeros((failed.shape[0], window), dtype=bool)
                at = first_trip(np.concatenate([healthy, failed], axis=1), window, calls_min, full_window)
                delays.append(int(np.median(at)) - window)
            print(f"{'full window' if full_window else 'calls made':<14}{window:>7}{calls_min:>5} | "
                  f"{false[0]:>8.2%} {false[1]:>8.2%} | {cold:>5} | {delays}")  # fmt: skip


def check_against_breaker() -> None:
    """Hold the vectorised simulation to the breaker itself."""
    failed = np.random.default_rng(11).random((200, CALLS)) < 0.02
    expected = first_trip(failed, 500, 20, True)
    for row, at in zip(failed, expected.tolist(), strict=True):
        breaker = Breaker(BreakerSettings())
        tripped = CALLS + 1
        for i, bad in enumerate(row.tolist(), start=1):
            breaker.record(not bad, i)
            if breaker.state is State.OPEN:
                tripped = i
                break
        if tripped != at:
            raise SystemExit(f"simulation says call {at}, the breaker {tripped}")


def cost_us(loop: Callable[[], None], count: int) -> float:
    """Return the best CPU time of nine rounds, in µs per item."""
    times = []
    for _ in range(9):
        start = time.process_time()
        loop()
        times.append(time.process_time() - start)
    return min(times) / count * 1e6


def measure() -> None:
    """Print the cost of allow + record, and of one sketch update, less the empty loop."""
    rng, count = random.Random(7), 200_000
    outcomes = [rng.random() >= 0.005 for _ in range(count)]
    latencies = [int(rng.lognormvariate(13.8, 1.0)) for _ in range(count)]
    breaker, sketch = Breaker(BreakerSettings(error_rate_max=0.5)), LatencySketch()

    def empty() -> None:
        for _ in outcomes:
            pass

    def calls() -> None:
        allow, record = breaker.allow, breaker.record
        for ok in outcomes:
            allow(1)
            record(ok, 1)

    def updates() -> None:
        add = sketch.add
        for value in latencies:
            add(value)

    base = cost_us(empty, count)
    print(f"breaker, allow + record: {cost_us(calls, count) - base:.3f} µs a call (bound 0.3)")
    print(f"latency sketch, add:     {cost_us(updates, count) - base:.3f} µs an update (bound 0.15)")


if __name__ == "__main__":
    check_against_breaker()
    simulate()
    measure()
