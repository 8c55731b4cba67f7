"""Serve decisions: the baseline's, with a model in the shadow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import FiniteRange, workspace_option
from probatum.cli.record import feed_options, finding_teller, make_feed
from probatum.core.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from probatum.core.clock import Clock
    from probatum.features.sets import FeatureSet
    from probatum.pipeline.ports import Feed
    from probatum.services.executor.app import ExecutorApp
    from probatum.services.executor.decide import Executor, State
    from probatum.services.executor.feed import FeedDriver
    from probatum.services.telemetry.registry import Registry


@click.command()
@workspace_option
@click.option("--engine", default="http://127.0.0.1:4010", show_default=True, help="Engine that serves the challenger.")
@click.option("--champion", help="Engine that serves the champion; needed for --mode gated.")
@click.option("--model", help="Alias, name or digest in the workspace: its feature set and target are served.")
@click.option(
    "--artifact",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Serve the feature set and target of this artifact file.",
)
@click.option("--feature-set", default="v1.8-b0", show_default=True, help="Feature set, where no --model is given.")
@click.option(
    "--has", "has", multiple=True, help="Data that the feed has (spread, volume, sizes, trades, tick); default all."
)
@click.option("--target", default="direction@60s", show_default=True, help="Target, where no --model is given.")
@click.option(
    "--baseline", help="Kind of baseline, where it is not the target's own: direction, large_move, next_move."
)
@click.option("--tick-size", type=float, help="Price tick, for feature sets that count in ticks.")
@click.option(
    "--rollout", is_flag=True, help="Follow the rollout of the ledger; cut off from it, serve the baseline alone."
)
@click.option("--mode", type=click.Choice(["off", "observe", "gated"]), help="Without --rollout.  [default: observe]")
@click.option(
    "--share",
    type=FiniteRange(0, 1),
    help="Share of decisions mirrored, or of units gated, without --rollout.  [default: 1]",
)
@click.option(
    "--delivery",
    type=click.Choice(["mirror", "await"]),
    default="mirror",
    show_default=True,
    help="Reply at once, or within 60 ms with the shadow's score.",
)
@click.option(
    "--stale-s",
    type=FiniteRange(0.001, 1e9),
    default=90.0,
    show_default=True,
    help="Age of market data at which the champion is not asked.",
)
@click.option(
    "--log",
    "log",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the decision log.  [default: WORKSPACE/decisions]",
)
@click.option("--no-log", is_flag=True, help="Log no decisions.")
@feed_options
@click.option("--grid", help="With --feed: how often to decide, e.g. 1s.  [default: the model's own grid; 1m for bars]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4001, show_default=True, help="Port; 0 takes a free one."
)
def executor(workspace: Path, host: str, port: int, **options: Any) -> None:
    """Answer decisions with the baseline and compare a model beside it, off the reply path.

    \b
    Examples:
      probatum executor                                             the seed's snapshot, beside an engine on :4010
      probatum executor --feature-set robust --target large_move@60s
      probatum executor --delivery await --share 0.25
      probatum executor --rollout --champion http://127.0.0.1:4010     what the canary allows, and no more
      probatum executor --feed binance --symbols BTCUSDT --feature-set v1.8.1     decides by itself, on live data
      curl --json '{"snapshot":{"ts":0,"mid":42000,"spreadBp":1,"vol1m":1e6,"rsi14":55}}' localhost:4001/predict-with-shadow
      curl localhost:4001/shadow/metrics
    """  # fmt: skip
    from probatum.services.fleet import bind, serve, url_of

    sock = bind(host, port)
    app = build(workspace, **options)
    click.echo(f"executor on {url_of(sock)}", err=True)
    serve(app, sock, app.start, {}, last=app.stop)


def build(
    workspace: Path,
    *,
    engine: str,
    champion: str | None,
    model: str | None,
    artifact: Path | None,
    feature_set: str,
    has: tuple[str, ...],
    target: str,
    baseline: str | None,
    tick_size: float | None,
    rollout: bool,
    mode: str | None,
    share: float | None,
    delivery: Any,
    stale_s: float,
    log: Path | None,
    no_log: bool,
    grid: str | None,
    feed: str | None,
    **where: Any,
) -> ExecutorApp:
    """Wire an executor from the command's options. Raises ParameterError where they do not fit together."""
    import os
    import time

    from probatum.adapters.decision_log import ParquetDecisionLog
    from probatum.core.clock import NS_PER_MINUTE, NS_PER_S, SystemClock
    from probatum.core.verdict import Provenance
    from probatum.features.labels import parse_target
    from probatum.features.sets import get_feature_set
    from probatum.features.state import FeatureState
    from probatum.models.artifact import FeatureSpec
    from probatum.models.baseline import get_baseline
    from probatum.rollout.breaker import Breaker
    from probatum.rollout.choose import Mode
    from probatum.rollout.lease import RolloutDocument, RolloutSource, StaticRollout
    from probatum.services.executor.app import ExecutorApp
    from probatum.services.executor.caller import Caller
    from probatum.services.executor.client import EngineClient
    from probatum.services.executor.decide import Executor, ExecutorSettings
    from probatum.services.executor.outcomes import LiveOutcomes
    from probatum.services.executor.run import RunMeter
    from probatum.services.executor.shadow import NoLog, Shadow, ShadowSettings
    from probatum.services.telemetry import metrics
    from probatum.services.telemetry.registry import Registry

    if feed is None and any(where[name] for name in ("symbols", "url", "rest_url")):
        raise ParameterError("symbols, url, rest url", "left out, or given with --feed", where)
    if mode == "gated" and champion is None:
        raise ParameterError("champion", "the URL of an engine, for mode gated", champion)
    if rollout and (mode is not None or share is not None):
        raise ParameterError("mode, share", "left out with --rollout: the rollout's document says them", (mode, share))
    fed = None if feed is None else make_feed(SystemClock(), feed, **where)
    source: RolloutSource = StaticRollout(
        RolloutDocument(mode=Mode(mode or "observe"), share=1.0 if share is None else share)
    )
    if rollout:
        from probatum.cli.workspace import Workspace

        source = Workspace(workspace).follower()
    served, target, grid_ns, digest = _served(workspace, model, artifact) or (
        get_feature_set(feature_set, frozenset(has) if has else None),
        target,
        None,
        "",
    )
    clock, now_ns, registry, settings = SystemClock(), time.monotonic_ns, Registry(), ShadowSettings()
    registry.gauge(metrics.PROCESS_START).set(clock.now_ns() / NS_PER_S)
    needs_tick = "tick" in served.needs and tick_size is None
    new_state = None if needs_tick else lambda: FeatureState(served, tick_size)
    if new_state:
        new_state()  # compiles, so that the first symbol does not wait for it
    spec = FeatureSpec(served.name, served.names, served.fingerprint)
    decision_log = None if no_log else ParquetDecisionLog(log or workspace / "decisions", spec, clock)

    def caller(url: str, connections_max: int) -> Caller:
        return Caller(
            EngineClient(url, connections_max=connections_max), served.fingerprint, Breaker(settings.breaker), now_ns
        )

    # What comes in over HTTP may come from anywhere; a feed of our own says what it read.
    provenance = Provenance.SYNTHETIC if fed is None else fed.provenance
    outcomes = LiveOutcomes(parse_target(target), grid_ns, registry)
    meter = RunMeter(NoLog() if decision_log is None else decision_log, registry, provenance, outcomes, digest)
    shadow = Shadow(caller(engine, 64 if delivery == "await" else 4), settings, now_ns, meter, registry)
    app = Executor(
        served,
        get_baseline(baseline or target),
        shadow,
        source,
        clock=clock,
        now_ns=now_ns,
        registry=registry,
        run_id=f"{clock.now_ns():x}-{os.getpid():x}",
        settings=ExecutorSettings(delivery=delivery, stale_ms=max(1, round(stale_s * 1000))),
        champion=caller(champion, 64) if champion else None,
        new_state=new_state,
        fed=fed is not None,
        outcomes=outcomes,
    )
    meter.follow(lambda: app.lease.read()[0], clock.now_ns)
    timeout_ms = settings.await_ms if delivery == "await" else settings.mirror_ms
    shown = {
        "ml_engine_url": engine,
        "timeout_ms": timeout_ms,
        "delivery": delivery,
        "feature_set": served.name,
        "target": target,
    }
    driver = (
        None if fed is None else _drive(workspace, fed, app, new_state, clock, registry, grid, grid_ns or NS_PER_MINUTE)
    )
    return ExecutorApp(app, registry, shown, decision_log, driver)


