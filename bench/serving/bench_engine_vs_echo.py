"""Compare a prediction, metrics included, with a bare ASGI echo on the same server, in interleaved rounds.

    .venv/bin/python bench/serving/bench_engine_vs_echo.py
    .venv/bin/python bench/serving/bench_engine_vs_echo.py --rounds 9 --seconds 3 --profile

Both run in one process each: uvicorn, uvloop, httptools, no access log, no date or server header. The echo reads the body
and sends it back, so what differs is ours: the guard against slow senders, strict decoding, the score, five metrics, and
encoding. wrk (one thread, 16 connections) sends 2,000 distinct rows; CPU is the server's own, user and system, from /proc.
Which of the two goes first alternates, and the ratio is the median of the rounds' ratios. Target: at least 65 %.

What was learned is in docs/decisions/0060-fast-path.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench_peers import FEATURES, ROWS, Server, cpu_s, write_lua, write_model

ECHO = """
import sys, socket, uvicorn
async def app(scope, receive, send):
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", ws="none", lifespan="off", log_level="error",
            access_log=False, server_header=False, date_header=False, timeout_keep_alive=75, backlog=2048)
"""


def measure(port: int, lua: Path, seconds: int, pid: int) -> tuple[float, float]:
    """Return requests a second and server CPU µs a request."""
    before = cpu_s(pid)
    run = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(lua), f"http://127.0.0.1:{port}"]
    text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    used = cpu_s(pid) - before
    if "Non-2xx" in text:
        raise SystemExit(f"errors in the replies:\n{text}")
    requests, rate = re.search(r"(\d+) requests in", text), re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert requests is not None
    assert rate is not None
    return float(rate[1]), used / int(requests[1]) * 1e6


def wait(port: int, body: bytes) -> None:
    """Wait until a server answers."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/ml/predict", data=body, headers=headers)
    for _ in range(100):
        try:
            urllib.request.urlopen(request, timeout=1).read()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers on port {port}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="run the engine under cProfile and print its top")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian package wrk)")
    generator = random.Random(11)
    rows = [json.dumps([generator.gauss(0, 1) for _ in range(FEATURES)]) for _ in range(ROWS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        lua = write_lua(folder, Server("probatum", (), "/ml/predict", '{"features":%s}'), rows)
        engine = [sys.executable, "-m", "probatum.cli.main", "engine"]
        if arguments.profile:
            engine = [sys.executable, "-m", "cProfile", "-s", "tottime", "-m", "probatum.cli.main", "engine"]
        commands = {
            "echo": [sys.executable, "-c", ECHO, "5400"],
            "predict": [*engine, "--artifact", str(folder / "artifact.json"), "--port", "5401"],
        }
        with (folder / "log").open("wb") as log:
            started = {
                k: subprocess.Popen(v, stdout=log, stderr=log, start_new_session=True) for k, v in commands.items()
            }
        try:
            figures = rounds(started, lua, rows[0], arguments)
        finally:
            for process in started.values():
                process.terminate()
                process.wait()
        if arguments.profile:
            print((folder / "log").read_text()[:6000])
    report(figures)


def rounds(
    started: dict[str, subprocess.Popen[bytes]], lua: Path, row: str, arguments: argparse.Namespace
) -> dict[str, list[tuple[float, float]]]:
    """Return (requests a second, CPU µs) of each server in each round."""
    ports = dict(zip(started, (5400, 5401), strict=True))
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in started}
    for name, port in ports.items():
        wait(port, b'{"features":%s}' % row.encode())
        measure(port, lua, 1, started[name].pid)
    for number in range(arguments.rounds):
        for name in sorted(started, reverse=bool(number % 2)):
            print(f"\rround {number + 1} of {arguments.rounds}: {name:<10}", end="", flush=True)
            figures[name].append(measure(ports[name], lua, arguments.seconds, started[name].pid))
    return figures


def report(figures: dict[str, list[tuple[float, float]]]) -> None:
    """Print medians, and the median of the ratios that were measured side by side."""
    print(f"\r{'server':<12}{'req/s':>10}{'CPU µs':>10}   (load average {os.getloadavg()[0]:.1f})")
    for name, values in figures.items():
        rate, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:<12}{rate:>10,.0f}{cpu:>10.1f}")
    pairs = list(zip(figures["predict"], figures["echo"], strict=True))
    rates = [ours[0] / echo[0] for ours, echo in pairs]
    cpus = [echo[1] / ours[1] for ours, echo in pairs]
    print(f"requests a second, predict over echo: {statistics.median(rates):.0%} (target ≥ 65 %)")
    print(f"the same by CPU per request, which a busy machine disturbs less: {statistics.median(cpus):.0%}")


if __name__ == "__main__":
    main()
