"""Run a real Prometheus, and an Alertmanager, on free ports, scraping five times a second."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml
from tests.conftest import require_service

DEPLOY = Path(__file__).parents[2] / "deploy"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def wait_ready(url: str, log: Path) -> None:
    """Wait until a server of this family says that it is ready."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


class Prometheus:
    """One server that can be killed and started again on its data; with ``rules`` it tells ``alertmanager`` what fires."""

    def __init__(
        self,
        folder: Path,
        executors: Sequence[str],
        engines: Sequence[str],
        controllers: Sequence[str] = (),
        rules: Path | None = None,
        alertmanager: str = "",
    ) -> None:
        require_service("prometheus", shutil.which("prometheus"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._jobs = (
            ("probatum-executor", "/metrics", [*executors]),
            ("probatum-engine", "/ml/metrics", [*engines]),
            ("probatum-controller", "/metrics", [*controllers]),
        )
        self._rules = f"rule_files: ['{rules}/*.yml']\n" if rules is not None else ""
        if alertmanager:
            told = f"[{{targets: [{urlsplit(alertmanager).netloc}]}}]"
            self._rules += f"alerting: {{alertmanagers: [{{static_configs: {told}}}]}}\n"
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
            f"global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nscrape_configs:\n{jobs}{self._rules}"
        )

    def start(self) -> None:
        with (self._folder / "prometheus.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/tsdb",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_ready(self.url, self._folder / "prometheus.log")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query."""
        question = urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{question}", timeout=10) as reply:
            found: list[dict[str, Any]] = json.loads(reply.read())["data"]["result"]
            return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def prometheus(
    folder: Path, *, executors: Sequence[str], engines: Sequence[str], controllers: Sequence[str] = (),
    rules: Path | None = None, alertmanager: str = "",
) -> Iterator[Prometheus]:  # fmt: skip
    """Yield a ready server and end it whatever happens."""
    server = Prometheus(folder, executors, engines, controllers, rules, alertmanager)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def alertmanager(folder: Path, webhooks: Sequence[str], token: str) -> Iterator[str]:
    """Yield the URL of a server with the configuration of deploy/, quicker, telling every webhook; end it whatever happens."""
    require_service("prometheus-alertmanager", shutil.which("prometheus-alertmanager"))
    config = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "50ms", "group_interval": "200ms"}
    (receiver,) = config["receivers"]
    receiver["webhook_configs"] = [{**receiver["webhook_configs"][0], "url": url} for url in webhooks]
    (folder / "alertmanager.yml").write_text(json.dumps(config))
    (folder / "token").write_text(token + "\n")
    url = f"http://127.0.0.1:{free_port()}"
    with (folder / "alertmanager.log").open("ab") as log:
        process = subprocess.Popen(
            ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alertmanager",
             f"--web.listen-address={urlsplit(url).netloc}", "--cluster.listen-address="],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_ready(url, folder / "alertmanager.log")
        yield url
    finally:
        process.kill()
        process.wait()
