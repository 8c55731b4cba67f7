"""Plan, rehearse, run and stop canaries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import F, output_option, print_json, print_table, progress, workspace_option
from probatum.cli.live import LIVE
from probatum.cli.scale import engine_options, mapper_of
from probatum.core.errors import BlockedError, InconclusiveError

if TYPE_CHECKING:
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.ports import Record
    from probatum.pipeline.replay import Recording
    from probatum.pipeline.rollout import Rollout
    from probatum.rollout.plan import Plan, Policy


@click.group()
def canary() -> None:
    """Take a model from shadow to full share in steps that are proven while they are watched.

    \b
    Examples:
      probatum canary plan robust
      probatum canary preflight robust && probatum canary dry-run robust && probatum canary start
      probatum canary status -w
    """


def _plan_options(command: F) -> F:
    options: tuple[Callable[[F], F], ...] = (
        click.argument("model"),
        click.option("--policy", default="default", show_default=True, help="A shipped policy, or a TOML file."),
        click.option("--rate", type=float, help="Decisions per second [those of the recorded data]."),
        click.option("--units", type=int, help="Sticky units: plans the exposure after promotion instead of a canary."),
        workspace_option,
        output_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@canary.command("what-if")
@click.argument("model")
@click.argument("symbols", nargs=-1)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=["default"],
    help="A shipped policy, or a TOML file; several compare.",
)
@engine_options
@workspace_option
@output_option
def what_if(
    model: str,
    symbols: tuple[str, ...],
    policies: tuple[str, ...],
    engine: str,
    scheduler: str | None,
    workers: int | None,
    workspace: Path,
    output: str,
) -> None:
    """Say how a canary of MODEL would have ended on each recorded day of SYMBOLS that it was not trained on.

    SYMBOLS are those of the model when left out. Latencies are those of the newest smoke test. Nothing is recorded.

    \b
    Examples:
      probatum canary what-if robust
      probatum canary what-if robust BTCUSDT ETHUSDT --policy default --policy seed-v1.8 --engine dask --workers 2
    """
    import msgspec

    from probatum.cli.workspace import Workspace
    from probatum.pipeline.whatif import cases, replay_each

    space = Workspace(workspace)
    plans = [plan_for(space, model, read_policy(name), None, None) for name in dict.fromkeys(policies)]
    days = cases(space, plans, symbols)
    with progress() as bars, mapper_of(engine, scheduler, workers) as mapper:
        found = list(replay_each(space, days, mapper, bars))
    if output == "json":
        print_json(msgspec.to_builtins(found))
        return
    rows = [
        (e.policy, e.symbol, e.start, e.stage, f"{e.passed} of {e.phases}", f"{e.decisions:,}", e.reason) for e in found
    ]
    print_table("", ("policy", "symbol", "day from", "ends", "phases passed", "decisions", "reason"), rows)


@canary.command()
@_plan_options
def plan(model: str, policy: str, rate: float | None, units: int | None, workspace: Path, output: str) -> None:
    """Say what a rollout will need, before it starts: samples and time for each phase, and what cannot be kept.

    \b
    Examples:
      probatum canary plan robust
      probatum canary plan robust --policy seed-v1.8 --rate 0.0167
      probatum canary plan champion --units 500
    """
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.replay import TIMEOUT_NS
    from probatum.rollout.lint import Surroundings, lint_plan
    from probatum.rollout.plan import describe, forecast, planned_s

    made = plan_for(Workspace(workspace), model, read_policy(policy), rate, units)
    findings = lint_plan(made, Surroundings(timeout_ms=TIMEOUT_NS / 1e6))
    if output == "json":
        print_json({**describe(made), "findings": [f"{f.place}: {f.problem}" for f in findings]})
        return
    rows = [
        (f"{p.share_percent} %", f"{p.samples_needed:,}", _time(p.planned_s), _time(p.max_s)) for p in forecast(made)
    ]
    title = (
        f"{made.name}, policy {made.policy.name}, {made.rate_per_s:.3g} decisions/s: {_time(planned_s(made))} in all"
    )
    print_table(title, ["share", "samples needed", "planned", "holds after"], rows)
    for item in findings:
        click.echo(f"{item.severity}: {item.place}: {item.problem}. Would mend it: {item.mend}")


@canary.command()
@_plan_options
def preflight(model: str, policy: str, rate: float | None, units: int | None, workspace: Path, output: str) -> None:
    """Open a rollout and check gate, engine, drift, data and plan before it may start. Writes canary_preflight.json.

    \b
    Examples:
      probatum canary preflight robust
      probatum canary preflight robust --policy my-policy.toml
    """
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.canary import preflight as check

    space = Workspace(workspace)
    made = plan_for(space, model, read_policy(policy), rate, units)
    rollout, now_ns = opened(space, made, space.clock.now_ns()), space.clock.now_ns()
    dataset = _dataset(space, made.model)
    newest_ns = int(dataset.frames[dataset.spine]["ts_event"][-1])
    record = check(rollout, now_ns=now_ns, newest_ns=newest_ns, provenance=dataset.provenance)
    export_evidence(space)
    end(record, output)


@canary.command("dry-run")
@_plan_options
def dry_run(model: str, policy: str, rate: float | None, units: int | None, workspace: Path, output: str) -> None:
    """Run the whole plan over the newest recorded decisions under a virtual clock. Writes canary_dryrun_observe.json.

    Latencies are those of the newest smoke test; nothing is invented. Before a live start it must follow a preflight.

    \b
    Examples:
      probatum canary dry-run robust
      probatum canary dry-run robust --policy seed-v1.8 -o json
    """
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.canary import dry_run as rehearse

    space = Workspace(workspace)
    made = plan_for(space, model, read_policy(policy), rate, units)
    rollout = opened(space, made, space.clock.now_ns())
    with progress() as bars:
        bars.step("dry-run", 0, 1)
        record = rehearse(rollout, newest_recording(space, made), now_ns=space.clock.now_ns())
        bars.step("dry-run", 1, 1)
    export_evidence(space)
    end(record, output)


for _command in LIVE:
    canary.add_command(_command)


def read_policy(name: str) -> Policy:
    """Return a shipped policy, or the one in a TOML file."""
    from probatum.cli.evidence import read_text_file
    from probatum.rollout.policy import parse_policy, shipped_policy

    path = Path(name)
    return parse_policy(read_text_file(path), place=name) if path.suffix == ".toml" else shipped_policy(name)


def plan_for(space: Workspace, model: str, policy: Policy, rate: float | None, units: int | None) -> Plan:
    """Return the plan of a model by alias, name or digest."""
    from probatum.pipeline.canary import make_plan, rate_of
    from probatum.pipeline.registry import resolve

    digest = resolve(space.ledger.records(), model)
    rate_per_s = rate_of(_dataset(space, digest)) if rate is None else rate
    return make_plan(space, digest, policy, rate_per_s=rate_per_s, units=units)


def opened(space: Workspace, plan: Plan, now_ns: int) -> Rollout:
    """Return the plan's rollout, opened where it is not; BlockedError where another plan of that name is under way."""
    from probatum.pipeline.rollout import Rollout
    from probatum.rollout.machine import TERMINAL

    rollout = Rollout(space.ledger, space, plan.name, controls=True)
    if rollout.head is None or rollout.state.stage in TERMINAL:
        rollout.open(plan, now_ns)
    elif rollout.plan.digest != plan.digest:
        raise BlockedError(f"{plan.name} is {rollout.state.stage.value} with another plan: abort it first")
    return rollout


