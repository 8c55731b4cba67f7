"""ShadowRunner hurts nobody: the documentation's own strategies, alone and beside every fault."""

from __future__ import annotations

import io
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from probatum.core.errors import ParameterError
from probatum.monitoring.shadow import DecisionRow
from probatum.rollout.choose import Mode
from probatum.rollout.lease import RolloutDocument, StaticRollout
from probatum.services.executor.runner import ShadowRunner
from probatum.services.executor.shadow import ShadowSettings

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "shadow.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
PRICES = [100.0 + 3.0 * math.sin(i / 9.0) + math.sin(i / 2.0) for i in range(400)]


@contextmanager
def engine(answer: Callable[[int], tuple[int, str]]) -> Iterator[str]:
    """Serve ``answer(rows)`` to every call."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, text = answer(len(json.loads(self.rfile.read(int(self.headers["content-length"])))["rows"]))
            with suppress(OSError):
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def stalled() -> Iterator[str]:
    """Accept connections in the kernel and never read them, as a process under SIGSTOP does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def refusing() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def dying() -> Iterator[str]:
    """Answer three calls and then cut every connection, as a killed process does."""
    left = [3]

    def answer(rows: int) -> tuple[int, str]:
        left[0] -= 1
        if left[0] < 0:
            raise ConnectionAbortedError
        return scores(0.5)(rows)

    with suppress(ConnectionAbortedError), engine(answer) as url:
        yield url


def scores(value: object, delay_s: float = 0.0) -> Callable[[int], tuple[int, str]]:
    def answer(rows: int) -> tuple[int, str]:
        time.sleep(delay_s)
        return 200, json.dumps({"scores": [value] * rows})

    return answer


FAULTS: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "none": (lambda: engine(scores(0.5)), {"ok"}),
    "killed": (dying, {"ok", "error", "breaker_open"}),
    "stalled": (stalled, {"timeout", "breaker_open", "shed"}),
    "slow": (lambda: engine(scores(0.5, 0.2)), {"ok", "timeout", "breaker_open", "shed"}),
    "500": (lambda: engine(lambda _: (500, "{}")), {"error", "breaker_open"}),
    "nan": (lambda: engine(scores(float("nan"))), {"nan", "breaker_open"}),
    "refusing": (refusing, {"error", "breaker_open"}),
}


def trades_alone() -> list[tuple[int, int, float]]:
    """Run the strategy of the guide with the wrapper replaced by a plain call."""

    class Alone:
        def __init__(self, _engine: str, rule: Callable[[list[float]], float], features: int) -> None:  # noqa: ARG002
            self.rule = rule

        def decide(self, features: list[float], **_: str) -> float:
            return self.rule(features)

    names: dict[str, Any] = {"ShadowRunner": Alone}
    exec(BLOCKS[1].replace("from probatum.services.executor.runner import ShadowRunner", ""), names)
    strategy = names["Crossing"]("")
    for price in PRICES:
        strategy.on_price(price)
    return list(strategy.trades)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_guides_strategy_trades_as_it_does_alone(fault: str) -> None:
    """In every fault the 30-line strategy makes the very trades it makes without a shadow, and every decision is counted."""
    make, outcomes = FAULTS[fault]
    names: dict[str, Any] = {}
    exec(BLOCKS[1], names)
    with make() as url:
        strategy = names["Crossing"](url)
        for i, price in enumerate(PRICES):
            strategy.on_price(price)
            if i % 10 == 0:
                time.sleep(0.002)  # spreads the decisions over several batches; nothing is asserted of it
        strategy.shadow.close()
    expected = trades_alone()
    assert len(expected) > 5
    assert strategy.trades == expected
    metrics = strategy.shadow.metrics()
    seen = {name for name, count in metrics["outcomes"].items() if count}
    assert metrics["decisions"] == sum(metrics["outcomes"].values()) == len(PRICES) - 19
    assert (metrics["pending"], metrics["rejected"]) == (0, 0)
    assert seen <= outcomes
    assert seen & (outcomes - {"breaker_open", "shed"})


