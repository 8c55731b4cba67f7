"""Serve the dashboard of a workspace in a thread: everything real but the loop, which waits for a lead that never comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from seed import write_seed_artifact

from probatum.cli.live import live_effects
from probatum.cli.workspace import Workspace
from probatum.core.canonical import sha256_hex
from probatum.core.verdict import Provenance, Verdict
from probatum.pipeline.operate import confirm, needed_phrase
from probatum.pipeline.rollout import Rollout
from probatum.rollout.choose import Mode
from probatum.rollout.events import DryRunDone, Observed, PreflightDone
from probatum.rollout.measurement import RateMeasurement
from probatum.rollout.plan import Ladder, Plan
from probatum.rollout.policy import shipped_policy
from probatum.services.auth import Role, Tokens
from probatum.services.controller.actions import Desk
from probatum.services.controller.app import ControllerApp
from probatum.services.controller.board import Board
from probatum.services.controller.dashboard import Dashboard
from probatum.services.controller.loop import Controller
from probatum.services.fleet import bind, url_of
from probatum.services.telemetry.registry import Registry

HOLDERS = {"look": (Role.VIEW, "vera"), "drive": (Role.OPERATE, "olga"), "sign": (Role.APPROVE, "ada")}
"""Tokens, their roles and who holds them."""


class Waiting:
    """Somebody else leads."""

    def lead(self) -> None:
        return None

    def resign(self) -> None: ...


class Site:
    """A dashboard on a free port; ``shadow`` and ``jobs`` are what the executors and the scheduler say."""

    def __init__(
        self,
        root: Path,
        *,
        closed: bool = False,
        shadow: Callable[[], list[dict[str, Any]]] = list,
        jobs: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self.space = space = Workspace(root / "workspace")
        registry, effects = Registry(), live_effects(space, lambda _: None)
        roles = {sha256_hex(token.encode()): role for token, (role, _) in HOLDERS.items()}
        tokens = Tokens(roles, {sha256_hex(token.encode()): name for token, (_, name) in HOLDERS.items()})
        loop = Controller(space.ledger, space, Waiting(), effects, _no_source, space.clock, registry)
        self.board = Board(space.ledger, space, space.clock, status=lambda: loop.status, shadow=shadow, jobs=jobs)
        self.desk = desk = Desk(self.board, space.ledger, space, space.clock, effects, tokens)
        self.dashboard = Dashboard(self.board, desk, tokens, closed=closed)
        app = ControllerApp(loop, registry, self.dashboard.routes, self.dashboard.guard)
        sock = bind("127.0.0.1", 0)
        self.url = url_of(sock)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, args=([sock],), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.dashboard.close()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def rollout(self, name: str, shares: Sequence[int] = (5, 10, 25, 50, 100)) -> Rollout:
        """Return a rollout of the seed's model that awaits its confirmation."""
        model = self.space.blobs.put("artifact", write_seed_artifact(self.space.root.parent / "seed.json").read_bytes())
        policy = msgspec.structs.replace(shipped_policy("default"), canary=Ladder(tuple(shares), phase_s=60, poll_s=1))
        plan = Plan(name=name, mode=Mode.OBSERVE, policy=policy, model=model, rate_per_s=100.0)
        rollout = Rollout(self.space.ledger, self.space, name, controls=True)
        now = self.space.clock.now_ns()
        rollout.open(plan, now)
        rollout.apply(PreflightDone(now, Verdict.PASS, "e" * 64, Provenance.SYNTHETIC))
        rollout.apply(DryRunDone(now, Verdict.PASS, "d" * 64, plan.digest, now))
        return rollout

    def running(self, name: str) -> Rollout:
        """Return one that runs."""
        rollout = self.rollout(name)
        now = self.space.clock.now_ns()
        confirm(rollout, needed_phrase(rollout, now), "demo", now)
        return rollout


def observe(rollout: Rollout, n: int, bad: int = 0) -> None:
    """Append a reading of ``n`` samples since the start, ``bad`` errors among them."""
    now, began = time.time_ns(), rollout.state.started_ts
    rollout.apply(Observed(now, tuple(
        RateMeasurement(measure=name, n=n, bad=bad if name == "errors" else 0, first_ts=began, last_ts=now, read_ts=now,
                        source="test", query="all", provenance=Provenance.SYNTHETIC)
        for name in dict.fromkeys(item.measure for item in rollout.plan.criteria)
    )))  # fmt: skip


def _no_source(plan: Plan) -> Any:
    raise AssertionError(f"{plan.name} is not led here")
