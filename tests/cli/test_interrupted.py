"""Rollout commands on a full disk and under kill -9: refused in words, nothing half done, and the same command again finishes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from seed import write_seed_artifact

from probatum.cli.workspace import LEDGER_URL, Workspace
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.control import KIND as DOCUMENT
from probatum.pipeline.rollout import KIND, Rollout
from probatum.pipeline.verify import verify
from probatum.rollout.choose import Mode
from probatum.rollout.confirm import build_phrase
from probatum.rollout.events import Confirmed, DryRunDone, PreflightDone
from probatum.rollout.machine import required_permission
from probatum.rollout.plan import Plan
from probatum.rollout.policy import shipped_policy

COMMAND = [sys.executable, "-m", "probatum.cli.main"]


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with a running canary, and one that awaits its confirmation."""
    monkeypatch.delenv(LEDGER_URL, raising=False)
    found = Workspace(tmp_path / "workspace")
    model = found.blobs.put("artifact", write_seed_artifact(tmp_path / "model.json").read_bytes())
    for name in ("waits", "runs"):
        plan = Plan(name=name, mode=Mode.OBSERVE, policy=shipped_policy("default"), model=model, rate_per_s=1.0)
        rollout, now = Rollout(found.ledger, found, name, controls=True), time.time_ns()
        rollout.open(plan, now)
        rollout.apply(PreflightDone(now, Verdict.PASS, "e" * 64, Provenance.SYNTHETIC))
        rollout.apply(DryRunDone(now, Verdict.PASS, "d" * 64, plan.digest, now))
    rollout.apply(Confirmed(now, build_phrase(required_permission(plan, rollout.state, now)), "demo"))
    return found


def start(space: Workspace, *words: str, file_bytes_max: int | None = None) -> subprocess.Popen[str]:
    """Start a command whose process can write no file beyond a size, as on a disk that is full."""

    def limit() -> None:
        assert file_bytes_max is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

    return subprocess.Popen(
        [*COMMAND, *words, "--workspace", str(space.root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=None if file_bytes_max is None else limit, env=dict(os.environ),
    )  # fmt: skip


def phrase_of(space: Workspace) -> str:
    asked, _ = start(space, "confirm", "waits", "-o", "json").communicate(timeout=60)
    return str(json.loads(asked)["phrase"])


def test_a_disk_that_is_full_refuses_in_words(space: Workspace) -> None:
    """Each command ends with one line of error, the chain is as long as before, and with space it goes through."""
    head, phrase = space.ledger.head(), phrase_of(space)
    commands = {
        ("confirm", "waits", "--approver", "demo", "--phrase", phrase): 0,
        ("canary", "abort", "runs", "--by", "ada"): 0,
        ("review", "v1.8-b0", "--by", "ada"): 2,  # no such model is registered: refused before anything is written
        ("promote", "runs", "--by", "ada"): 1,
        ("rollback", "runs", "--by", "ada"): 1,
    }
    running = [start(space, *words, file_bytes_max=0) for words in commands]
    for words, process in zip(commands, running, strict=True):
        _, said = process.communicate(timeout=60)
        assert process.returncode in (1, commands[words]), said
        assert process.returncode != 0
        assert said.startswith("error: ")
        assert "Traceback" not in said
    assert space.ledger.head() == head
    assert verify(space.ledger, space).findings == ()
    for words, code in commands.items():
        process = start(space, *words)
        _, said = process.communicate(timeout=60)
        assert process.returncode == code, said
    assert verify(space.ledger, space).findings == ()


def test_what_was_killed_is_finished_by_the_same_command(space: Workspace) -> None:
    """Killed as soon as its event is in the ledger, an abort has its share 0; called again it writes the one root cause."""
    process = start(space, "canary", "abort", "runs", "--by", "ada")
    while not any(r.body["inputs"]["event"]["event"] == "aborted" for r in space.ledger.records(kind=KIND)):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert list(space.ledger.records(kind=DOCUMENT))[-1].body["inputs"]["share"] == 0.0
    events = len(list(space.ledger.records(kind=KIND)))
    for _ in range(2):
        again = start(space, "canary", "abort", "runs", "--by", "ada")
        _, said = again.communicate(timeout=60)
        assert again.returncode == 0, said
    (report,) = space.ledger.records(kind="canary_run")
    assert report.body["figures"]["stage"] == "aborted"
    assert len(list(space.ledger.records(kind=KIND))) == events
    assert verify(space.ledger, space).findings == ()


def test_killed_at_any_moment(space: Workspace) -> None:
    """At moments from start to end of a confirmation: either it stands whole, share and all, or it never was."""
    phrase = phrase_of(space)
    for step in range(6):
        process = start(space, "confirm", "waits", "--approver", "demo", "--phrase", phrase)
        time.sleep(0.15 * (step + 1))
        process.kill()
        process.communicate(timeout=60)
        rollout = Rollout(space.ledger, space, "waits")
        shares = [record.body["inputs"]["share"] for record in space.ledger.records(kind=DOCUMENT, subject="waits")]
        assert shares == ([0.05] if rollout.state.started_ts else [])
        assert verify(space.ledger, space).findings == ()


def test_a_drill_that_is_killed_leaves_no_service_behind(space: Workspace) -> None:
    """Killed -9 while its engine runs: the engine ends too, and nothing was recorded."""
    head, process = space.ledger.head(), start(space, "drill", "--executors", "1")
    while not (children := _children(process.pid)):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(1.0)  # it may be anywhere between its start and its first reply
    children = _children(process.pid) or children
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert space.ledger.head() == head


def _children(pid: int) -> list[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]
