"""The engine as the process it is: workers, swaps, drain, memory, and what it imports."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from probatum.services.engine.swap import Control

ROW = [0.1] * 7
OPERATE = {"Authorization": "Bearer operator"}
SUCCESS = 'ml_predict_requests_total{model_version="%s",status="success"}'


class Load:
    """Send predictions over keep-alive connections at a steady rate, until told to stop; keep every reply."""

    def __init__(self, engine: Any, clients: int = 4, per_s: float = 400.0) -> None:
        self.replies: list[tuple[int, Any]] = []
        self.failures: list[str] = []
        self._engine, self._pause_s = engine, clients / per_s
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = self._engine.connect()
        body, due = json.dumps({"features": ROW}), time.monotonic()
        while not self._end.is_set():
            due += self._pause_s  # open loop: a slow reply does not slow the next intended send
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                connection.request("POST", "/ml/predict", body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                self.replies.append((reply.status, json.loads(reply.read())))
            except Exception as error:
                self.failures.append(repr(error))
        connection.close()

    def versions(self) -> list[str]:
        return [reply["version"] for status, reply in self.replies if status == 200]


def test_a_thousand_requests_over_four_workers_count_exactly_a_thousand(kit: SimpleNamespace, tmp_path: Path):
    """Whoever is scraped shows the sum over all workers, buckets included, also after one was killed and replaced."""
    with kit.running(tmp_path, {"champion": kit.logistic_artifact()}, workers=4) as engine:
        body = {"features": ROW}

        def send(_: int) -> int:
            return int(engine.ask("POST", "/ml/predict", body)[0])

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(send, range(600))) == {200}
        victim = engine.workers()[1]
        os.kill(victim, signal.SIGKILL)
        engine.wait(lambda: len(engine.workers()) == 4 and victim not in engine.workers())
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(send, range(400))) == {200}
        for _ in range(8):
            assert engine.metric(SUCCESS % "m1") == 1_000
            assert engine.metric('ml_predict_latency_ms_bucket{model_version="m1",le="+Inf"}') == 1_000
            assert engine.metric('ml_predict_latency_seconds_count{model_version="m1"}') == 1_000
            assert engine.metric("ml_prediction_score_count") == 1_000


def test_a_flip_and_a_flip_back_under_load_drop_nothing_in_any_worker(kit: SimpleNamespace, tmp_path: Path):
    """While requests keep coming: swap to green, back to blue (which stayed loaded), no failure, no mixed reply."""
    blue, green = kit.logistic_artifact("blue", intercept=-1.0), kit.logistic_artifact("green", intercept=1.0)
    with kit.running(tmp_path, {"champion": blue, "challenger": green}, workers=3) as engine, Load(engine) as load:
        for _ in range(3):
            status, reply = engine.ask("POST", "/ml/model/swap", {"to": "challenger"}, **OPERATE)
            assert (status, reply["digest"], reply["workers"]) == (200, green.digest, 3)
            before = len(load.replies)
            engine.wait(lambda before=before: len(load.replies) > before + 60)
            assert {reply["version"] for _, reply in load.replies[before + 8 :]} == {"green"}
            status, reply = engine.ask("POST", "/ml/model/swap", {"to": "previous"}, **OPERATE)
            assert (status, reply["digest"], reply["previous"]) == (200, blue.digest, green.digest)
            before = len(load.replies)
            engine.wait(lambda before=before: len(load.replies) > before + 60)
            assert {reply["version"] for _, reply in load.replies[before + 8 :]} == {"blue"}
        sent = len(load.replies)
        assert sent > 300
    assert load.failures == []
    assert {status for status, _ in load.replies} == {200}
    scores = {(reply["version"], reply["score"]) for _, reply in load.replies}
    assert len(scores) == 2, "a score of one model under the other's name"


def test_sighup_serves_what_the_alias_names_by_then(kit: SimpleNamespace, tmp_path: Path):
    """The alias moves, the signal comes, all workers change; nothing is dropped, and a worker that dies comes back new."""
    old, new = kit.logistic_artifact("old"), kit.logistic_artifact("new", intercept=2.0)
    with kit.running(tmp_path, {"champion": old}, workers=2) as engine:
        with Load(engine) as load:
            engine.wait(lambda: len(load.replies) > 20)
            (tmp_path / "champion.json").write_bytes(new.to_bytes())
            engine.process.send_signal(signal.SIGHUP)
            engine.wait(lambda: engine.metric('ml_model_swaps_total{outcome="done"}') == 1)
            before = len(load.replies)
            engine.wait(lambda: len(load.replies) > before + 60)
        assert load.failures == []
        assert set(load.versions()) == {"old", "new"}
        assert set(load.versions()[before + 8 :]) == {"new"}
        for victim in engine.workers():
            os.kill(victim, signal.SIGKILL)
            engine.wait(lambda victim=victim: len(engine.workers()) == 2 and victim not in engine.workers())
        replies = [engine.ask("POST", "/ml/predict", {"features": ROW})[1]["version"] for _ in range(20)]
        assert set(replies) == {"new"}


def test_a_model_that_cannot_be_served_is_refused_and_the_old_one_stays(kit: SimpleNamespace, tmp_path: Path):
    """An unknown alias, a changed byte, an unknown set: a 4xx that says why, by HTTP and by signal, and no change."""
    good, bad = kit.logistic_artifact("good"), kit.with_features(kit.logistic_artifact("bad"), set="v9")
    with kit.running(tmp_path, {"champion": good, "bad": bad}) as engine:
        for to, word in (("nobody", "champion"), ("bad", "v9"), ("previous", "unknown")):
            status, reply = engine.ask("POST", "/ml/model/swap", {"to": to}, **OPERATE)
            assert status == 422
            assert word in json.dumps(reply)
        (tmp_path / "champion.json").write_bytes(good.to_bytes()[:-1] + b"x")
        engine.process.send_signal(signal.SIGHUP)
        engine.wait(lambda: engine.metric('ml_model_swaps_total{outcome="refused"}') == 4)
        assert engine.ask("GET", "/ml/model/info")[1]["digest"] == good.digest
        assert engine.ask("POST", "/ml/predict", {"features": ROW})[0] == 200


def test_a_swap_needs_a_token_with_the_role(kit: SimpleNamespace):
    """No token and a wrong one are 401, a viewer's 403, and a refused swap changes nothing."""
    app, swapper = kit.application(kit.logistic_artifact(), challenger=kit.logistic_artifact("other"))
    body = b'{"to":"challenger"}'
    for token, status in (("", 401), ("Bearer guess", 401), ("Basic operator", 401), ("Bearer viewer", 403)):
        headers = {"content_type": "application/json", **({"authorization": token} if token else {})}
        assert kit.call(app, "POST", "/ml/model/swap", body, **headers).status == status
    assert swapper.predictor.model.version == "m1"
    headers = {"content_type": "application/json", "authorization": "Bearer operator"}
    assert kit.call(app, "POST", "/ml/model/swap", body, **headers).status == 200
    assert swapper.predictor.model.version == "other"
    assert swapper.predictor.previous.version == "m1"
    assert kit.call(app, "POST", "/ml/model/swap", b'{"to":5}', **headers).status == 422


