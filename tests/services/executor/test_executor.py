"""The executor in process: what it answers, what it refuses, when the champion may speak."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probatum.core.clock import NS_PER_MINUTE, NS_PER_MS, VirtualClock
from probatum.core.errors import ParameterError
from probatum.features.labels import parse_target
from probatum.features.sets import FeatureSet, get_feature_set
from probatum.features.state import FeatureState
from probatum.models.baseline import get_baseline
from probatum.monitoring.shadow import DecisionRow, Outcome
from probatum.rollout.breaker import Breaker, BreakerSettings
from probatum.rollout.choose import Mode
from probatum.rollout.lease import LEASE_NS, RolloutDocument
from probatum.services.executor.app import ExecutorApp
from probatum.services.executor.caller import KNOWN_CAUSES, Caller, parse_answers
from probatum.services.executor.client import EngineClient, Reply
from probatum.services.executor.decide import Executor, ExecutorSettings
from probatum.services.executor.outcomes import LiveOutcomes
from probatum.services.executor.shadow import FULL_ROWS, Shadow, ShadowSettings
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

NOW_NS = 1_704_067_200_000_000_000
SNAPSHOT = {"ts": 0, "mid": 42_000.0, "spreadBp": 1.0, "vol1m": 1e6, "rsi14": 75.0}


class Wire:
    """Stand in for the HTTP connection: answer at once, hold, or time out, as the test says."""

    def __init__(self, answer: Callable[[list[list[float]]], Reply] | None) -> None:
        self.answer, self.bodies, self.held = answer, [], []
        self.is_free = True

    def call(self, body: bytes, timeout_s: float, done: Callable[[Reply], None]) -> None:  # noqa: ARG002
        self.bodies.append(json.loads(body))
        if self.answer is None:
            self.held.append(done)
        else:
            done(self.answer(self.bodies[-1]["rows"]))

    async def ask(self, body: bytes, timeout_s: float) -> Reply:  # noqa: ARG002
        self.bodies.append(json.loads(body))
        assert self.answer is not None
        return self.answer(self.bodies[-1]["rows"])

    def close(self) -> None:
        pass


def scores(value: float) -> Callable[[list[list[float]]], Reply]:
    return lambda rows: Reply(200, json.dumps({"scores": [value] * len(rows)}).encode())


class Source:
    """A rollout document that the test can change or take away."""

    def __init__(self, **fields: Any) -> None:
        self.fields: dict[str, Any] | None = fields

    def current(self) -> RolloutDocument:
        if self.fields is None:
            raise OSError("no controller")
        return RolloutDocument(**self.fields)


class Stand:
    """An executor with every outside part replaced, and its time in the test's hand."""

    def __init__(
        self, challenger: Wire, champion: Wire | None = None, feature_set: str = "v1.8-b0", delivery: str = "mirror",
        share: float = 1.0, mode: Mode = Mode.OBSERVE, has: frozenset[str] | None = None, baseline: str = "direction", batch_ms: int = 10,
    ) -> None:  # fmt: skip
        self.clock, self.mono_ns, self.rows = VirtualClock(NOW_NS), 10**12, []
        self.source, self.registry = Source(mode=mode, share=share), Registry()
        self.set: FeatureSet = get_feature_set(feature_set, has)
        self.settings = ShadowSettings(batch_ms=batch_ms)
        self.shadow = Shadow(self.caller(challenger), self.settings, self.now_ns, self, self.registry)
        self.executor = Executor(
            self.set, get_baseline(baseline), self.shadow, self.source, clock=self.clock, now_ns=self.now_ns,
            registry=self.registry, run_id="run", settings=ExecutorSettings(delivery=delivery),  # type: ignore[arg-type]
            champion=self.caller(champion) if champion else None, new_state=lambda: FeatureState(self.set, None),
        )  # fmt: skip
        self.executor.lease.renew()
        self.app = ExecutorApp(self.executor, self.registry, {"ml_engine_url": "http://test", "timeout_ms": 250})

    def now_ns(self) -> int:
        return self.mono_ns

    def append(self, row: DecisionRow) -> bool:
        self.rows.append(row)
        return True

    def caller(self, wire: Wire) -> Caller:
        return Caller(wire, self.set.fingerprint, Breaker(BreakerSettings()), self.now_ns)  # type: ignore[arg-type]

    async def send(self, body: bytes, path: str = "/predict-with-shadow", method: str = "POST",
                   content_type: bytes = b"application/json") -> tuple[int, bytes]:  # fmt: skip
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def keep(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "path": path, "method": method, "headers": [(b"content-type", content_type)]}
        await self.app(scope, receive, keep)
        return sent[0]["status"], sent[1]["body"]

    async def post(self, body: object, path: str = "/predict-with-shadow") -> tuple[int, dict[str, Any]]:
        status, text = await self.send(json.dumps(body).encode(), path)
        return status, json.loads(text)


