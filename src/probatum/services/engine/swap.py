"""Change the served model in every worker, without a lock on the path of a request.

One worker opens and verifies the new model, publishes its digest in a page that all workers share, and signals its
siblings (SIGUSR1); each opens the same digest and acknowledges. A worker started later begins with what was published.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import mmap
import os
import signal
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from probatum.core.errors import IntegrityError, ProbatumError
from probatum.services.engine.model import Model
from probatum.services.engine.predict import Predictor
from probatum.services.engine.schema import SwapReply
from probatum.services.http import RequestError
from probatum.services.telemetry import metrics
from probatum.services.telemetry.registry import Registry

PREVIOUS = "previous"
TARGET_BYTES_MAX = 512
ACKNOWLEDGE_S = 30.0

_log = logging.getLogger("probatum.engine")

LoadArtifact = Callable[[str], tuple[str, bytes]]
"""Return the digest that an alias or digest names, and the artifact's bytes. ProbatumError when there is none."""


class Control:
    """Share, between the workers, which model is wanted, who is alive, and who serves it. Made before the fork."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._page = mmap.mmap(-1, mmap.PAGESIZE * 2)
        self._lock = tempfile.TemporaryFile()  # noqa: SIM115 (held as long as the service runs)

    @property
    def generation(self) -> int:
        return self._get(0)

    def target(self) -> tuple[str, str] | None:
        """Return the digest and alias that are wanted, or None before the first swap."""
        if not self.generation:
            return None
        start = 8 * (1 + 2 * self.workers)
        length = int.from_bytes(self._page[start : start + 2], "little")
        digest, alias = self._page[start + 2 : start + 2 + length].decode("utf-8", "ignore").split("\n", 1)
        return digest, alias

    def publish(self, digest: str, alias: str) -> int:
        """Want another model; only under :meth:`exclusive`."""
        text = f"{digest}\n{alias}".encode()[:TARGET_BYTES_MAX]
        start = 8 * (1 + 2 * self.workers)
        self._page[start : start + 2 + len(text)] = len(text).to_bytes(2, "little") + text
        self._set(0, self.generation + 1)  # last: who reads the new number reads the new text
        return self.generation

    def join(self, worker: int) -> None:
        """Say that this process is the worker with this number."""
        self._set(1 + worker, os.getpid())

    def leave(self, worker: int) -> None:
        """Say that a worker has ended, so that nobody waits for it."""
        self._set(1 + worker, 0)

    def acknowledge(self, worker: int, generation: int, served: bool) -> None:
        """Say that a worker serves a generation, or that it refused it and serves what it served."""
        self._set(1 + self.workers + worker, generation if served else -generation)

    def living(self) -> int:
        """Return how many workers have joined and not left."""
        return sum(self._get(1 + i) != 0 for i in range(self.workers))

    def others(self, worker: int) -> list[int]:
        """Return the process ids of the living siblings."""
        return [pid for i in range(self.workers) if i != worker and (pid := self._get(1 + i))]

    def answers(self, generation: int) -> tuple[int, int, int]:
        """Return how many living workers serve the generation, refused it, and have not said."""
        given = [self._get(1 + self.workers + i) for i in range(self.workers) if self._get(1 + i)]
        served, refused = given.count(generation), given.count(-generation)
        return served, refused, len(given) - served - refused

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the right to swap; RequestError 409 when another worker has it. Freed by the system if we die."""
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _busy() from None
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _get(self, index: int) -> int:
        value: int = struct.unpack_from("<q", self._page, 8 * index)[0]
        return value

    def _set(self, index: int, value: int) -> None:
        struct.pack_into("<q", self._page, 8 * index, value)


