"""A controller with ``--repo`` tags the candidate of a live canary in a real git work tree."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from canary import bench
from live import COMMAND, Service

from probatum.cli.workspace import LEDGER_URL, Workspace
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.canary import make_plan
from probatum.pipeline.rollout import Rollout
from probatum.rollout import series
from probatum.rollout.confirm import build_phrase
from probatum.rollout.events import Confirmed, DryRunDone, PreflightDone
from probatum.rollout.machine import Stage, required_permission
from probatum.rollout.plan import Ladder
from probatum.rollout.policy import shipped_policy


class LivePage:
    """The metrics of an executor whose feed is live: 300 good samples a second, and outcomes of which a third were lost."""

    def __init__(self, run: str) -> None:
        began = time.time()

        def text() -> str:
            seconds = time.time() - began
            labels = f'run="{run}",mode="observe",model="m",provenance="live"'
            counts = dict.fromkeys(
                ("errors", "slower_than_80ms", "slower_than_120ms", "uncovered", "mismatches"), (int(300 * seconds), 0)
            ) | {"outcome_losses": (300, 100)}
            lines = [f"{series.START} {began}", f'{series.FIRST}{{run="{run}"}} {began}']
            lines.append(f'{series.LAST}{{run="{run}"}} {time.time()}')
            for measure, (n, bad) in counts.items():
                lines += [f'{series.SAMPLES}{{{labels},measure="{measure}"}} {n}']
                lines += [f'{series.BAD}{{{labels},measure="{measure}"}} {bad}']
            return "\n".join(lines) + "\n"

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = text().encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "repo"
    path.mkdir()
    (path / "a").write_text("a")
    for command in ("init -q", "config user.email t@example.org", "config user.name t", "add a", "commit -qm a"):
        subprocess.run(["git", "-C", str(path), *command.split()], check=True)
    return path


def test_a_live_candidate_is_tagged(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last phase passes, no critical blocker stands: v1-rc1, with its entry in CHANGELOG.md and its record."""
    monkeypatch.delenv(LEDGER_URL, raising=False)
    place = bench(Provenance.LIVE)
    space = Workspace(tmp_path / "workspace")
    for (kind, _), data in place.sources.blobs._data.items():
        space.blobs.put(kind, data)
    for record in place.ledger.records():
        space.ledger.append(record.kind, record.subject, record.provenance, record.body)
    policy = msgspec.structs.replace(
        shipped_policy("default"), canary=Ladder((50, 100), phase_s=2, poll_s=1, stale_s=10)
    )
    plan = make_plan(space, place.model, policy, name="live", rate_per_s=300.0)
    rollout = Rollout(space.ledger, space, "live", controls=True)
    now = time.time_ns()
    rollout.open(plan, now)
    rollout.apply(PreflightDone(now, Verdict.PASS, "e" * 64, Provenance.LIVE))
    rollout.apply(DryRunDone(now, Verdict.PASS, "d" * 64, plan.digest, now))
    phrase = build_phrase(required_permission(plan, rollout.state, now))
    rollout.apply(Confirmed(time.time_ns(), phrase, "ada"))
    page = LivePage(rollout.run)
    options = ["--workspace", str(space.root), "--port", "0", "--executor", page.url, "--repo", str(repo)]
    controller = Service("controller", *options)
    try:
        for _ in range(1_200):
            if found := list(space.ledger.records(kind="release")):
                break
            time.sleep(0.05)
        rollout.refresh()
        assert rollout.state.stage is Stage.COMPLETED, (rollout.state.reason, controller.said)
        assert (found[0].body["figures"]["tag"], found[0].body["figures"]["reason"]) == ("v1-rc1", "")
        assert found[0].provenance is Provenance.LIVE
    finally:
        controller.stop()
        page.server.shutdown()
    tags = subprocess.run(["git", "-C", str(repo), "tag"], capture_output=True, text=True, check=True).stdout.split()
    assert tags == ["v1-rc1"]
    assert f"`{place.model}`" in (repo / "CHANGELOG.md").read_text()


def test_what_is_no_work_tree_is_refused_at_once(tmp_path: Path) -> None:
    """A folder without git ends the controller before it leads, with the option's name and exit code 2."""
    command = [*COMMAND, "controller", "--workspace", str(tmp_path), "--executor", "http://127.0.0.1:1", "--repo"]
    for folder in (tmp_path, tmp_path / "nowhere"):
        done = subprocess.run([*command, str(folder)], capture_output=True, text=True, env=dict(os.environ), timeout=60)
        assert done.returncode == 2
        assert "repo must be a folder inside a git work tree" in done.stderr
