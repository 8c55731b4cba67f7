"""Run the controller of live rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from probatum.cli.common import workspace_option
from probatum.core.errors import ParameterError

if TYPE_CHECKING:
    from probatum.adapters.notify import AppriseNotifier
    from probatum.pipeline.ports import Record


@click.command()
@workspace_option
@click.option("--prometheus", help="URL of a Prometheus that scrapes executors and engines (deploy/prometheus).")
@click.option("--executor", "executors", multiple=True, help="URL of an executor to scrape; each replica once.")
@click.option("--engine", "engines", multiple=True, help="URL of an engine that serves the rollout's model.")
@click.option(
    "--notify", "services", multiple=True, help="Apprise URL of a service to tell; may be repeated (extra notify)."
)
@click.option("--no-jobs", is_flag=True, help="Leave scheduled jobs to who schedules elsewhere (jobs export).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4020, show_default=True, help="Port; 0 takes a free one."
)
def controller(
    workspace: Path,
    prometheus: str | None,
    executors: tuple[str, ...],
    engines: tuple[str, ...],
    services: tuple[str, ...],
    no_jobs: bool,
    host: str,
    port: int,
) -> None:
    """Move live rollouts on as their measurements allow; of several controllers on one ledger one leads.

    Measurements come from --prometheus, or from scraping each --executor. GET /status tells where everything stands.
    Who leads also runs the scheduled jobs (probatum jobs ls), and takes a picture of /rollout at the end of each phase.

    \b
    Examples:
      probatum controller --executor http://127.0.0.1:4001 --engine http://127.0.0.1:4010
      probatum controller --prometheus http://127.0.0.1:9090
      probatum controller --executor http://127.0.0.1:4001 --notify mailtos://user:password@example.com
      curl localhost:4020/status
    """
    from probatum.adapters.picture import take_picture
    from probatum.adapters.promql import PrometheusSource
    from probatum.adapters.scrape import ScrapeSource
    from probatum.cli.evidence import export_evidence
    from probatum.cli.live import live_effects
    from probatum.cli.workspace import Workspace
    from probatum.core.clock import NS_PER_S
    from probatum.pipeline.jobs import Place, alarms
    from probatum.rollout.plan import Plan
    from probatum.rollout.reading import Source
    from probatum.services.controller.app import ControllerApp
    from probatum.services.controller.loop import Controller
    from probatum.services.controller.photographer import Photographer
    from probatum.services.controller.scheduler import Scheduler
    from probatum.services.fleet import bind, serve, url_of
    from probatum.services.telemetry import metrics
    from probatum.services.telemetry.registry import Registry

    if (prometheus is None) == (not executors):
        raise ParameterError("prometheus, executor", "one of the two", (prometheus, executors))
    space, registry = Workspace(workspace), Registry()
    registry.gauge(metrics.PROCESS_START).set(space.clock.now_ns() / NS_PER_S)

    def source_of(plan: Plan) -> Source:
        if prometheus is not None:
            return PrometheusSource(prometheus, space.clock, window_s=plan.ladder.stale_s)
        return ScrapeSource(executors, engines, space.clock)

    sock = bind(host, port)
    notifier, photographer = _notifier(services), Photographer(space, take_picture, f"{url_of(sock)}/rollout")

    def tell(text: str) -> None:
        click.echo(text, err=True)
        if notifier is not None:
            notifier.tell(text)

    def after(records: Sequence[Record]) -> None:
        for text in alarms(records):
            tell(text)
        export_evidence(space)

    effects = live_effects(tell, photograph=photographer.ask)
    loop = Controller(space.ledger, space, space.leadership(), effects, source_of, space.clock, registry)
    jobs = Scheduler(Place(space, space.decisions), lambda: loop.epoch, space.clock, registry, after)
    beside = [photographer.run, *([] if no_jobs else [jobs.run]), *([notifier.run] if notifier else [])]
    app = ControllerApp(loop, registry, beside=beside)
    click.echo(f"controller on {url_of(sock)}", err=True)
    serve(app, sock, app.start, {}, last=app.stop)


def _notifier(services: tuple[str, ...]) -> AppriseNotifier | None:
    if not services:
        return None
    from probatum.adapters.notify import AppriseNotifier

    return AppriseNotifier(services)
