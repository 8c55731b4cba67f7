"""Run the controller of live rollouts."""

from __future__ import annotations

from pathlib import Path

import click

from probatum.cli.common import workspace_option
from probatum.cli.live import prometheus_option
from probatum.core.errors import ParameterError


@click.command()
@workspace_option
@prometheus_option()
@click.option("--executor", "executors", multiple=True, help="URL of an executor to scrape; each replica once.")
@click.option("--engine", "engines", multiple=True, help="URL of an engine that serves the rollout's model.")
@click.option(
    "--tokens",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON of token digests, roles and names: with it pages need one too. POST /alerts/webhook needs role operate.",
)
@click.option("--repo", type=click.Path(path_type=Path, file_okay=False), help="Git work tree to tag candidates in.")
@click.option(
    "--decisions",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the executors' decision logs.  [default: WORKSPACE/decisions]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4020, show_default=True, help="Port; 0 takes a free one."
)
def controller(
    workspace: Path,
    prometheus: str | None,
    executors: tuple[str, ...],
    engines: tuple[str, ...],
    tokens: Path | None,
    repo: Path | None,
    decisions: Path | None,
    host: str,
    port: int,
) -> None:
    """Move live rollouts on as their measurements allow, and show where everything stands on pages for people.

    Of several controllers on one ledger one leads. Every page has a twin for programs, such as /rollout.json.

    Measurements come from scraping each --executor, or else from --prometheus, which tells each run's alert history either
    way. A canary that completes on live data is tagged in --repo.

    \b
    Examples:
      probatum controller --executor http://127.0.0.1:4001 --engine http://127.0.0.1:4010
      probatum controller --prometheus http://127.0.0.1:9090 --repo .
      curl localhost:4020/rollout.json
    """
    from probatum.adapters.decisions import ParquetDecisions
    from probatum.adapters.executors import ShadowReader
    from probatum.adapters.promql import PrometheusSource
    from probatum.adapters.scrape import ScrapeSource
    from probatum.cli.live import live_effects, open_tree
    from probatum.cli.workspace import Workspace
    from probatum.core.clock import NS_PER_S
    from probatum.rollout.plan import Plan
    from probatum.rollout.reading import Source
    from probatum.services.auth import read_tokens
    from probatum.services.controller.actions import Desk
    from probatum.services.controller.app import ControllerApp
    from probatum.services.controller.board import Board
    from probatum.services.controller.dashboard import Dashboard
    from probatum.services.controller.loop import Controller
    from probatum.services.controller.webhook import Webhook
    from probatum.services.fleet import bind, serve, url_of
    from probatum.services.telemetry import metrics
    from probatum.services.telemetry.registry import Registry

    if prometheus is None and not executors:
        raise ParameterError("prometheus, executor", "given, at least one of the two", None)
    space, registry = Workspace(workspace), Registry()
    registry.gauge(metrics.PROCESS_START).set(space.clock.now_ns() / NS_PER_S)

    def source_of(plan: Plan) -> Source:
        if executors:
            return ScrapeSource(executors, engines, space.clock)
        assert prometheus is not None
        return PrometheusSource(prometheus, space.clock, window_s=plan.ladder.stale_s)

    effects = live_effects(
        space,
        lambda text: click.echo(text, err=True),
        tree=open_tree(repo),
        prometheus=prometheus,
        decisions=None if decisions is None else ParquetDecisions(decisions),
    )
    loop = Controller(space.ledger, space, space.leadership(), effects, source_of, space.clock, registry)
    known = read_tokens(tokens)
    webhook = Webhook(space, known, space.clock, registry)
    board = Board(space.ledger, space, space.clock, status=lambda: loop.status, shadow=ShadowReader(executors))
    desk = Desk(board, space.ledger, space, space.clock, effects, known)
    dashboard = Dashboard(board, desk, known, closed=tokens is not None)
    app = ControllerApp(loop, registry, [*webhook.routes, *dashboard.routes], dashboard.guard)
    sock = bind(host, port)
    click.echo(f"controller on {url_of(sock)}", err=True)
    serve(app, sock, app.start, {}, last=app.stop, closing=dashboard.close)