def run(stand: Stand, *bodies: object, settle_s: float = 0.05) -> list[tuple[int, dict[str, Any]]]:
    """Post the bodies one after the other and let the mirror finish."""

    async def go() -> list[tuple[int, dict[str, Any]]]:
        replies = [await stand.post(body) for body in bodies]
        for _ in range(200):
            if not stand.shadow.pending:
                break
            await asyncio.sleep(settle_s / 10)
        return replies

    return asyncio.run(go())


def test_a_reply_waits_for_no_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """While decisions and their events come in, not one label is computed: rows only lie in the queue, with the mid in force."""
    monkeypatch.setattr(LiveOutcomes, "work", lambda _: pytest.fail("worked on the reply path"))
    stand = Stand(Wire(scores(0.6)), delivery="await", has=frozenset({"volume"}))
    outcomes = LiveOutcomes(parse_target("direction@60s"), None, stand.registry)
    stand.executor.outcomes, stand.executor._row_kinds = outcomes, outcomes.kinds
    bars = [[NOW_NS + (i - 30) * NS_PER_MINUTE, 2, 100.0 + i % 3, None, 5.0, 0] for i in range(30)]
    replies = run(stand, *({"symbol": "X", "events": [bar, [bar[0], 3, 0, 0, 0, 0]]} for bar in bars))
    assert [status for status, _ in replies] == [409] * 14 + [200] * 16
    assert list(outcomes._queue) == [("X", bar[0], bar[2]) for bar in bars]


def test_await_gives_the_seeds_reply() -> None:
    """Baseline, shadow, match, delta to 4 places and the three latencies, under the seed's names."""
    stand = Stand(Wire(scores(0.62345678)), delivery="await")
    [(status, reply)] = run(stand, {"snapshot": SNAPSHOT, "symbol": "BTCUSDT"})
    assert status == 200
    latency = reply.pop("latency")
    assert reply == {
        "prediction": 0.6, "shadow": 0.62345678, "match": True, "delta": 0.0235, "route": "baseline", "outcome": "ok",
        "decision_id": "run-1",
    }  # fmt: skip
    assert set(latency) == {"baseline_ms", "shadow_ms", "total_ms"}


def test_mirror_replies_first_and_batches() -> None:
    """Replies are out before the engine is called; the calls carry all rows of a tick at once, and bit for bit."""
    wire = Wire(scores(0.6))
    stand = Stand(wire, batch_ms=200)
    replies: list[Any] = []

    async def go() -> None:
        for i in range(5):
            replies.append(await stand.post({"features": [1, 100.0, 0.1 + i, 3, 50, 1 / 3]}))  # noqa: PERF401
        assert wire.bodies == []
        while stand.shadow.pending:
            await asyncio.sleep(0.002)

    asyncio.run(go())
    assert [reply["outcome"] for _, reply in replies] == ["mirrored"] * 5
    assert all(reply["shadow"] is None and reply["match"] is None for _, reply in replies)
    assert wire.bodies == [
        {"rows": [[1, 100.0, 0.1 + i, 3, 50, 1 / 3] for i in range(5)], "fingerprint": stand.set.fingerprint}
    ]
    assert [row.challenger for row in stand.rows] == [0.6] * 5


def test_a_batch_that_is_full_waits_for_no_more_company() -> None:
    """At FULL_ROWS the call leaves at the next turn of the loop, long before its time, and carries exactly those rows."""
    wire = Wire(scores(0.6))
    stand = Stand(wire, batch_ms=60_000)

    async def go() -> None:
        for _ in range(FULL_ROWS):
            assert wire.bodies == []
            await stand.post({"snapshot": SNAPSHOT})
        await asyncio.sleep(0)

    asyncio.run(go())
    assert [len(body["rows"]) for body in wire.bodies] == [FULL_ROWS]
    assert stand.shadow.pending == 0


