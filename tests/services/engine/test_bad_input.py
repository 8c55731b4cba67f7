"""Hostile input: 100,000 fuzzed bodies in process, and what only a socket can do to a process."""

from __future__ import annotations

import json
import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode, checks

BODIES = 100_000
STATUSES = {200, 400, 404, 413, 415, 422}
NAMES = ("bias", "mid", "spread_bp", "vol1m", "rsi14", "log_vol1m")
VECTOR = [1.0, 45_000.0, 2.0, 1e6, 55.0, 13.8]
SNAPSHOT = {"ts": 1, "mid": 45_000.0, "spreadBp": 2.0, "vol1m": 1e6, "rsi14": 55.0}
PATHS = ("/ml/predict", "/v2/models/v1.8-b0/infer", "/invocations")
SEEDS: dict[str, list[Any]] = {
    "/ml/predict": [
        {"features": VECTOR}, {"features": dict(zip(NAMES, VECTOR, strict=True))}, {"snapshot": SNAPSHOT},
        {"rows": [VECTOR, dict(zip(NAMES, VECTOR, strict=True))], "symbol": "BTCUSDT", "as_of": "2024-01-01T00:00:00Z"},
        {"features": VECTOR, "fingerprint": "0" * 64, "as_of": 1_704_067_200_000_000_000},
    ],
    "/v2/models/v1.8-b0/infer": [
        {"inputs": [{"name": "x", "shape": [1, 6], "datatype": "FP64", "data": VECTOR}], "id": "1"},
        {"inputs": [{"name": n, "shape": [1], "datatype": "FP32", "data": [1.0]} for n in NAMES], "parameters": {"a": 1}},
    ],
    "/invocations": [
        {"dataframe_split": {"columns": list(NAMES), "data": [VECTOR]}}, {"instances": [VECTOR]},
        {"dataframe_records": [dict(zip(NAMES, VECTOR, strict=True))]}, {"inputs": {n: [1.0] for n in NAMES}},
    ],
}  # fmt: skip
TOKENS = [
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1e-400", b"1e308", b"-1e308", b"1" + b"0" * 400, b"null",
    b"true", b'"1"', b'""', b"[]", b"{}", b"[[[[[[", b"[" * 5_000, b'{"a":' * 500, b"\x00", b"\xff\xfe", b"\xed\xa0\x80",
    b'"\\ud800"', b"-0", b"0x10", b"01", b"1_000", b",", b":", b'"features":[1]', b'"mid":1', b"/*x*/", b"\xef\xbb\xbf",
    b"9" * 5_000, b"1." + b"3" * 300, b"'", b"}" * 50, b"]" * 50, b"  \n\t", b"1e9999999999", b"-", b"+1",
]  # fmt: skip
TYPES = ("application/json", "application/json; charset=utf-16", "text/plain", "", "multipart/form-data", "a/b+json")


def mutate(rng: random.Random, body: bytes) -> bytes:
    """Damage a body in one to three of the ways that clients do."""
    for _ in range(rng.randint(1, 3)):
        at, kind = rng.randint(0, len(body)), rng.randrange(8)
        if kind == 0:
            body = body[:at]
        elif kind == 1:
            body = body[:at] + rng.choice(TOKENS) + body[at:]
        elif kind == 2 and body:
            at %= len(body)
            body = body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
        elif kind == 3:
            to = min(len(body), at + rng.randint(1, 20))
            body = body[:at] + body[to:]
        elif kind == 4:
            to = min(len(body), at + rng.randint(1, 40))
            body = body[:to] + body[at:]
        elif kind == 5:
            parts = body.split(b",")
            i = rng.randrange(len(parts))
            parts[i] = rng.choice(TOKENS)
            body = b",".join(parts)
        elif kind == 6:
            parts = body.split(b",")
            rng.shuffle(parts)
            body = b",".join(parts)
        else:
            parts = body.split(b":")
            i = rng.randrange(len(parts))
            parts[i] = rng.choice(TOKENS) + parts[i][-1:]
            body = b":".join(parts)
    return body[: 1 << 21]


