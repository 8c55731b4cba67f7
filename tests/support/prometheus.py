"""Run a real Prometheus on a free port, scraping five times a second."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import require_service


class Prometheus:
    """One server that can be killed and started again on its data."""

    def __init__(self, folder: Path, executors: Sequence[str], engines: Sequence[str]) -> None:
        require_service("prometheus", shutil.which("prometheus"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._jobs = (("probatum-executor", "/metrics", [*executors]), ("probatum-engine", "/ml/metrics", [*engines]))
        self._configure()
        self.start()

    def drop(self, url: str) -> None:
        """Scrape a replica no longer, as when discovery does not list it any more."""
        for _, _, urls in self._jobs:
            if url in urls:
                urls.remove(url)
        self._configure()
        self.process.send_signal(signal.SIGHUP)

    def _configure(self) -> None:
        jobs = "".join(
            f"  - job_name: {job}\n    metrics_path: {path}\n    static_configs:\n"
            f"      - targets: [{', '.join(repr(urlsplit(url).netloc) for url in urls)}]\n"
            for job, path, urls in self._jobs
        )
        (self._folder / "prometheus.yml").write_text(
            f"global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nscrape_configs:\n{jobs}"
        )

    def start(self) -> None:
        with (self._folder / "prometheus.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/tsdb",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self._folder / "prometheus.log").read_text()[-2000:])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def prometheus(folder: Path, *, executors: Sequence[str], engines: Sequence[str]) -> Iterator[Prometheus]:
    """Yield a ready server and end it whatever happens."""
    server = Prometheus(folder, executors, engines)
    try:
        yield server
    finally:
        server.kill()