def test_off_asks_nobody_and_counts_skipped() -> None:
    """In ``off`` no call is made, and each decision is an attempt that was skipped."""
    wire = Wire(scores(0.5))
    stand = Stand(wire, mode=Mode.OFF)
    run(stand, *[{"snapshot": SNAPSHOT}] * 3)
    assert wire.bodies == []
    assert stand.shadow.counts.outcomes[Outcome.SKIPPED] == 3 == stand.executor.decisions


def test_share_skips_the_rest_and_a_lapsed_lease_skips_all() -> None:
    """A quarter is a quarter of the decision ids; 500 ms after the last renewal it is nothing, and a renewal brings it back."""
    stand = Stand(Wire(scores(0.5)), share=0.25)
    run(stand, *[{"snapshot": SNAPSHOT}] * 400)
    assert 60 <= stand.shadow.counts.outcomes[Outcome.OK] <= 140
    heard = stand.shadow.counts.outcomes[Outcome.OK]
    stand.source.fields = None
    stand.mono_ns += LEASE_NS + 1
    stand.executor.lease.renew()
    run(stand, *[{"snapshot": SNAPSHOT}] * 100)
    assert stand.shadow.counts.outcomes[Outcome.OK] == heard
    stand.source.fields = {"share": 1.0}
    stand.executor.lease.renew()
    run(stand, {"snapshot": SNAPSHOT})
    assert stand.shadow.counts.outcomes[Outcome.OK] == heard + 1


FRESH = {"snapshot": SNAPSHOT, "as_of": NOW_NS, "strategy": "s", "symbol": "X", "session": "d"}


@pytest.mark.parametrize(
    ("change", "champion", "reason"),
    [
        ({}, scores(0.9), "ok"),
        ({"as_of": NOW_NS - 91 * 10**9}, scores(0.9), "stale"),
        ({"as_of": None}, scores(0.9), "stale"),
        ({}, lambda _: Reply(500), "error"),
        ({}, lambda _: Reply(0, cause="timeout"), "timeout"),
        ({}, lambda _: Reply(200, b'{"scores":[NaN]}'), "nan"),
    ],
)
def test_gated_champion_answers_only_when_all_allow(change: dict[str, Any], champion: Any, reason: str) -> None:
    """The champion's score is the prediction where it came; else the baseline's, and the reason is in the log."""
    stand = Stand(Wire(scores(0.1)), Wire(champion), mode=Mode.GATED)
    [(status, reply)] = run(stand, FRESH | change)
    assert status == 200
    expected = (0.9, "champion") if reason == "ok" else (0.6, "baseline")
    assert (reply["prediction"], reply["route"]) == expected
    assert stand.rows[0].champion_outcome == reason
    assert stand.rows[0].challenger == 0.1


def test_gated_drift_breaker_and_share_hold_the_champion_back() -> None:
    """Drift, an open breaker, a unit outside the share: the champion is not even asked."""
    wire = Wire(scores(0.9))
    stand = Stand(Wire(scores(0.1)), wire, mode=Mode.GATED)
    stand.source.fields = {"mode": Mode.GATED, "drift_ok": False}
    stand.executor.lease.renew()
    run(stand, FRESH)
    stand.source.fields = {"mode": Mode.GATED, "share": 0.0}
    stand.executor.lease.renew()
    run(stand, FRESH)
    assert wire.bodies == []
    stand.source.fields = {"mode": Mode.GATED}
    stand.executor.lease.renew()
    assert stand.executor.champion is not None
    for _ in range(20):
        stand.executor.champion.breaker.record(False, stand.mono_ns)
    run(stand, FRESH)
    assert wire.bodies == []
    assert [row.champion_outcome for row in stand.rows] == ["drift", "not_in_share", "breaker_open"]
    assert {row.route for row in stand.rows} == {"baseline"}