def test_the_guides_example_runs_as_printed() -> None:
    """The first example works word for word, engine or not, and is the length the guide promises."""
    assert len(BLOCKS[0].strip().splitlines()) <= 20
    assert len(BLOCKS[1].strip().splitlines()) <= 30
    out = io.StringIO()
    with refusing() as url, redirect_stdout(out):
        exec(BLOCKS[0].replace("http://127.0.0.1:4010", url), {})
    assert out.getvalue().splitlines() == [
        "trade 0.6", "wait 0.3", "trade 0.95", "3 decisions, every one accounted for:", "3",
    ]  # fmt: skip


def test_what_cannot_be_compared_is_rejected_and_counted() -> None:
    """A wrong length, NaN, text or a NaN score raises nothing: the decision stands and ``rejected`` says so."""
    with engine(scores(0.5)) as url, ShadowRunner(url, lambda row: row[0], features=2) as shadow:
        assert shadow.decide([0.25, 0.0]) == 0.25
        assert shadow.decide([0.25]) == 0.25
        assert shadow.decide([0.25, math.nan]) == 0.25
        shadow.observe(["a", "b"], 0.5)  # type: ignore[list-item]
        shadow.observe([0.0, 0.0], math.inf)
        shadow.observe(None, 0.5)  # type: ignore[arg-type]
    metrics = shadow.metrics()
    assert (metrics["decisions"], metrics["rejected"], metrics["outcomes"]["ok"]) == (6, 5, 1)


def test_the_strategys_own_mistake_is_its_own() -> None:
    """An exception of the rule comes through unchanged, and is not counted as a decision."""
    with refusing() as url, ShadowRunner(url, lambda row: 1 / row[0], features=1) as shadow:
        with pytest.raises(ZeroDivisionError):
            shadow.decide([0.0])
        assert shadow.metrics()["decisions"] == 0


def test_many_threads_lose_nothing() -> None:
    """Eight threads deciding at once are counted once each; a small queue sheds and says how many."""
    with engine(scores(0.5)) as url:
        runner = ShadowRunner(url, lambda row: row[0], 1, settings=ShadowSettings(queue_rows=50))

        def work() -> None:
            for _ in range(500):
                runner.decide([0.5])

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        runner.close()
    metrics = runner.metrics()
    assert metrics["decisions"] == 4000 == sum(metrics["outcomes"].values()) + metrics["pending"]
    assert metrics["outcomes"]["shed"] > 0


def test_share_and_mode_come_from_the_rollout_document() -> None:
    """A share mirrors the ids that hash into it, ``off`` none; a source that fails lapses to nothing."""

    class Broken:
        def current(self) -> RolloutDocument:
            raise OSError

    with engine(scores(0.5)) as url:
        for source, low, high in (
            (StaticRollout(RolloutDocument(share=0.5)), 60, 140),
            (StaticRollout(RolloutDocument(mode=Mode.OFF)), 0, 0),
            (Broken(), 0, 0),
        ):
            with ShadowRunner(url, lambda row: row[0], 1, rollout=source) as runner:
                for _ in range(200):
                    runner.decide([0.5])
            outcomes = runner.metrics()["outcomes"]
            assert low <= outcomes["ok"] <= high
            assert outcomes["ok"] + outcomes["skipped"] == 200


def test_a_log_takes_every_decision() -> None:
    """Rows reach the log with features, both scores and labels."""

    class Rows(list[DecisionRow]):
        def append(self, row: DecisionRow) -> bool:  # type: ignore[override]
            super().append(row)
            return True

    rows = Rows()
    with engine(scores(0.25)) as url, ShadowRunner(url, lambda row: row[0], 1, log=rows) as runner:
        runner.decide([0.5], symbol="X", strategy="s", session="d", decision_id="id-1")
    assert [(r.decision_id, r.symbol, r.features, r.baseline, r.challenger, r.outcome) for r in rows] == [
        ("id-1", "X", [0.5], 0.5, 0.25, "ok")
    ]


@pytest.mark.parametrize(
    "url",
    [
        "https://x",
        "ftp://x",
        "http://",
        "http://u:p@x",
        "http://x?q",
        "http://x:99999",
        "x\r\ny",
        "http://a b",
        "http://x#y",
    ],
)
def test_a_url_that_cannot_be_called_is_refused(url: str) -> None:
    """A bad engine URL is one message at the start."""
    with pytest.raises(ParameterError, match="engine"):
        ShadowRunner(url, lambda row: row[0], 1)
