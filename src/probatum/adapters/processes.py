"""Start our own services as child processes, and end them whatever happens."""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, Queue

from probatum.core.errors import BlockedError

_URL = re.compile(r"on (http://\S+)")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
START_S = 60.0
STOP_S = 30.0


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