def test_sigterm_finishes_what_is_in_flight_and_exits_with_zero(kit: SimpleNamespace, tmp_path: Path):
    """A request whose body is half in when the signal comes is answered; then the process ends, the workers with it."""
    for workers in (1, 2):
        with kit.running(tmp_path, {"champion": kit.logistic_artifact()}, workers=workers) as engine:
            body = json.dumps({"features": ROW}).encode()
            head = b"POST /ml/predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
            with socket.create_connection((engine.host, engine.port)) as client:
                client.sendall(head + body[:5])
                engine.wait(lambda engine=engine: engine.ask("GET", "/ml/ready")[0] == 200)
                engine.process.send_signal(signal.SIGTERM)
                engine.wait(lambda engine=engine: not _accepts(engine))
                client.sendall(body[5:])
                reply = client.recv(65_536)
            assert b"200 OK" in reply
            assert b"connection: close" in reply
            assert engine.process.wait(timeout=30) == 0


def _accepts(engine: Any) -> bool:
    try:
        socket.create_connection((engine.host, engine.port), timeout=1).close()
    except OSError:
        return False
    return True


def test_workers_end_when_their_supervisor_is_killed(kit: SimpleNamespace, tmp_path: Path):
    """No orphan goes on answering on the port."""
    with kit.running(tmp_path, {"champion": kit.logistic_artifact()}, workers=2) as engine:
        workers = engine.workers()
        engine.process.kill()
        engine.process.wait()
        engine.wait(lambda: not _accepts(engine))
        engine.wait(lambda: not any(_alive(pid) for pid in workers))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("alias", ["champion", "", "two\nlines", "ü" * 300])
def test_any_alias_can_be_published_to_the_other_workers(alias: str):
    """The digest arrives whole whatever the alias holds; one that is too long is cut, and still text."""
    control = Control(2)
    assert control.publish("d" * 64, alias) == 1
    digest, found = control.target() or ("", "")
    assert digest == "d" * 64
    assert alias.startswith(found)
    assert found or not alias