def newest_recording(space: Workspace, plan: Plan, *, day: bool = True, since_ns: int = 0) -> Recording:
    """Return the newest decisions that the model was not trained on: on ticks the last day, on bars all since a time."""
    from probatum.core.clock import NS_PER_DAY
    from probatum.pipeline.canary import record_of, window_of

    dataset = _dataset(space, plan.model)
    start, last = window_of(space, plan.model, dataset)
    start = max(start, since_ns)
    if dataset.quotes is not None and day:
        start = max(start, last - NS_PER_DAY)
    return record_of(space, plan.model, dataset, start, last)


def end(record: Record, output: str) -> None:
    """Print a judging record and exit as its verdict says."""
    found = record.body["figures"]
    if output == "json":
        print_json(found)
    else:
        rows = [(c["name"], c["verdict"], c["value"], c["bound"], c["reason"], c["settle"]) for c in found["checks"]]
        title = f"{record.kind} of {record.subject}, {record.provenance.upper()}: {found['verdict']}"
        print_table(title, ["check", "verdict", "value", "bound", "reason", "would settle it"], rows)
    if found["verdict"] == "INCONCLUSIVE":
        raise InconclusiveError(f"{record.kind}: too little was seen to decide")
    if found["verdict"] != "PASS":
        raise BlockedError(f"{record.kind}: the verdict is {found['verdict']}")


def _dataset(space: Workspace, model: str) -> Any:
    from probatum.pipeline.registry import load_artifact

    return space.datasets.load(load_artifact(space, model).data.symbols[0])


def _time(seconds: int) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"