def corpus(seed: int, count: int) -> Iterator[tuple[str, bytes, str]]:
    """Yield (path, body, content type): mostly damaged requests, some whole ones and some noise."""
    rng = random.Random(seed)
    whole = {path: [json.dumps(body).encode() for body in bodies] for path, bodies in SEEDS.items()}
    for i in range(count):
        path = PATHS[0] if i % 4 else PATHS[1 + i % 8 // 4]
        body = rng.choice(whole[path])
        if i % 10_000 == 5_000:
            body = b'{"features":[' + b"1," * 5_000_000 + b"1]}"
        elif i % 50 == 49:
            body = rng.randbytes(rng.randint(0, 300))
        elif i % 20:
            body = mutate(rng, body)
        yield path, body, TYPES[0] if i % 30 else rng.choice(TYPES)


def drive(app: Any, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    """Run one request through the fast path, which never waits for anything but the body."""
    sent: list[Any] = []
    message = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> Any:
        return message

    async def send(part: Any) -> None:
        sent.append(part)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-type", content_type.encode())]}
    try:
        app(scope, receive, send).send(None)
    except StopIteration:
        return sent[0]["status"], sent[1]["body"]
    raise AssertionError("the fast path waited")


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_a_hundred_thousand_fuzzed_bodies_get_a_score_or_a_4xx_and_leave_no_memory(kit: SimpleNamespace):
    """No 5xx, no exception; each 200 holds scores in [0, 1], each 4xx the one shape of error; memory stays flat."""
    app, _ = kit.application()
    seen: Counter[int] = Counter()
    before = 0.0
    for i, (path, body, content_type) in enumerate(corpus(7, BODIES)):
        status, reply = drive(app, path, body, content_type)
        seen[status] += 1
        assert status in STATUSES, (status, path, body[:500])
        assert len(reply) < 2_000 or status == 200
        _check(status, json.loads(reply), body)
        if i == BODIES // 4:
            before = rss_mb()
    assert rss_mb() - before < 20
    assert min(seen[status] for status in (200, 400, 413, 415, 422)) > 0, seen
    counted = kit.call(app, "GET", "/ml/metrics").body.decode()
    lines = [line for line in counted.splitlines() if line.startswith("ml_predict_requests_total")]
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == BODIES


def _check(status: int, reply: Any, body: bytes) -> None:
    if status != 200:
        assert set(reply) <= {"error", "field", "allowed", "value"}
        assert reply["error"]
        assert reply["field"]
        return
    tensors = reply.get("outputs")
    scores = tensors[0]["data"] if tensors else reply.get("scores") or reply.get("predictions") or [reply["score"]]
    assert scores
    assert all(0.0 <= score <= 1.0 for score in scores), body[:500]


def test_fuzzed_bodies_get_the_same_answer_from_fastapi(kit: SimpleNamespace):
    """The differential test over a sample of the corpus: status and body agree on both ways in."""
    app, _ = kit.application()
    for path, body, content_type in corpus(11, 400):
        status, reply = drive(app, path, body, content_type)
        cold = kit.call(app.cold, "POST", path, body, content_type=content_type)
        ours, theirs = json.loads(reply), json.loads(cold.body)
        ours.pop("latency_ms", None)
        theirs.pop("latency_ms", None)
        assert (status, ours) == (cold.status, theirs), body[:500]


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_schemathesis_sends_is_answered_as_the_document_says(kit: SimpleNamespace, mode: GenerationMode):
    """No 5xx, no undocumented status, and every body as its schema says, for requests that fit the document and that do not.

    A schema cannot say that a vector has the model's length, so a request that fits it may still be refused.
    """
    document = schemathesis.openapi.from_asgi("/openapi.json", kit.application()[0])
    operations = [result.ok() for result in document.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/ml/predict", "/invocations", "/v2/models/{model}/infer"}
    tried: Counter[str] = Counter()
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # nothing in the request that could be wrong

        @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def run(case: Any) -> None:
            tried[case.operation.path] += 1
            case.call_and_validate(excluded_checks=[checks.positive_data_acceptance])

        run()
    assert tried["/ml/predict"] > 30


Attack = Callable[[socket.socket], None]
HEAD = b"POST /ml/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def attacks() -> dict[str, Attack]:
    """Return what only a socket can do."""

    def send(*parts: bytes) -> Attack:
        return lambda client: client.sendall(b"".join(parts))

    big = b" " * 10_000_000
    return {
        "leaves after the head": send(HEAD + b"content-length: 50\r\n\r\n"),
        "leaves within the body": send(HEAD + b'content-length: 50\r\n\r\n{"features":'),
        "leaves within a chunk": send(HEAD + b"transfer-encoding: chunked\r\n\r\nff\r\n{"),
        "ten megabytes declared": send(HEAD + b"content-length: 10000000\r\n\r\n", big),
        "ten megabytes in one chunk": send(
            HEAD + b"transfer-encoding: chunked\r\n\r\n989680\r\n", big, b"\r\n0\r\n\r\n"
        ),
        "a chunk that is none": send(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"),
        "two lengths": send(HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n{}"),
        "length and chunked": send(HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        "a length that is none": send(HEAD + b"content-length: -1\r\n\r\n"),
        "endless head": send(HEAD + b"x: " + b"y" * 1_000_000),
        "many heads": send(HEAD + b"".join(b"x-%d: y\r\n" % i for i in range(20_000))),
        "not HTTP": send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50),
        "a path that is none": send(b"POST http:///\x80/%zz HTTP/1.1\r\nhost: x\r\n\r\n"),
        "an upgrade": send(HEAD + b"connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\n{}"),
        "100-continue": send(HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n{}"),
        "pipelined": send((HEAD + b"content-length: 2\r\n\r\n{}") * 50),
        "nothing": send(b""),
    }


def test_a_process_survives_what_only_sockets_can_do(kit: SimpleNamespace, tmp_path: Path):
    """Every attack many times over: never a 5xx, the process stays, answers afterwards, and has not grown."""
    with kit.running(tmp_path, {"champion": kit.seed_artifact()}) as engine:

        def strike(attack: Attack) -> bytes:
            with socket.create_connection((engine.host, engine.port), timeout=10) as client:
                try:
                    attack(client)
                    client.shutdown(socket.SHUT_WR)
                    return client.recv(65_536)
                except OSError:
                    return b""

        for name, attack in attacks().items():
            assert b"HTTP/1.1 5" not in strike(attack), name
        before = engine.rss_mb()
        for attack in attacks().values():
            for _ in range(15):
                strike(attack)
        assert engine.rss_mb() - before < 15
        assert engine.ask("POST", "/ml/predict", {"features": VECTOR})[0] == 200
        assert engine.metric("ml_requests_abandoned_total") > 0


def test_slow_senders_are_cut_and_the_others_served(kit: SimpleNamespace, tmp_path: Path):
    """Heads and bodies that drip, or never come, are closed after the guard's period; a patient idle client is not."""
    with kit.running(tmp_path, {"champion": kit.seed_artifact()}, slow_s=0.3) as engine:
        starts = (
            b"",
            b"POST /ml/pre",
            HEAD,
            HEAD + b"content-length: 50\r\n\r\n",
            HEAD + b'content-length: 50\r\n\r\n{"f',
        )
        slow = [socket.create_connection((engine.host, engine.port)) for _ in range(50)]
        for i, client in enumerate(slow):
            client.sendall(starts[i % len(starts)])
        patient = engine.connect()
        patient.request("GET", "/ml/ready")
        assert patient.getresponse().read()
        open_ = dict(enumerate(slow))

        def all_cut() -> bool:
            assert engine.ask("POST", "/ml/predict", {"features": VECTOR})[0] == 200
            for i, client in list(open_.items()):
                client.setblocking(False)
                try:
                    client.send(b"x" if starts[i % len(starts)] else b"")  # drip
                    if client.recv(1_000) == b"":
                        del open_[i]
                except BlockingIOError:
                    continue
                except OSError:
                    del open_[i]
            return not open_

        engine.wait(all_cut)
        patient.request("GET", "/ml/ready")
        assert patient.getresponse().status == 200
        for client in slow:
            client.close()
