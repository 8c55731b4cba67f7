"""Replay real markets event by event through the running services, and recompute everything they logged."""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from probatum.adapters.importers import Options, read_files
from probatum.adapters.store import ParquetStore
from probatum.cli.main import cli
from probatum.core.clock import format_utc
from probatum.core.verdict import Provenance
from probatum.features.events import available, dataset_events, sessions_of
from probatum.features.fold import FeatureFrame, fold
from probatum.features.labels import label, parse_target, segments
from probatum.features.sets import FeatureSet, get_feature_set
from probatum.market.dataset import Dataset
from probatum.market.events import BAR, TIMER, Events
from probatum.market.quality import screen
from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, LogisticModel, ReferenceBins
from probatum.models.baseline import bind, get_baseline
from probatum.models.scoring import score_rows
from probatum.monitoring.outcomes import apart, differs, is_right, labels_at

READY = 10_000
WINDOW = 64
SECOND = 1_000_000_000


def artifact_for(feature_set: FeatureSet, target: str, grid_ns: int | None, values: np.ndarray) -> Artifact:
    """Return a logistic model whose scaling fits the values: random weights, every column in use."""
    rng = np.random.default_rng(7)
    spread = np.where(values.std(axis=0) > 0, values.std(axis=0), 1.0)
    weights = rng.normal(size=values.shape[1])
    lower, upper = values.min(axis=0), values.max(axis=0)
    as_tuple = lambda column: tuple(float(item) for item in column)  # noqa: E731
    bins = ReferenceBins((0.0,), (10, 10), 0, 10, ((5, 5, 0), (5, 5, 0)))
    return Artifact(
        name="replayed",
        model=LogisticModel(0.1, *map(as_tuple, (weights, lower, upper, values.mean(axis=0), spread))),
        features=FeatureSpec(feature_set.name, feature_set.names, feature_set.fingerprint),
        target=target, grid_ns=grid_ns, reference=dict.fromkeys(feature_set.names, bins),
        data=DataSpec(("X",), ("0" * 64,), Provenance.REPLAY, 20, "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"),
        split={}, seed=7, versions={}, metrics={},
    )  # fmt: skip


def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "probatum.cli.main", *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return process, int(found[1])
    raise AssertionError(f"{arguments} did not start")


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0


