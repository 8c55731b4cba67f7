"""Compare the engine with serving frameworks: the same logistic model, one worker each, interleaved rounds.

    .venv/bin/python bench/serving/bench_peers.py            # builds bench/.envs/<peer> once, then measures
    .venv/bin/python bench/serving/bench_peers.py --only fastapi kserve --rounds 2
    .venv/bin/python bench/serving/bench_peers.py --numpy    # the peers get hand-written arithmetic, not scikit-learn

Each peer lives in its own virtual environment (bench/.envs, not committed) and is written as its tutorial writes it
(bench/serving/peers). wrk sends distinct rows over 16 connections; CPU is that of the server's whole process tree, from
/proc; p99 is taken open loop at 100 requests a second, from the intended send time. The tables end with the ratios of
the product's speed targets: at least 10 times the best peer's requests a second, and a p99 at least 3 times lower.

What was learned: repeating one row flatters every server (branch prediction, and in some a cache); an access log costs
30 µs a request, so it is off everywhere; MLServer's parallel workers only add a hop for a model this small, so it runs
without them. The p99 at 100 a second has a floor that is not the server's: a bare ASGI echo under the same load showed 1.35 to
1.44 ms (two shared cores; wake-ups of sender and server), the engine 1.4 to 1.5, the best peer 3.8: a ratio of 2.5 to 2.8, and
one of 3 cannot show through that floor here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from probatum.adapters.load import http_post, open_loop

HERE = Path(__file__).parent
ENVS = HERE.parent / ".envs"
FEATURES = 7
ROWS = 2_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """Name a server: what to install, where it answers, how it wants a row."""

    name: str
    packages: tuple[str, ...]
    path: str
    body: str  # with %s for the JSON list of features


SERVERS = (
    Server("probatum", (), "/ml/predict", '{"features":%s}'),
    Server("fastapi", ("fastapi", "uvicorn[standard]", "numpy", "scikit-learn"), "/predict", '{"features":%s}'),
    Server("kserve", ("kserve", "scikit-learn"), "/v1/models/m:predict", '{"instances":[%s]}'),
    Server(
        "mlserver",
        ("mlserver", "scikit-learn"),
        "/v2/models/m/infer",
        '{"inputs":[{"name":"x","shape":[1,7],"datatype":"FP64","data":%s}]}',
    ),
    Server("bentoml", ("bentoml", "scikit-learn"), "/predict", '{"features":%s}'),
    Server("mlflow", ("mlflow",), "/invocations", '{"inputs":[%s]}'),
    Server("ray", ("ray[serve]", "scikit-learn"), "/predict", '{"features":%s}'),
)


@dataclass
class Figures:
    """Gather what the rounds measured."""

    per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


def environment(server: Server) -> Path:
    """Return the server's Python, building its environment when it is not there."""
    folder = ENVS / server.name
    python = folder / "bin" / "python"
    if not (folder / ".done").exists():
        print(f"installing {server.name} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *server.packages], check=True)
        (folder / ".done").touch()
    return python


def write_model(folder: Path) -> tuple[list[float], float]:
    """Write the model that everybody serves, as plain weights for the peers and as our artifact."""
    from probatum.core.verdict import Provenance
    from probatum.models.artifact import Artifact, DataSpec, FeatureSpec, LogisticModel

    generator = random.Random(7)
    weights, intercept = [generator.uniform(-1, 1) for _ in range(FEATURES)], -0.1
    (folder / "model.json").write_text(json.dumps({"weights": weights, "intercept": intercept}))
    from probatum.features.sets import get_feature_set

    feature_set = get_feature_set("v1.8.1")
    artifact = Artifact(
        name="bench",
        model=LogisticModel(
            intercept=intercept,
            weights=tuple(weights),
            lower=(-1e9,) * FEATURES,
            upper=(1e9,) * FEATURES,
            mean=(0.0,) * FEATURES,
            scale=(1.0,) * FEATURES,
        ),
        features=FeatureSpec(feature_set.name, feature_set.names, feature_set.fingerprint),
        target="direction@60s",
        grid_ns=None,
        reference={},
        data=DataSpec(
            ("BENCH",), ("0" * 64,), Provenance.SYNTHETIC, ROWS, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"
        ),
        split={},
        seed=7,
        versions={},
        metrics={},
    )
    (folder / "artifact.json").write_bytes(artifact.to_bytes())
    return weights, intercept


def command(server: Server, folder: Path, port: int) -> list[str]:
    """Return what starts the server on a port."""
    if server.name == "probatum":
        probatum = str(Path(sys.executable).parent / "probatum")
        return [probatum, "engine", "--artifact", str(folder / "artifact.json"), "--port", str(port)]
    return [str(environment(server)), str(HERE / "peers" / f"{server.name}_app.py"), str(port)]


def start(server: Server, folder: Path, port: int, row: str) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers a prediction."""
    with (folder / f"{server.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command(server, folder, port),
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=folder,
            env={**os.environ, "BENCH_MODEL": str(folder / "model.json"), "PYTHONPATH": str(HERE / "peers")}
            if server.name != "probatum"
            else None,
        )
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{server.path}",
        data=(server.body % row).encode(),
        headers={"Content-Type": "application/json"},
    )
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=2) as reply:
                reply.read()
                return process
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
    stop(process)
    raise SystemExit(f"{server.name} did not start:\n{(folder / f'{server.name}.log').read_text()[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server with everything it started."""
    for pid in tree(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def tree(root: int) -> list[int]:
    """Return a process and its descendants, and everything else in its session (Ray leaves the tree)."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == root:
            members.append(int(entry.name))
    return members


def cpu_s(root: int) -> float:
    """Return the CPU seconds that a server's processes have used."""
    total = 0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def write_lua(folder: Path, server: Server, rows: list[str]) -> Path:
    """Write a wrk script that cycles through distinct rows."""
    bodies = ",\n".join(f"[==[{server.body % row}]==]" for row in rows)
    path = folder / f"{server.name}.lua"
    path.write_text(
        f"local bodies = {{{bodies}}}\nlocal i = 0\n"
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f'function request() i = i % #bodies + 1; return wrk.format(nil, "{server.path}", nil, bodies[i]) end\n'
    )
    return path


def throughput(port: int, lua: Path, seconds: int, root: int) -> tuple[float, float]:
    """Return requests a second and server CPU µs a request, with 16 connections always busy."""
    before = cpu_s(root)
    text = subprocess.run(
        ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(lua), f"http://127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used = cpu_s(root) - before
    if "Non-2xx" in text:
        raise SystemExit(f"errors in the replies:\n{text}")
    requests = int(re.search(r"(\d+) requests in", text).group(1))  # type: ignore[union-attr]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))  # type: ignore[union-attr]
    return rate, used / requests * 1e6


def latency_p99_ms(server: Server, port: int, rows: list[str], seconds: int) -> float:
    """Return the p99 at 100 requests a second, open loop."""
    requests = [http_post("127.0.0.1", port, server.path, (server.body % row).encode()) for row in rows]
    replies = asyncio.run(open_loop("127.0.0.1", port, requests[: 100 * seconds], rate_per_s=100.0))
    failed = sum(reply.status != 200 for reply in replies)
    if failed:  # a reply that never came counts with the time that was spent waiting for it
        print(f"\n{server.name}: {failed} of {len(replies)} replies failed at 100 a second", flush=True)
    return sorted(reply.latency_ns for reply in replies)[int(len(replies) * 0.99)] / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[server.name for server in SERVERS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--numpy", action="store_true", help="peers score with numpy instead of scikit-learn")
    arguments = parser.parse_args()
    os.environ["BENCH_NUMPY"] = "1" if arguments.numpy else "0"
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian package wrk)")
    servers = [server for server in SERVERS if server.name in {"probatum", *arguments.only}]
    for server in servers[1:]:
        environment(server)
    generator = random.Random(11)
    rows = [json.dumps([generator.gauss(0, 1) for _ in range(FEATURES)]) for _ in range(ROWS)]
    figures = {server.name: Figures() for server in servers}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        scripts = {server.name: write_lua(folder, server, rows) for server in servers}
        for number in range(arguments.rounds):
            for index, server in enumerate(servers):
                print(f"\rround {number + 1} of {arguments.rounds}: {server.name:<12}", end="", flush=True)
                port = 5300 + 10 * index + 100 * number
                process = start(server, folder, port, rows[0])
                try:
                    throughput(port, scripts[server.name], 1, process.pid)  # warm-up
                    rate, cpu = throughput(port, scripts[server.name], arguments.seconds, process.pid)
                    p99 = latency_p99_ms(server, port, rows, arguments.seconds)
                finally:
                    stop(process)
                figures[server.name].per_s.append(rate)
                figures[server.name].cpu_us.append(cpu)
                figures[server.name].p99_ms.append(p99)
    report(figures)


def report(figures: dict[str, Figures]) -> None:
    """Print the table and the ratios, medians over the rounds."""
    median = {
        name: (statistics.median(f.per_s), statistics.median(f.cpu_us), statistics.median(f.p99_ms))
        for name, f in figures.items()
    }
    ours = median["probatum"]
    print(f"\r{'server':<12}{'req/s':>10}{'CPU µs':>10}{'p99 ms at 100/s':>18}{'req/s ratio':>14}{'p99 ratio':>12}")
    for name, (rate, cpu, p99) in sorted(median.items(), key=lambda item: -item[1][0]):
        print(f"{name:<12}{rate:>10,.0f}{cpu:>10,.0f}{p99:>18.2f}{ours[0] / rate:>13.1f}×{p99 / ours[2]:>11.1f}×")
    peers = {name: value for name, value in median.items() if name not in ("probatum", "fastapi")}
    if peers:
        best = max(value[0] for value in peers.values())
        low = min(value[2] for value in peers.values())
        print(f"requests a second, ours over the best serving peer: {ours[0] / best:.1f} × (target ≥ 10)")
        print(f"p99 at 100/s, the best serving peer over ours: {low / ours[2]:.1f} × (target ≥ 3)")


if __name__ == "__main__":
    main()
