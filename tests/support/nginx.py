"""Run a real nginx with deploy/nginx/probatum.conf on free ports, in front of replicas of our own."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import require_service

CONF = Path(__file__).parents[2] / "deploy" / "nginx" / "probatum.conf"


class Nginx:
    """The shipped configuration with other ports: ``engines`` and ``executors`` are the addresses in front of replicas."""

    def __init__(self, folder: Path, engines: Sequence[str]) -> None:
        require_service("nginx", shutil.which("nginx"))
        self._folder, self._engines = folder, engines
        with ExitStack() as free:
            ports = [free.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
        self.engines, self.executors = (f"http://127.0.0.1:{port}" for port in ports)
        self._write(engines)
        self._process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
        for port in ports:
            self._until_answered(port)

    def front(self, executors: Sequence[str]) -> None:
        """Put the address of the executors in front of these."""
        self._write(executors)
        subprocess.run(
            ["nginx", "-p", str(self._folder), "-c", str(self._folder / "nginx.conf"), "-s", "reload"], check=True
        )
        time.sleep(0.5)

    def _write(self, executors: Sequence[str]) -> None:
        text = CONF.read_text()
        for name, urls in (("engines", self._engines), ("executors", executors)):
            servers = "".join(f"    server {urlsplit(url).netloc} max_fails=1 fail_timeout=2s;\n" for url in urls)
            block = rf"(upstream probatum_{name} {{\n(?:    hash [^\n]*\n)?)(?:    server [^\n]*\n)+"
            text, count = re.subn(block, lambda found, servers=servers: found[1] + servers, text)
            assert count == 1
        for shipped, url in ((4009, self.engines), (4000, self.executors)):
            assert f"listen 127.0.0.1:{shipped};" in text
            text = text.replace(f"listen 127.0.0.1:{shipped};", f"listen {urlsplit(url).netloc};")
        temp = "".join(
            f"{kind}_temp_path {self._folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self._folder / "nginx.conf").write_text(
            f"daemon off;\nmaster_process on;\nworker_processes 1;\npid {self._folder}/nginx.pid;\n"
            f"error_log {self._folder}/error.log;\nevents {{}}\nhttp {{\n{temp}{text}}}\n"
        )

    def _until_answered(self, port: int) -> None:
        for _ in range(100):
            assert self._process.poll() is None, (self._folder / "error.log").read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError("nginx does not listen")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)
