"""Run the three services as one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from probatum.cli.common import F, workspace_option
from probatum.cli.record import feed_options


def _port(name: str, default: int) -> Callable[[F], F]:
    help_text = f"Port of the {name} on the loopback; 0 takes a free one."
    return click.option(
        f"--{name}-port", type=click.IntRange(0, 65535), default=default, show_default=True, help=help_text
    )


@click.command()
@workspace_option
@click.option("--model", help="Alias, name or digest in the workspace.  [default: champion]")
@click.option(
    "--artifact", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Serve this artifact file instead."
)
@feed_options
@click.option("--grid", help="With --feed: how often to decide, e.g. 1s.  [default: the model's own grid; 1m for bars]")
@click.option("--tick-size", type=float, help="Price tick, for feature sets that count in ticks.")
@_port("engine", 4010)
@_port("executor", 4001)
@_port("controller", 4020)
def up(
    workspace: Path, model: str | None, artifact: Path | None, tick_size: float | None, engine_port: int,
    executor_port: int, controller_port: int, grid: str | None, **feed: Any,
) -> None:  # fmt: skip
    """Run engine, executor and controller on one workspace; start again what dies, end all on SIGTERM or Ctrl-C.

    With --feed the executor decides by itself, on what it reads, and records it; else it waits for requests.

    \b
    Examples:
      probatum up
      probatum up --feed binance --symbols BTCUSDT,ETHUSDT
      probatum up --feed binance --market usdm --symbols BTCUSDT --model challenger --grid 60s
    """
    import signal
    import threading

    from probatum.adapters.processes import free_port, keep

    if feed["feed"] is not None:  # a wrong option is one message here, not a child that dies
        from probatum.cli.record import make_feed
        from probatum.core.clock import SystemClock

        make_feed(SystemClock(), **feed)
    ports = [port or free_port() for port in (engine_port, executor_port, controller_port)]
    engine, executor = (f"http://127.0.0.1:{port}" for port in ports[:2])
    shared = ["--workspace", str(workspace)]
    served = ["--artifact", str(artifact)] if artifact else ["--model", model or "champion"]
    told = [part for name, value in {"grid": grid, "tick_size": tick_size, **feed}.items() if value is not None
            for part in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
    rest = zip(("engine", "executor", "controller"), ports, strict=True)
    begin = {name: [name, "--port", str(port), *shared] for name, port in rest}
    services = {
        "engine": [*begin["engine"], *served],
        "executor": [*begin["executor"], *served, "--rollout", "--engine", engine, "--champion", engine, *told],
        "controller": [*begin["controller"], "--executor", executor, "--engine", engine],
    }
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    keep(services, stop.is_set, partial(click.echo, err=True))
