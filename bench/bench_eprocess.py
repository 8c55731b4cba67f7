"""Simulate how often watched tests err, how soon they abort, and measure what a decision costs.

Learnt: the grid of alternatives decides everything. An equal mixture over 0.05, 0.1, 0.2, 0.4 and 0.6 of the bound gives the
published sample sizes to the unit (a continuous uniform prior, the textbook choice, needs 20 % more at no error: most of its
mass lies on alternatives hardly better than the bound). For aborts, odds ratios of 1.5 to 16 in doublings see a sudden 20 % in
13 events and a creeping 3 % in about 1,450. Restarting the bet at each of six starts costs ln 6 = 1.8 nats, a few events at
20 % errors, and turns a delay of 1,400 events after a long good past into 25. Both tests are a handful of logs in plain Python;
numpy would be slower at five alternatives.

    python bench/bench_eprocess.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import exp

import numpy as np

from probatum.core.clock import NS_PER_S
from probatum.core.verdict import Provenance, Verdict
from probatum.rollout.bounds import clopper_pearson, clopper_pearson_n_needed, median_delay, power_above, power_below
from probatum.rollout.choose import Mode
from probatum.rollout.confirm import build_phrase
from probatum.rollout.eprocess import is_proven, log_e_above, log_e_above_since, log_e_below, n_needed
from probatum.rollout.events import Confirmed, DryRunDone, Observed, PreflightDone
from probatum.rollout.machine import Stage, State, advance, initial, required_permission
from probatum.rollout.measurement import RateMeasurement
from probatum.rollout.plan import Plan
from probatum.rollout.policy import shipped_policy

T0 = 1_700_000_000 * NS_PER_S
POLL_S = 15


def per_call(call: Callable[[], object], times: int) -> float:
    """Return CPU seconds a call."""
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def run_rollout(rates: dict[str, float], rng: np.random.Generator, hours: float) -> tuple[State, float, int]:
    """Drive the whole machine with one-second decisions; return its last state, CPU seconds, and events."""
    plan = Plan(name="bench", mode=Mode.OBSERVE, policy=shipped_policy("default"), model="a" * 64)
    measures = tuple(dict.fromkeys(item.measure for item in plan.criteria))
    state = advance(plan, initial(plan), PreflightDone(T0, Verdict.PASS, "p", Provenance.LIVE))[0]
    state = advance(plan, state, DryRunDone(T0, Verdict.PASS, "d", plan.digest, T0))[0]
    phrase = build_phrase(required_permission(plan, state, T0))
    state = advance(plan, state, Confirmed(T0, phrase, "bench"))[0]
    n, bad = 0, dict.fromkeys(measures, 0)
    start, events = time.process_time(), 0
    for now_s in range(POLL_S, int(hours * 3_600), POLL_S):
        more = int(rng.binomial(POLL_S, state.share_percent / 100))
        n += more
        for measure in measures:
            bad[measure] += int(rng.binomial(more, rates.get(measure, 0.0)))
        ts = T0 + now_s * NS_PER_S
        seen = (T0 + 1, ts) if n else (None, None)
        items = tuple(RateMeasurement(measure=m, n=n, bad=bad[m], first_ts=seen[0], last_ts=seen[1], read_ts=ts, source="sim",
                                      query=m, provenance=Provenance.LIVE) for m in measures)  # fmt: skip
        state = advance(plan, state, Observed(ts, items))[0]
        events += 1
        if state.stage is Stage.ABORTED:
            break
    return state, time.process_time() - start, events


def main() -> None:
    """Print sample sizes, error rates, delays and costs."""
    print("samples needed, fixed n / while watched, by bad events (rows) and bound (columns)")
    for bad in (0, 1, 2, 5, 10):
        row = (f"{clopper_pearson_n_needed(bad, b):>5}/{n_needed(bad, b):<5}" for b in (0.01, 0.02, 0.05, 0.1))
        print(f"{bad:>4}  {'  '.join(row)}")
    print(f"false promote, truth 1 %, 5,000 looks   {power_below(0.01, 0.01, 5_000):.1%}")
    print(f"false abort, truth 2 %, 5,000 looks     {power_above(0.02, 0.02, 5_000):.1%}")
    print(f"proven < 1 % in 1,500 at 0.1 %          {power_below(0.01, 0.001, 1_500):.1%}")
    delays = {rate: median_delay(0.02, rate) for rate in (0.5, 0.2, 0.1, 0.05, 0.03)}
    print(f"median delay of an abort above 2 %      {delays}")
    alone = next(n for n in range(1, 9_999) if is_proven(log_e_above(10_000 + n, 10 + n // 5, 0.02), 0.05))
    again = next(n for n in range(1, 9_999) if is_proven(log_e_above_since([(10_000, 10), (n, n // 5)], 0.02, 6), 0.05))
    print(f"20 % errors after 10,000 good events    {alone} events; restarted at the phase {again}")

    rng = np.random.default_rng(7)
    at_bound = [
        run_rollout({"errors": 0.02, "slower_than_120ms": 0.05, "uncovered": 0.1}, rng, 3)[0] for _ in range(200)
    ]
    aborted = sum(state.stage is Stage.ABORTED for state in at_bound)
    good = [run_rollout({"errors": 0.001, "slower_than_80ms": 0.01}, rng, 4)[0] for _ in range(100)]
    print(f"whole rollouts, three rates on their abort bounds: {aborted} of 100 aborted within 12 h")
    print(
        f"whole rollouts at 0.1 % errors: {sum(s.stage is Stage.COMPLETED for s in good)} of 100 completed within 4 h"
    )

    _, seconds, events = run_rollout({"errors": 0.001}, rng, 24)
    below = per_call(lambda: log_e_below(1_234, 5, 0.01), 20_000)
    clopper = per_call(lambda: clopper_pearson(1_234, 5), 20_000)
    floor = per_call(lambda: exp(-1.0), 200_000)
    print(f"one test {below / floor:.0f} × math.exp, {below / clopper:.2f} × Clopper-Pearson by scipy")
    print(f"a day of one-second decisions, {events:,} reads of six measures: {seconds:.2f} s CPU")


if __name__ == "__main__":
    main()
