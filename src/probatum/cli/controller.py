"""Run the controller of live rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import workspace_option
from probatum.cli.live import prometheus_option
from probatum.core.errors import ParameterError

if TYPE_CHECKING:
    from probatum.adapters.notify import AppriseNotifier
    from probatum.core.clock import Clock
    from probatum.pipeline.ports import Record
    from probatum.rollout.plan import Plan
    from probatum.rollout.reading import Source


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
@click.option(
    "--notify",
    "services",
    multiple=True,
    envvar="PROBATUM_NOTIFY",
    show_envvar=True,
    help="Apprise URL of a service to tell; may be repeated (extra notify).",
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
    tokens: Path | None,
    repo: Path | None,
    decisions: Path | None,
    services: tuple[str, ...],
    no_jobs: bool,
    host: str,
    port: int,
) -> None:
    """Move live rollouts on as their measurements allow, and show where everything stands on pages for people.

    Of several controllers on one ledger one leads. Every page has a twin for programs, such as /rollout.json.

    Measurements come from scraping each --executor, or else from --prometheus, which tells each run's alert history either
    way. A canary that completes on live data is tagged in --repo. Who leads also runs the scheduled jobs (probatum jobs ls),
    and takes a picture of /rollout at the end of each phase.

    \b
    Examples:
      probatum controller --executor http://127.0.0.1:4001 --engine http://127.0.0.1:4010
      probatum controller --prometheus http://127.0.0.1:9090 --repo .
      probatum controller --executor http://127.0.0.1:4001 --notify mailtos://user:password@example.com
      curl localhost:4020/rollout.json
    """
    from probatum.adapters.decisions import ParquetDecisions
    from probatum.adapters.executors import ShadowReader
    from probatum.adapters.picture import take_picture
    from probatum.cli.evidence import export_evidence
    from probatum.cli.live import live_effects, open_tree
    from probatum.cli.workspace import Workspace
    from probatum.core.clock import NS_PER_S
    from probatum.pipeline.jobs import Book, Place, alarms, listing
    from probatum.services.auth import read_tokens
    from probatum.services.controller.actions import Desk
    from probatum.services.controller.app import ControllerApp
    from probatum.services.controller.board import Board
    from probatum.services.controller.dashboard import Dashboard
    from probatum.services.controller.loop import Controller
    from probatum.services.controller.photographer import Photographer
    from probatum.services.controller.scheduler import Scheduler
    from probatum.services.controller.webhook import Webhook
    from probatum.services.fleet import bind, serve, url_of
    from probatum.services.telemetry import metrics
    from probatum.services.telemetry.registry import Registry

    space, registry = Workspace(workspace), Registry()
    source_of = _source_of(prometheus, executors, engines, space.clock)
    logged = space.decisions if decisions is None else ParquetDecisions(decisions)
    registry.gauge(metrics.PROCESS_START).set(space.clock.now_ns() / NS_PER_S)
    tree, known, notifier = open_tree(repo), read_tokens(tokens), _notifier(services)
    sock = bind(host, port)
    photographer = Photographer(space, lambda url: take_picture(dashboard.admit(url)), f"{url_of(sock)}/rollout")

    def tell(text: str) -> None:
        click.echo(text, err=True)
        if notifier is not None:
            notifier.tell(text)

    def after(records: Sequence[Record]) -> None:
        for text in alarms(records):
            tell(text)
        export_evidence(space)

    effects = live_effects(space, tell, tree=tree, prometheus=prometheus, decisions=logged, photograph=photographer.ask)
    loop = Controller(space.ledger, space, space.leadership(), effects, source_of, space.clock, registry)
    scheduled = Book(space.ledger)

    def list_jobs() -> list[dict[str, Any]]:
        scheduled.refresh()
        return listing(scheduled, space.clock.now_ns())

    board = Board(
        space.ledger, space, space.clock, status=lambda: loop.status, shadow=ShadowReader(executors), jobs=list_jobs
    )
    desk = Desk(board, space.ledger, space, space.clock, effects, known)
    dashboard = Dashboard(board, desk, known, closed=tokens is not None)
    jobs = Scheduler(Place(space, logged), lambda: loop.epoch, space.clock, registry, after)
    beside = [photographer.run, *([] if no_jobs else [jobs.run]), *([notifier.run] if notifier else [])]
    webhook = Webhook(space, known, space.clock, registry)
    app = ControllerApp(loop, registry, [*webhook.routes, *dashboard.routes], dashboard.guard, beside)
    click.echo(f"controller on {url_of(sock)}", err=True)
    serve(app, sock, app.start, {}, last=app.stop, closing=dashboard.close)


def _source_of(
    prometheus: str | None, executors: tuple[str, ...], engines: tuple[str, ...], clock: Clock
) -> Callable[[Plan], Source]:
    """Return what makes the source of a plan's measurements. ParameterError where nothing was named to measure with."""
    from probatum.adapters.promql import PrometheusSource
    from probatum.adapters.scrape import ScrapeSource

    if executors:
        return lambda plan: ScrapeSource(executors, engines, clock)  # noqa: ARG005
    if prometheus is None:
        raise ParameterError("prometheus, executor", "given, at least one of the two", None)

    def source_of(plan: Plan) -> Source:
        ladder = plan.ladder
        gone_s = ladder.source_deadline_s + ladder.poll_s
        return PrometheusSource(prometheus, clock, window_s=ladder.stale_s, gone_s=gone_s)

    return source_of


def _notifier(services: tuple[str, ...]) -> AppriseNotifier | None:
    if not services:
        return None
    from probatum.adapters.notify import AppriseNotifier

    return AppriseNotifier(services)