def test_gated_units_are_sticky() -> None:
    """At half a share about half of the units are answered by the champion, each of them always or never."""
    stand = Stand(Wire(scores(0.1)), Wire(scores(0.9)), mode=Mode.GATED, share=0.5)
    bodies = [FRESH | {"strategy": f"s{i % 40}"} for i in range(200)]
    routes: dict[str, set[str]] = {}
    for body, (_, reply) in zip(bodies, run(stand, *bodies), strict=True):
        routes.setdefault(body["strategy"], set()).add(reply["route"])
    assert all(len(kinds) == 1 for kinds in routes.values())
    assert 8 <= sum(kinds == {"champion"} for kinds in routes.values()) <= 32


def test_a_queue_that_is_full_sheds_and_a_row_that_waits_too_long_times_out() -> None:
    """With every connection busy rows wait, the newest beyond the bound are shed, and the old time out; all are counted."""
    wire = Wire(scores(0.5))
    wire.is_free = False
    stand = Stand(wire)

    async def go() -> None:
        for _ in range(stand.settings.queue_rows + 7):
            await stand.post({"snapshot": SNAPSHOT})
        stand.mono_ns += (stand.settings.mirror_ms + 50) * NS_PER_MS
        while stand.shadow.pending:
            await asyncio.sleep(0.005)

    asyncio.run(go())
    outcomes = stand.shadow.counts.outcomes
    assert (outcomes[Outcome.SHED], outcomes[Outcome.TIMEOUT]) == (7, stand.settings.queue_rows)


def test_an_answer_after_the_limit_is_a_timeout() -> None:
    """A score that comes later than the mirror's timeout is not compared."""
    wire = Wire(None)
    stand = Stand(wire)

    async def go() -> None:
        await stand.post({"snapshot": SNAPSHOT})
        while not wire.held:
            await asyncio.sleep(0.002)
        stand.mono_ns += 300 * NS_PER_MS
        wire.held.pop()(Reply(200, b'{"scores":[0.5]}'))

    asyncio.run(go())
    assert stand.rows[0].outcome == "timeout"
    assert stand.rows[0].challenger is None


def test_drain_leaves_nothing_pending() -> None:
    """Stopping waits for what is in flight and sheds what cannot be sent; the sums hold."""
    wire = Wire(scores(0.5))
    stand = Stand(wire)

    async def go() -> None:
        await stand.app.start()
        for _ in range(20):
            await stand.post({"snapshot": SNAPSHOT})
        await stand.app.stop()

    asyncio.run(go())
    assert stand.shadow.pending == 0
    assert len(stand.rows) == 20 == stand.shadow.counts.attempts


def bar(minute: int, close: float) -> list[Any]:
    return [minute * NS_PER_MINUTE, 2, close, None, 5.0, 0]


def test_state_warms_up_and_then_decides() -> None:
    """A symbol's features come from its events; before they are ready the answer is 409, for an unknown symbol 404."""
    stand = Stand(Wire(scores(0.5)), has=frozenset({"volume"}))
    first, events, ready, unknown, warming = run(
        stand,
        {"symbol": "X", "events": [bar(1, 100.0)]},
        {"symbol": "X", "events": [bar(m, 100.0 + m % 2) for m in range(2, 17)]},
        {"symbol": "X"},
        {"symbol": "Y"},
        {"symbol": "Z", "events": [bar(1, 100.0)]},
    )
    assert (first[0], events[0], ready[0], unknown[0], warming[0]) == (409, 200, 200, 404, 409)
    oracle = FeatureState(stand.set, None)
    for minute in range(1, 17):
        oracle.update(minute * NS_PER_MINUTE, 2, 100.0 + (minute % 2 if minute > 1 else 0), float("nan"), 5.0, 0.0)
    assert [row.features for row in stand.rows] == [oracle.values.tolist()] * 2
    assert {row.as_of for row in stand.rows} == {16 * NS_PER_MINUTE}


def test_an_impossible_event_is_named_and_those_before_it_stay() -> None:
    """Time that goes back is refused by index; the events before it were applied, the state goes on."""
    stand = Stand(Wire(scores(0.5)), has=frozenset({"volume"}))

    async def go() -> list[tuple[int, dict[str, Any]]]:
        bad = {"symbol": "X", "events": [bar(1, 100.0), bar(2, 101.0), bar(1, 100.0)]}
        good = {"symbol": "X", "events": [bar(3, 100.0)]}
        return [await stand.post(bad, "/market/events"), await stand.post(good, "/market/events")]

    (status, refusal), (after, reply) = asyncio.run(go())
    assert (status, refusal["field"]) == (422, "events[2].ts")
    assert (after, reply) == (200, {"applied": 1, "ready": False})


