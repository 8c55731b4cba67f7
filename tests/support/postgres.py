"""Run a PostgreSQL cluster of our own, and hurt it: for tests and benchmarks."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote


def find_binaries() -> Path | None:
    """Return the folder of ``initdb`` and ``postgres``, the newest where there are several."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """One cluster in a temporary folder on a free port of loopback. Nothing in it outlives :meth:`close`."""

    def __init__(self, binaries: Path, **settings: str) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="probatum-pg-"))
        # root may not run it: the folder is given to the system's own account
        self._user: dict[str, Any] = (
            {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        )
        if self._user:
            shutil.chown(self._folder, "postgres", "postgres")
        command = [binaries / "initdb", "-D", self._folder / "data", "-U", "probatum", "-A", "trust", "--no-sync", "-E",
                   "UTF8", "--locale", "C"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, cwd=self._folder, **self._user)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = sock.getsockname()[1]
        self._settings = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "60", "port": str(self.port),
                          "listen_addresses": "127.0.0.1", "unix_socket_directories": "", **settings}  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def url(self, schema: str = "public") -> str:
        """Return the URL of a ledger in a schema of its own."""
        return f"postgresql://probatum@127.0.0.1:{self.port}/postgres?options={quote(f'-csearch_path={schema}')}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [self._binaries / "postgres", "-D", self._folder / "data", *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, **self._user)
        ready = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready).returncode:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it: at once as after a crash (SIGQUIT), or cleanly (SIGINT)."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the server and to every session of it; the sessions come last, or new ones would slip by."""
        assert self._process is not None
        pid = self._process.pid
        self._process.send_signal(number)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)

    def close(self) -> None:
        """Stop it and delete its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
