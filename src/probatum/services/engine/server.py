"""Run the engine: open the model once, then start the workers."""

from __future__ import annotations

import logging
import signal
from functools import partial
from socket import socket

import msgspec

from probatum.core.clock import NS_PER_S, Clock
from probatum.core.errors import ParameterError, ProbatumError, UnknownNameError
from probatum.services.auth import Tokens
from probatum.services.engine.app import EngineApp
from probatum.services.engine.model import Model
from probatum.services.engine.predict import Limits, Predictor
from probatum.services.engine.swap import PREVIOUS, Control, LoadArtifact, Swapper, open_model
from probatum.services.fleet import Supervisor, serve
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry, new_pages

WORKERS_MAX = 64

_log = logging.getLogger("probatum.engine")


class EngineSettings(msgspec.Struct, frozen=True):
    """Declare which model is served (an alias, name or digest), by how many processes, and how old its inputs may be."""

    model: str
    workers: int = 1
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= WORKERS_MAX:
            raise ParameterError("workers", f"1 to {WORKERS_MAX}", self.workers)


class Engine:
    """Hold what the workers share; made before the fork.

    Building it opens the model, so that a wrong one is one message and an exit code, not workers that die. Raises what
    the loader raises, IntegrityError and UnknownNameError.
    """

    def __init__(self, settings: EngineSettings, load: LoadArtifact, tokens: Tokens, clock: Clock) -> None:
        self._settings, self._load, self._tokens, self._clock = settings, load, tokens, clock
        self._first = _read(load, settings.model)
        first = self._open(self._first, Registry())
        self._before = self._read_previous()
        self.version, self.digest = first.version, first.digest
        self._pages = new_pages(settings.workers)
        self._control = Control(settings.workers)
        self._started_s = clock.now_ns() / NS_PER_S

    def run(self, sock: socket) -> int:
        """Serve on a bound socket until told to stop; return the exit code."""
        work = partial(self._work, sock)
        if self._settings.workers == 1:
            work(0, None)
            return 0
        return Supervisor(self._settings.workers, sock, work, self._control.leave).run()

    def application(self, worker: int = 0) -> tuple[EngineApp, Swapper]:
        """Build one worker's application."""
        registry = Registry(self._pages, worker)
        registry.gauge(metrics.PROCESS_START).set(self._started_s)
        workers = registry.gauge(metrics.WORKERS)
        registry.before_expose(lambda: workers.set(self._control.living()))
        predictor = Predictor(self._open(self._first, registry), registry, self._clock, self._settings.limits)
        if self._before is not None and self._before[0] != self._first[0]:
            predictor.previous = self._open(self._before, registry)
        swapper = Swapper(predictor, self._load, registry, self._control, worker, self._settings.model)
        return EngineApp(predictor, registry, swapper, self._tokens), swapper

    def _work(self, sock: socket, worker: int, orphan_fd: int | None) -> None:
        app, swapper = self.application(worker)

        async def first() -> None:
            self._control.join(worker)  # before following: what is published from here on comes as a signal
            await swapper.follow()

        hooks = {signal.SIGHUP: swapper.reload, signal.SIGUSR1: swapper.follow}
        serve(app, sock, first, hooks, orphan_fd=orphan_fd)

    def _read_previous(self) -> tuple[str, str, bytes] | None:
        """Return the model to go back to, if there is a usable one; the model to serve does not depend on it."""
        try:
            source = _read(self._load, PREVIOUS)
            self._open(source, Registry())
        except UnknownNameError:
            return None
        except ProbatumError as error:
            _log.error("previous model not loaded: %s", error.message)
            return None
        return source

    def _open(self, source: tuple[str, str, bytes], registry: Registry) -> Model:
        digest, reference, data = source
        return open_model(data, digest, reference, registry)


def _read(load: LoadArtifact, reference: str) -> tuple[str, str, bytes]:
    digest, data = load(reference)
    return digest, reference, data