def test_an_event_from_the_future_poisons_no_symbol() -> None:
    """Were it taken, every later event would be refused as late, and old data would look fresh to the champion."""
    stand = Stand(Wire(scores(0.5)), has=frozenset({"volume"}))
    future = {"symbol": "X", "events": [[NOW_NS * 2, 2, 100.0, None, 5.0, 0]]}
    past = {"symbol": "X", "events": [bar(1, 100.0)]}

    async def go() -> list[int]:
        return [(await stand.post(body, "/market/events"))[0] for body in (future, past)]

    assert asyncio.run(go()) == [422, 200]


def test_every_cause_of_an_error_is_there_before_the_first() -> None:
    """A rate over a series that appears with its first error misses that error: each begins at 0, as do the seed's names."""
    stand = Stand(Wire(scores(0.5)))
    text = stand.registry.expose().decode()
    for cause in KNOWN_CAUSES:
        assert f'ml_shadow_error_total{{error_type="{cause}"}} 0\n' in text
    for reply in (Reply(0, cause="timeout"), Reply(0, cause="refused"), Reply(0, cause="closed"), Reply(404), Reply(500),
                  Reply(200, b"rubbish"), Reply(200, b'{"scores":[NaN]}')):  # fmt: skip
        assert parse_answers(reply, 1)[0].cause in KNOWN_CAUSES


def test_vectors_computed_from_market_state_are_counted() -> None:
    """A snapshot's vector is computed here and counts; one that came as a vector, or was refused, does not."""
    stand = Stand(Wire(scores(0.5)))
    run(stand, {"snapshot": SNAPSHOT}, {"features": [1, 2, 3, 4, 5, 6]}, {"snapshot": {"ts": 0}})
    assert stand.registry.value(metrics.FEATURE_EXTRACTIONS) == 1


BAD: list[tuple[object, int, str]] = [
    ({}, 400, "snapshot"),
    ({"symbol": "X", "strategy": "s"}, 404, "symbol"),
    ({"snapshot": {**SNAPSHOT, "mid": -1}}, 422, "snapshot.mid"),
    ({"snapshot": {**SNAPSHOT, "mid": "1"}}, 422, "snapshot.mid"),
    ({"snapshot": {**SNAPSHOT, "more": 1}}, 422, "snapshot.more"),
    ({"snapshot": {"ts": 0}}, 422, "snapshot.mid"),
    ({"snapshots": SNAPSHOT}, 422, "snapshots"),
    ({"features": [1, 2]}, 422, "features"),
    ({"features": []}, 422, "features"),
    ({"features": [1, 2, 3, 4, 5, None]}, 422, "features[5]"),
    ({"features": [1, 2, 3, 4, 5, True]}, 422, "features[5]"),
    ({"features": {"bias": 1}}, 422, "features.mid"),
    ({"features": dict.fromkeys(["bias", "mid", "spread_bp", "vol1m", "rsi14", "volume"], 1)}, 422, "features.volume"),
    ({"features": [1, 2, 3, 4, 5, 6], "fingerprint": "0"}, 422, "fingerprint"),
    ({"features": [1, 2, 3, 4, 5, 6], "as_of": NOW_NS + 10**11}, 422, "as_of"),
    ({"features": [1, 2, 3, 4, 5, 6], "as_of": "yesterday"}, 422, "as_of"),
    ({"features": [1, 2, 3, 4, 5, 6], "as_of": 10**30}, 422, "as_of"),
    ({"features": [1, 2, 3, 4, 5, 6], "events": []}, 422, "events"),
    ({"features": [1, 2, 3, 4, 5, 6], "symbol": "x" * 129}, 422, "symbol"),
    ({"snapshot": SNAPSHOT, "fingerprint": "0"}, 422, "fingerprint"),
    ({"symbol": "X", "fingerprint": "0"}, 422, "fingerprint"),
    ({"symbol": "X", "as_of": NOW_NS}, 422, "as_of"),
    ({"symbol": "X", "events": [[NOW_NS + 10**10, 2, 1, None, 1, 0]]}, 422, "events[0].ts"),
    ({"symbol": "X", "events": [[1, 9, 1, 1, 1, 1]]}, 422, "events[0][1]"),
    ({"symbol": "X", "events": [[-1, 2, 1, 1, 1, 1]]}, 422, "events[0][0]"),
    ({"symbol": "X", "events": [[1, 2, -1, None, 1, 1]]}, 422, "events[0].values"),
    ([], 422, "body"),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD)
