"""Run a canary over replicas: engines behind nginx, executors on PostgreSQL and Prometheus, and kill one of each."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from live import Service, Traffic, schema, stack
from nginx import Nginx
from postgres import PostgresServer
from prometheus import prometheus
from seed import write_seed_artifact

from probatum.core.verdict import Verdict
from probatum.rollout.machine import Stage
from probatum.rollout.plan import Ladder, Policy
from probatum.rollout.policy import shipped_policy


class Engines:
    """Two engines behind one address; to the stack they are one."""

    def __init__(self, root: Path) -> None:
        artifact = write_seed_artifact(root / "model.json")
        self.replicas = [Service("engine", "--artifact", str(artifact), "--port", "0") for _ in range(2)]
        (root / "nginx").mkdir()
        self.nginx = Nginx(root / "nginx", [item.url for item in self.replicas])
        self.url = self.nginx.engines

    def stop(self) -> None:
        self.nginx.stop()
        for item in self.replicas:
            item.stop()


def counted_only() -> Policy:
    """Return the default policy without its latencies: how fast a busy test machine is, is not what is tested."""
    policy = shipped_policy("default")
    kept = tuple(item for item in policy.criteria if not item.measure.startswith("slower_than"))
    return msgspec.structs.replace(policy, criteria=kept)


def last_scraped(prometheus_url: str, instance: str) -> dict[str, float]:
    """Return the newest samples of a replica's counts of calls, by series."""
    found = {}
    for name, end in (("ml_rollout_samples_total", "n"), ("ml_rollout_bad_total", "bad")):
        query = urllib.parse.urlencode({"query": f'{name}{{measure="errors",instance="{instance}"}}[2m]'})
        with urllib.request.urlopen(f"{prometheus_url}/api/v1/query?{query}", timeout=10) as reply:
            for series in json.loads(reply.read())["data"]["result"]:
                found[end] = float(series["values"][-1][1])
    return found


def test_canary_survives_the_loss_of_an_engine_and_of_an_executor(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """Killed -9 in mid-canary: every decision is answered, what the dead executor had counted by its last scrape counts, it completes."""
    engines = Engines(tmp_path)
    with stack(tmp_path, schema(postgres_server), engines) as live:
        live.traffic.stop()
        engines.nginx.front([item.url for item in live.executors])
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{engines.nginx.executors}/metrics", timeout=5)
        front = SimpleNamespace(url=engines.nginx.executors)
        live.traffic = Traffic([front, front])  # type: ignore[list-item]
        (tmp_path / "prometheus").mkdir()
        replicas = {"executors": [e.url for e in live.executors], "engines": [e.url for e in engines.replicas]}
        with prometheus(tmp_path / "prometheus", **replicas) as prom:
            ladder = Ladder((25, 50, 100), phase_s=8, poll_s=1, stale_s=3, source_deadline_s=60)
            rollout = live.prepare("replicas", ladder, counted_only())
            live.controller(prom.url)
            live.start("replicas")
            live.wait(rollout, lambda state: "errors" in state.streams and state.streams["errors"].n > 20)
            engines.replicas[0].kill()
            prom.drop(engines.replicas[0].url)
            live.wait(rollout, lambda state: state.phase == 1)
            lost = live.executors[0]
            lost.kill()
            time.sleep(1)  # no scrape succeeds any more
            instance = urllib.parse.urlsplit(lost.url).netloc
            counted = last_scraped(prom.url, instance)
            assert counted["n"] > 20
            prom.drop(lost.url)
            state = live.wait(rollout, lambda state: state.stage is not Stage.RUNNING, 120)
            assert state.stage is Stage.COMPLETED, state
            run = live.wait_for_record("canary_run", "replicas").body["figures"]
            assert run["verdict"] == Verdict.PASS
            errors = run["measurements"]["errors"]
            kept = {name.rpartition(" ")[2]: n for name, n in errors["raw"].items() if name.startswith(instance)}
            assert kept == counted
            assert errors["n"] == sum(n for name, n in errors["raw"].items() if name.endswith(" n")) > counted["n"]
            live.command("abort", "replicas", "--by", "ada")
            live.wait(rollout, lambda state: state.stage is Stage.ABORTED)
        live.check("replicas")
        live.verify()
