"""Start our own services as child processes, and end them whatever happens."""

from __future__ import annotations

import ctypes
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, Queue

from probatum.core.errors import BlockedError, InputError

_URL = re.compile(r"on (http://\S+)")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
START_S = 60.0
STOP_S = 30.0
YOUNG_S = 5.0
YOUNG_DEATHS_MAX = 3
LOOK_S = 0.1
_PR_SET_PDEATHSIG = 1


@contextmanager
def service(arguments: Sequence[str]) -> Iterator[str]:
    """Run ``probatum ARGUMENTS`` until the block ends and yield the URL it listens on.

    SIGTERM lets it drain; what does not end then is killed. On Linux it ends with us, should we be killed -9. Raises BlockedError with its last words when it does not start.
    """
    command = [sys.executable, "-m", "probatum.cli.main", *arguments]
    follows = _end_with_parent if sys.platform == "linux" else None
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=follows)
    lines: Queue[str | None] = Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield _wait_for_url(arguments[0], lines)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(STOP_S)
        if process.stderr is not None:
            process.stderr.close()


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_for_url(name: str, lines: Queue[str | None]) -> str:
    said: list[str] = []
    while True:
        try:
            line = lines.get(timeout=START_S)
        except Empty:
            line = None
        if line is None:
            raise BlockedError(f"{name} did not start: {' '.join(said[-3:]) or 'it said nothing'}")
        match = _URL.search(line)
        if match:
            return match[1]
        said.append(line.strip())


def _read(process: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    # Goes on reading after the URL, so that a service that logs much never blocks on a full pipe.
    assert process.stderr is not None
    for line in process.stderr:
        lines.put(line)
    lines.put(None)


def keep(services: Mapping[str, Sequence[str]], stop: Callable[[], bool], tell: Callable[[str], None]) -> None:
    """Run ``probatum ARGUMENTS`` for each service, again whenever one ends, until told to stop; then end them all.

    The last one started is the first one ended. Raises BlockedError when one dies within seconds again and again, or
    says (exit code 2) that it cannot work as it was told.
    """
    children = {name: _Child(name, arguments, tell) for name, arguments in services.items()}
    try:
        while not stop():
            for child in children.values():
                child.look(time.monotonic())
            time.sleep(LOOK_S)
    finally:
        for child in reversed(children.values()):
            child.end()


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class _Child:
    """Keep one service running: it writes to our stderr, and ends when we do, even if we are killed."""

    def __init__(self, name: str, arguments: Sequence[str], tell: Callable[[str], None]) -> None:
        self._name, self._tell = name, tell
        self._command = [sys.executable, "-m", "probatum.cli.main", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = self._due_s = 0.0
        self._young = 0

    def look(self, now_s: float) -> None:
        """Start it where it is due; note its end."""
        if self._process is None:
            if now_s >= self._due_s:
                self._start(now_s)
        elif self._process.poll() is not None:
            self._ended(self._process.returncode, now_s)

    def end(self) -> None:
        """Let it drain, and kill what does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self, now_s: float) -> None:
        self._started_s = now_s
        # A session of its own: Ctrl-C is for us, who then end the children in order.
        self._process = subprocess.Popen(self._command, start_new_session=True, preexec_fn=_die_with_parent)

    def _ended(self, code: int, now_s: float) -> None:
        self._process = None
        self._young = self._young + 1 if now_s - self._started_s < YOUNG_S else 0
        if self._young > YOUNG_DEATHS_MAX or code == InputError.exit_code:
            raise BlockedError(f"{self._name} ended with {code}, {self._young} times within {YOUNG_S:g} s of its start")
        self._due_s = now_s + 0.5 * 2.0**self._young - 0.5
        self._tell(f"{self._name} ended with {code}, starting it again")


def _die_with_parent() -> None:
    with suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