def test_bad_input_is_refused_by_name(body: object, status: int, field: str) -> None:
    """What cannot be answered is a 4xx that names the field, is no decision, and reaches no engine."""
    wire = Wire(scores(0.5))
    stand = Stand(wire)
    [(got, reply)] = run(stand, body)
    assert (got, reply["field"]) == (status, field)
    assert reply["error"]
    assert stand.executor.decisions == 0 == len(wire.bodies)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b"\xff", 400), (b'{"features":[1,2,3,4,5,1e400]}', 422), (b'{"features":[NaN]}', 400),
     (b"[" * 100_000, 422), (b'{"symbol":"a","symbol":"b"}', 422), (b'{"snapshot":null}', 400), (b" " * (2 << 20), 413)],
)  # fmt: skip
def test_what_is_no_json_is_refused(body: bytes, status: int) -> None:
    """Truncated, nested, oversize, out-of-range or duplicate: a 4xx with an error body."""
    got, text = asyncio.run(Stand(Wire(None)).send(body))
    assert (got, "error" in json.loads(text)) == (status, True)


@settings(max_examples=300, deadline=None)
@given(body=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["snapshot", "features", "events", "symbol", "as_of", "mid", "rsi14", "x"]), inner, max_size=4),
    max_leaves=12))  # fmt: skip
def test_nothing_makes_it_fail(body: object) -> None:
    """Whatever JSON comes, on either path, the answer is 200 or 4xx, never 5xx."""
    stand = Stand(Wire(scores(0.5)))
    text = json.dumps(body).encode()

    async def go() -> list[int]:
        return [(await stand.send(text, path))[0] for path in ("/executor/predict-with-shadow", "/market/events")]

    assert all(status == 200 or 400 <= status < 500 for status in asyncio.run(go()))


def test_other_paths_methods_and_types() -> None:
    """404, 405 and 415 have error bodies too; /metrics and /shadow/metrics show what happened."""
    stand = Stand(Wire(scores(0.6)))
    run(stand, {"snapshot": SNAPSHOT})

    async def go() -> list[tuple[int, bytes]]:
        return [
            await stand.send(b"", "/nope", "GET"),
            await stand.send(b"", "/predict-with-shadow", "GET"),
            await stand.send(b"", "/metrics", "POST"),
            await stand.send(b"{}", content_type=b"text/csv"),
            await stand.send(b"", "/metrics", "GET"),
            await stand.send(b"", "/shadow/metrics", "GET"),
            await stand.send(b"", "/health", "GET"),
        ]

    replies = asyncio.run(go())
    assert [status for status, _ in replies] == [404, 405, 405, 415, 200, 200, 200]
    text = replies[4][1].decode()
    for line in ("ml_shadow_match_total 1", "ml_shadow_match_rate 1", 'ml_shadow_outcomes_total{outcome="ok"} 1',
                 "ml_shadow_success_total 1", 'ml_breaker_open{engine="challenger"} 0'):  # fmt: skip
        assert any(found.startswith(line) for found in text.splitlines()), line
    shown = json.loads(replies[5][1])
    assert (shown["match_rate"], shown["total_predictions"], shown["matches"], shown["mismatches"], shown["errors"]) == (
        1.0, 1, 1, 0, 0,
    )  # fmt: skip
    assert shown["config"] == {"ml_engine_url": "http://test", "timeout_ms": 250, "match_threshold": 0.05}


def test_a_baseline_that_cannot_read_the_set_is_refused_at_the_start() -> None:
    """The baseline is always available, so a set without its inputs is a message at the start, not a surprise later."""
    with pytest.raises(ParameterError, match="baseline"):
        Stand(Wire(None), feature_set="robust", baseline="next_move")


