"""Run the controller of live rollouts."""

from __future__ import annotations

from pathlib import Path

import click

from probatum.cli.common import workspace_option
from probatum.core.errors import ParameterError


@click.command()
@workspace_option
@click.option("--prometheus", help="URL of a Prometheus that scrapes executors and engines (deploy/prometheus).")
@click.option("--executor", "executors", multiple=True, help="URL of an executor to scrape; each replica once.")
@click.option("--engine", "engines", multiple=True, help="URL of an engine that serves the rollout's model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4020, show_default=True, help="Port; 0 takes a free one."
)
def controller(
    workspace: Path, prometheus: str | None, executors: tuple[str, ...], engines: tuple[str, ...], host: str, port: int
) -> None:
    """Move live rollouts on as their measurements allow; of several controllers on one ledger one leads.

    Measurements come from --prometheus, or from scraping each --executor. GET /status tells where everything stands.

    \b
    Examples:
      probatum controller --executor http://127.0.0.1:4001 --engine http://127.0.0.1:4010
      probatum controller --prometheus http://127.0.0.1:9090
      curl localhost:4020/status
    """
    from probatum.adapters.promql import PrometheusSource
    from probatum.adapters.scrape import ScrapeSource
    from probatum.cli.live import live_effects
    from probatum.cli.workspace import Workspace
    from probatum.core.clock import NS_PER_S
    from probatum.rollout.plan import Plan
    from probatum.rollout.reading import Source
    from probatum.services.controller.app import ControllerApp
    from probatum.services.controller.loop import Controller
    from probatum.services.fleet import bind, serve, url_of
    from probatum.services.telemetry import metrics
    from probatum.services.telemetry.registry import Registry

    if (prometheus is None) == (not executors):
        raise ParameterError("prometheus, executor", "one of the two", (prometheus, executors))
    space, registry = Workspace(workspace), Registry()
    registry.gauge(metrics.PROCESS_START).set(space.clock.now_ns() / NS_PER_S)

    def source_of(plan: Plan) -> Source:
        if prometheus is not None:
            ladder = plan.ladder
            return PrometheusSource(
                prometheus, space.clock, window_s=ladder.stale_s, gone_s=ladder.source_deadline_s + ladder.poll_s
            )
        return ScrapeSource(executors, engines, space.clock)

    loop = Controller(
        space.ledger,
        space,
        space.leadership(),
        live_effects(lambda text: click.echo(text, err=True)),
        source_of,
        space.clock,
        registry,
    )
    app, sock = ControllerApp(loop, registry), bind(host, port)
    click.echo(f"controller on {url_of(sock)}", err=True)
    serve(app, sock, app.start, {}, last=app.stop)