class Pipe:
    """Send decisions in order over one connection, a window of them ahead of the replies (HTTP/1.1 pipelining)."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        return b"%s %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
            method.encode(), path.encode(), len(body), body,
        )  # fmt: skip

    def reply(self) -> tuple[int, Any]:
        status = int(self._file.readline().split()[1])
        length = 0
        while (line := self._file.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length"):
                length = int(line.split(b":")[1])
        return status, json.loads(self._file.read(length))

    def decide_all(self, bodies: Sequence[bytes]) -> list[tuple[int, Any]]:
        replies = []
        for i in range(0, len(bodies), WINDOW):
            part = bodies[i : i + WINDOW]
            self._socket.sendall(b"".join(self.request("POST", "/predict-with-shadow", body) for body in part))
            replies += [self.reply() for _ in part]
        return replies

    def metrics(self) -> Any:
        self._socket.sendall(self.request("GET", "/shadow/metrics"))
        return self.reply()[1]


def decision_bodies(events: Events, rows: np.ndarray) -> Iterator[bytes]:
    """Yield one decision for each row event, with all events since the one before."""
    starts = np.concatenate([[0], rows[:-1] + 1])
    ts, kind, values = events.ts.tolist(), events.kind.tolist(), events.values.tolist()
    for first, last in zip(starts.tolist(), rows.tolist(), strict=True):
        batch = [
            [ts[i], kind[i], *(None if math.isnan(value) else value for value in values[i])]
            for i in range(first, last + 1)
        ]
        yield json.dumps({"symbol": "X", "events": batch, "decision_id": f"d-{last}"}).encode()


def cut(events: Events, end: int) -> Events:
    return Events(events.ts[:end], events.kind[:end], events.values[:end])


def btcusdt(root: Path) -> tuple[Dataset, str, str, int]:
    recording = read_files("binance-klines", [root / "binance_klines" / "BTCUSDT_1min_sample.csv"])
    return screen(recording).dataset, "robust", "large_move@60s", BAR


def bac(root: Path) -> tuple[Dataset, str, str, int]:
    folder = root / "lean_tick" / "equity" / "usa" / "tick" / "bac"
    recording = read_files("lean", sorted(folder.glob("20131007_*.zip")), Options(tick_size=0.01))
    return screen(recording).dataset, "book", "next_move", TIMER


@pytest.mark.real_data
@pytest.mark.parametrize("market", [btcusdt, bac], ids=["BTCUSDT", "BAC"])
def test_replayed_day_is_logged_as_batch_would_compute_it(market: Any, shared_data: Path, tmp_path: Path) -> None:
    """At least 10,000 ready decisions: outcomes sum to attempts; logged features equal the batch features, and logged
    scores the artifact's own offline scores, bit for bit; predictions are the baseline's."""
    dataset, set_name, target, row_kind = market(shared_data)
    has = available(dataset)
    feature_set = get_feature_set(set_name, has)
    grid_ns = None if row_kind == BAR else SECOND
    events = dataset_events(dataset, grid_ns=grid_ns)
    whole = fold(feature_set, events, tick_size=dataset.tick_size)
    enough = int(np.flatnonzero(np.cumsum(whole.ready) == READY + 50)[0]) + 1
    rows = np.flatnonzero(events.kind == row_kind)[:enough]
    batch = fold(feature_set, cut(events, int(rows[-1]) + 1), tick_size=dataset.tick_size)
    expected = batch.values[batch.ready]
    artifact = artifact_for(feature_set, target, grid_ns, expected)
    path = tmp_path / "model.json"
    path.write_bytes(artifact.to_bytes())
    engine, engine_port = start("engine", "--artifact", str(path), "--port", "0")
    executor, port = start(
        "executor", "--artifact", str(path), "--port", "0", "--engine", f"http://127.0.0.1:{engine_port}",
        "--log", str(tmp_path / "log"), *(("--tick-size", str(dataset.tick_size)) if dataset.tick_size else ()),
    )  # fmt: skip
    try:
        pipe = Pipe(port)
        replies = pipe.decide_all(list(decision_bodies(events, rows)))
        while (metrics := pipe.metrics())["pending"]:
            pass
        live = settled(port)
    finally:
        stop(executor)
        stop(engine)
    assert [status for status, _ in replies] == [200 if ready else 409 for ready in batch.ready]
    decided = [reply for status, reply in replies if status == 200]
    outcomes = metrics["counts"]["outcomes"]
    assert sum(outcomes.values()) == metrics["attempts"] == metrics["decisions"] == len(decided) == READY + 50
    log = pl.concat([pl.read_parquet(file) for file in sorted((tmp_path / "log").glob("*.parquet"))]).sort("seq")
    assert log["seq"].to_list() == list(range(1, len(decided) + 1))
    assert all(a < b for a, b in pairwise(log["as_of"]))
    features = log.select([f"f_{name}" for name in feature_set.names]).to_numpy()
    assert np.array_equal(np.ascontiguousarray(features).view(np.int64), np.ascontiguousarray(expected).view(np.int64))
    offline = score_rows(artifact, np.ascontiguousarray(expected))
    heard = (log["outcome"] == "ok").to_numpy()
    assert heard.sum() == outcomes["ok"] >= READY
    assert np.array_equal(log["challenger"].to_numpy()[heard].view(np.int64), offline[heard].view(np.int64))
    rule = bind(get_baseline(target), feature_set.names)
    assert rule is not None
    baseline = [rule(row) for row in expected.tolist()]
    assert log["baseline"].to_list() == baseline == [reply["prediction"] for reply in decided]
    matches = np.abs(log["baseline"].to_numpy()[heard] - offline[heard]) < 0.05
    assert (metrics["matches"], metrics["mismatches"]) == (int(matches.sum()), int((~matches).sum()))
    outcomes_are_those_of_batch(log.filter(heard), live, artifact, batch, dataset)
    skew_is_proven_and_found(log, dataset, tmp_path)


def settled(port: int) -> dict[str, float]:
    """Return the executor's outcome counters, by metric and state, once they no longer move: what it joins waits a second."""
    before: dict[str, float] = {}
    for _ in range(100):
        with urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
            lines = re.findall(r'^(ml_outcome_\w+)(?:{\w+="(\w+)"})? (\d+)$', reply.read().decode(), re.MULTILINE)
        found = {
            f"{name} {'' if 'pairs' in name or 'losses' in name else state}".strip(): float(n)
            for name, state, n in lines
        }
        if found == before and found["ml_outcome_decisions_total joined"]:
            return found
        before = found
        time.sleep(2.5)
    raise AssertionError(before)