class Swapper:
    """Swap the model of one worker, alone or with its siblings."""

    def __init__(
        self,
        predictor: Predictor,
        load: LoadArtifact,
        registry: Registry,
        control: Control,
        worker: int,
        reference: str,
    ) -> None:
        self.predictor = predictor
        self.reference = reference
        self._load, self._registry = load, registry
        self._control, self._worker = control, worker
        self._done = registry.counter(metrics.MODEL_SWAPS, "done").inc
        self._refused = registry.counter(metrics.MODEL_SWAPS, "refused").inc
        self._turn = asyncio.Lock()

    async def swap(self, to: str) -> SwapReply:
        """Serve ``to`` in all workers. On any error the model that was served stays.

        Raises RequestError 409 while another swap is under way, and whatever loading the model raises.
        """
        if self._turn.locked():
            raise _busy()
        async with self._turn:
            try:
                with self._control.exclusive():
                    reply = await self._swap(to)
            except ProbatumError:
                self._refused()
                raise
        self._done()
        return reply

    async def reload(self) -> None:
        """Serve what the alias that the engine was started with names now (SIGHUP)."""
        try:
            await self.swap(self.reference)
        except ProbatumError as error:
            _log.error("swap refused, %s stays: %s", self.predictor.model.version, error.message)

    async def follow(self) -> None:
        """Serve what a sibling published (SIGUSR1)."""
        async with self._turn:
            generation, target = self._control.generation, self._control.target()
            if target is None:
                return
            try:
                self.predictor.adopt(await self._open(*target))
            except ProbatumError as error:
                _log.error("cannot follow to %s: %s", target[0][:12], error.message)
                self._control.acknowledge(self._worker, generation, False)
                return
            self._control.acknowledge(self._worker, generation, True)

    async def _swap(self, to: str) -> SwapReply:
        digest, alias = self._name(to)
        model = await self._open(digest, alias) if digest else await asyncio.to_thread(self._read, to)
        self.predictor.adopt(model)
        generation = self._control.publish(model.digest, model.alias)
        self._control.acknowledge(self._worker, generation, True)
        for pid in self._control.others(self._worker):
            with suppress(ProcessLookupError):  # it died just now; its successor starts with what was published
                os.kill(pid, signal.SIGUSR1)
        served = await self._wait(generation)
        previous = self.predictor.previous
        return SwapReply(model.version, model.digest, model.alias, previous.digest if previous else None, served)

    def _name(self, to: str) -> tuple[str, str]:
        """Return digest and alias of ``previous`` where one is loaded; an empty digest is for the loader to find."""
        previous = self.predictor.previous
        return (previous.digest, previous.alias) if to == PREVIOUS and previous else ("", to)

    async def _open(self, digest: str, alias: str) -> Model:
        """Return a model by digest: one that is loaded already costs nothing, which makes the flip back instant."""
        for model in (self.predictor.model, self.predictor.previous):
            if model is not None and (model.digest, model.alias) == (digest, alias):
                return model
        return await asyncio.to_thread(self._read, digest, alias)

    def _read(self, reference: str, alias: str | None = None) -> Model:
        digest, data = self._load(reference)
        return open_model(data, digest, reference if alias is None else alias, self._registry)

    async def _wait(self, generation: int) -> int:
        deadline = asyncio.get_running_loop().time() + ACKNOWLEDGE_S
        while self._control.answers(generation)[2] and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.005)
        served, refused, silent = self._control.answers(generation)
        if refused or silent:
            raise RequestError(
                503, f"{served} workers serve the new model; {refused} could not load it, {silent} did not answer"
            )
        return served


def open_model(data: bytes, digest: str, reference: str, registry: Registry) -> Model:
    """Build a model; what a user's own model raises while it is loaded becomes an IntegrityError."""
    try:
        return Model(data, digest, reference, registry)
    except ProbatumError:
        raise
    except Exception as error:
        raise IntegrityError(f"artifact {digest[:12]}", f"cannot be loaded: {error!r}") from error


def _busy() -> RequestError:
    return RequestError(409, "another swap is under way", field="to", allowed="one swap at a time")
