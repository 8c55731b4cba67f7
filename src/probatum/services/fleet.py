"""Run one ASGI application in one or several processes behind one socket: restart, reload, drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import uvicorn
import uvloop

from probatum.core.errors import ParameterError
from probatum.services.http import App, GuardedProtocol

DRAIN_S = 30
BACKLOG = 2048
YOUNG_S = 1.0
YOUNG_DEATHS_MAX = 3

_log = logging.getLogger("probatum.fleet")

Hook = Callable[[], Coroutine[Any, Any, None]]
Hooks = Mapping[signal.Signals, Hook]
_MASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. ParameterError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not host:
        raise ParameterError("host, port", "an address (0.0.0.0 for all of them) and a port", f"{host}:{port}")
    try:
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise ParameterError("host, port", "an address that can be bound", f"{host}:{port} ({error})") from None
    sock.setblocking(False)
    sock.set_inheritable(True)
    return sock


def url_of(sock: socket.socket) -> str:
    """Return the address of a bound socket as a URL."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    app: App,
    sock: socket.socket,
    first: Hook,
    hooks: Hooks,
    *,
    orphan_fd: int | None = None,
    last: Hook | None = None,
    closing: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight and return.

    ``hooks`` run on their signals, on the loop, ``first`` once before the first request is accepted and ``last`` once
    after the last reply; ``closing`` is told first that a drain begins, to end replies that would go on for ever. The end
    of the pipe ``orphan_fd`` (the supervisor's death) drains too.
    """
    config = uvicorn.Config(
        app, http=GuardedProtocol, ws="none", lifespan="off", log_level="error", access_log=False,
        server_header=False, date_header=False, timeout_keep_alive=75, timeout_graceful_shutdown=DRAIN_S, backlog=BACKLOG,
    )  # fmt: skip
    server = _Server(config, closing)
    for number in hooks:
        signal.signal(number, signal.SIG_IGN)  # until the loop takes it
    for ending in (signal.SIGTERM, signal.SIGINT):
        # Before uvicorn listens to the signal, and when it raises it again after it has drained.
        signal.signal(ending, lambda *_: setattr(server, "should_exit", True))
    gc.collect()
    gc.freeze()  # what was loaded stays: full collections need not walk it
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(server, sock, first, hooks, orphan_fd))
        if last is not None:
            runner.run(last())


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, closing: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._closing = closing

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._closing is not None:
            self._closing()
        await super().shutdown(sockets)


async def _serve(server: uvicorn.Server, sock: socket.socket, first: Hook, hooks: Hooks, orphan_fd: int | None) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def spawn(hook: Hook) -> None:
        task = loop.create_task(hook())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number, hook in hooks.items():
        loop.add_signal_handler(number, spawn, hook)

    def orphaned(fd: int) -> None:
        loop.remove_reader(fd)
        server.should_exit = True

    if orphan_fd is not None:
        loop.add_reader(orphan_fd, orphaned, orphan_fd)
    await first()
    await server.serve(sockets=[sock])


class Supervisor:
    """Keep ``count`` forked workers alive until told to stop.

    A worker that dies is replaced in its place (``ended`` is told first), so that it goes on in the same metric page.
    SIGHUP goes to one worker, which tells the others; SIGTERM and SIGINT drain all. Workers notice our own death.
    """

    def __init__(
        self, count: int, sock: socket.socket, work: Callable[[int, int], None], ended: Callable[[int], None]
    ) -> None:
        self._count, self._sock, self._work, self._ended = count, sock, work, ended
        self._alive: dict[int, tuple[int, float]] = {}
        self._stopping = False
        self._orphan_fd, self._pipe_end = os.pipe()

    def run(self) -> int:
        """Return 0 after a drain, 1 when workers died young again and again."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)
        for worker in range(self._count):
            self._start(worker)
        young = 0
        while self._alive:
            pid, status = os.wait()
            worker, started = self._alive.pop(pid, (-1, 0.0))
            if worker < 0:
                continue
            self._ended(worker)
            if self._stopping:
                continue
            young = young + 1 if time.monotonic() - started < YOUNG_S else 0
            _log.error("worker %d ended (%d), replacing it", worker, os.waitstatus_to_exitcode(status))
            if young > YOUNG_DEATHS_MAX:
                self._stop()
            else:
                self._start(worker)
        return int(young > YOUNG_DEATHS_MAX)

    def _start(self, worker: int) -> None:
        if self._stopping:
            return
        sys.stdout.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _MASKED)  # a child must never run our handlers
        pid = os.fork()
        if pid == 0:
            self._child(worker, before)
        self._alive[pid] = (worker, time.monotonic())
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _child(self, worker: int, mask: set[int]) -> None:
        code = 1
        try:
            os.close(self._pipe_end)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._work(worker, self._orphan_fd)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._sock.close()  # or the system would go on accepting for nobody
        self._signal(signal.SIGTERM, len(self._alive))

    def _reload(self, *_: object) -> None:
        self._signal(signal.SIGHUP, 1)

    def _signal(self, number: signal.Signals, count: int) -> None:
        for pid in list(self._alive)[:count]:
            os.kill(pid, number)