@settings(max_examples=200, deadline=None)
@given(status=st.integers(0, 999), body=st.binary(max_size=40) | st.sampled_from(
    [b'{"scores":[0.5]}', b'{"scores":[NaN]}', b'{"scores":[1]}', b'{"scores":{}}', b'{"scores":[0.5,0.5]}', b"[]", b"null"]),
    rows=st.integers(1, 3))  # fmt: skip
def test_every_row_of_a_call_gets_one_answer(status: int, body: bytes, rows: int) -> None:
    """Whatever an engine sends there is one answer a row, and a score only with outcome ok and in [0, 1]."""
    answers = parse_answers(Reply(status, body), rows)
    assert len(answers) == rows
    for answer in answers:
        assert (answer.outcome is Outcome.OK) == (answer.score is not None)
        assert answer.score is None or 0.0 <= answer.score <= 1.0


async def _serve(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> tuple[asyncio.Server, str]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return await reader.readexactly(length)


def test_client_keeps_its_connection_and_survives_its_closing() -> None:
    """Calls reuse one connection; when the engine closes it between two calls the next one is sent again, once."""
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        for _ in range(3):
            body = await _read_request(reader)
            connections[-1] += 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await reader.readexactly(1)  # the fourth request is received and never answered
        writer.transport.abort()

    async def go() -> list[Reply]:
        server, url = await _serve(handle)
        client = EngineClient(url)
        replies = [await client.ask(b"%d" % i, 5.0) for i in range(7)]
        client.close()
        server.close()
        return replies

    replies = asyncio.run(go())
    assert [reply.body for reply in replies] == [b"%d" % i for i in range(7)]
    assert connections == [3, 3, 1]


def test_client_drops_a_connection_whose_answer_is_late() -> None:
    """An answer after the timeout is never taken for the next call's."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await _read_request(reader)
        if body == b"slow":
            await asyncio.sleep(0.2)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    async def go() -> tuple[Reply, Reply]:
        server, url = await _serve(handle)
        client = EngineClient(url, connections_max=1)
        late = await client.ask(b"slow", 0.05)
        await asyncio.sleep(0.01)
        next_one = await client.ask(b"next", 5.0)
        await asyncio.sleep(0.2)
        server.close()
        return late, next_one

    late, next_one = asyncio.run(go())
    assert (late.status, late.cause) == (0, "timeout")
    assert (next_one.status, next_one.body) == (200, b"next")


def test_client_gives_up_connecting_to_a_host_that_is_silent() -> None:
    """A handshake that nobody answers ends with its call, so that its place is free when the host is back."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, socket.socket() as filler:
        filler.connect(deaf.getsockname())  # the queue is full: the next handshake is dropped

        async def go() -> tuple[Reply, bool, Reply]:
            client = EngineClient(f"http://127.0.0.1:{deaf.getsockname()[1]}", connections_max=1)
            replies = [await client.ask(b"x", 0.05)]
            for _ in range(10):
                await asyncio.sleep(0)
            is_free = client.is_free
            replies.append(await client.ask(b"x", 0.05))
            client.close()
            return replies[0], is_free, replies[1]

        first, is_free, second = asyncio.run(go())
    assert (first.cause, is_free, second.cause) == ("timeout", True, "timeout")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(b"garbage\r\n\r\n", "protocol"), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "closed"), (b"", "closed")],
)
def test_client_names_how_a_call_failed(answer: bytes, cause: str) -> None:
    """Rubbish is ``protocol``; a connection that ends early is ``closed``; the client goes on."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)
        writer.write(answer)
        writer.close()

    async def go() -> Sequence[Reply]:
        server, url = await _serve(handle)
        client = EngineClient(url, connections_max=2)
        replies = [await client.ask(b"x", 5.0) for _ in range(5)]
        assert client.is_free
        server.close()
        return replies

    assert {(reply.status, reply.cause) for reply in asyncio.run(go())} == {(0, cause)}


def test_structs_match_what_is_documented() -> None:
    """The reply's fields are the seed's and then ours, in this order."""
    from probatum.services.executor.schema import DecisionReply

    assert msgspec.structs.fields(DecisionReply)[0].name == "prediction"
    assert [f.name for f in msgspec.structs.fields(DecisionReply)][:5] == [
        "prediction",
        "shadow",
        "match",
        "delta",
        "latency",
    ]