def outcomes_are_those_of_batch(
    heard: pl.DataFrame, live: dict[str, float], artifact: Artifact, batch: FeatureFrame, dataset: Dataset
) -> None:
    """What the running executor joined, and lost to the baseline, is what the labels of the whole recording say."""
    segment = segments(batch.ts, batch.mid, sessions_of(dataset.calendar, batch.ts))
    labels = label(parse_target(artifact.target), batch.ts, batch.mid, segment, artifact.grid_ns or 60 * SECOND)
    as_of, score, rule = (heard[name].to_numpy() for name in ("as_of", "challenger", "baseline"))
    hit, known, found = labels_at(batch.ts, labels, as_of)
    assert found.all()
    pairs = np.flatnonzero((known >= 0) & differs(score, rule))
    pairs = pairs[apart(as_of[pairs], known[pairs], pairs)]
    assert live["ml_outcome_decisions_total joined"] == (known >= 0).sum() > READY // 2
    assert live["ml_outcome_decisions_total dropped"] == live["ml_outcome_rows_lost_total"] == 0
    assert live["ml_outcome_pairs_total"] == len(pairs) > 100
    assert live["ml_outcome_losses_total"] == (~is_right(score[pairs], hit[pairs])).sum()


def skew_is_proven_and_found(log: pl.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    """`probatum skew` proves every logged row equal, and names the row of which one value is altered by its last bit."""
    space = tmp_path / "space"
    ParquetStore(space / "data").save(dataset)
    command = ["skew", "--dataset", dataset.symbol, "--symbol", "X", "-w", str(space), "-o", "json", "--log"]
    result = CliRunner().invoke(cli, [*command, str(tmp_path / "log")], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["rows"] == found["ready"] == found["equal"] == log.height == READY + 50
    row, column = 7_654, log.columns[-2]
    assert column.startswith("f_")
    value = math.nextafter(log[column][row], math.inf)
    forged = log.with_columns(pl.when(pl.col("seq") == log["seq"][row]).then(value).otherwise(column).alias(column))
    (tmp_path / "forged").mkdir()
    meta = pl.read_parquet_metadata(next(iter((tmp_path / "log").glob("*.parquet"))))
    forged.write_parquet(tmp_path / "forged" / "decisions-x.parquet", metadata={"fingerprint": meta["fingerprint"]})
    result = CliRunner().invoke(cli, [*command, str(tmp_path / "forged")], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (found["equal"], found["unequal"]) == (READY + 49, 1)
    first = found["first_mismatch"]
    assert (first["time"], first["seq"]) == (format_utc(log["as_of"][row]), log["seq"][row])
    assert (first["feature"], first["logged"], first["computed"]) == (
        column.removeprefix("f_"), repr(value), repr(log[column][row]),
    )  # fmt: skip