def _drive(
    workspace: Path,
    fed: Feed,
    app: Executor,
    new_state: Callable[[], State] | None,
    clock: Clock,
    registry: Registry,
    grid: str | None,
    rows_ns: int,
) -> FeedDriver:
    from probatum.adapters.recorder import TickLog
    from probatum.cli.train import parse_grid
    from probatum.core.clock import NS_PER_MINUTE
    from probatum.services.executor.feed import DriveSettings, FeedDriver

    if new_state is None:
        raise ParameterError("tick size", "given with --tick-size, for this feature set counts in ticks", None)
    settings = DriveSettings(grid_ns=parse_grid(grid) or min(rows_ns, NS_PER_MINUTE), rows_ns=rows_ns)
    log = TickLog(workspace / "recorded", fed.name, fed.provenance, clock)
    return FeedDriver(
        fed, app, new_state, clock=clock, registry=registry, tell=finding_teller(log.folder), log=log, settings=settings
    )


def _served(
    workspace: Path, model: str | None, artifact: Path | None
) -> tuple[FeatureSet, str, int | None, str] | None:
    """Return feature set, target, grid and digest of the model that was named, if one was."""
    from probatum.cli.engine import file_source, workspace_source
    from probatum.models.artifact import parse_artifact, served_set

    if model is None and artifact is None:
        return None
    load = file_source(artifact, model or "") if artifact else workspace_source(workspace)
    digest, data = load(model or "")
    place = f"artifact {digest[:12]}"
    found = parse_artifact(data, expected_digest=digest, place=place)
    return served_set(found.features, place), found.target, found.grid_ns, digest
