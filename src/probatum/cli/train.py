"""Train models, judge them, and move the aliases that say which one serves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import output_option, print_json, print_table, progress, workspace_option
from probatum.cli.mlflow import fetch, publish
from probatum.cli.scale import engine_options, mapper_of
from probatum.cli.workspace import Workspace
from probatum.core.clock import NS_PER_MINUTE, NS_PER_MS, NS_PER_S
from probatum.core.errors import ParameterError

if TYPE_CHECKING:
    from probatum.pipeline.ports import Record
    from probatum.pipeline.training import Trained

EXIT_CODES = {"PASS": 0, "FAIL": 1, "ERROR": 1, "INCONCLUSIVE": 3}
_UNITS = {"ms": NS_PER_MS, "s": NS_PER_S, "m": NS_PER_MINUTE}
_CHECK_COLUMNS = ("check", "value", "bound", "lower", "upper", "verdict", "enforced")


@click.command()
@click.argument("symbols", nargs=-1, required=True)
@click.option("--set", "set_name", default="robust", show_default=True, help="Feature set (probatum features ls).")
@click.option("--target", default="large_move@60s", show_default=True, help="direction@H, large_move@H or next_move.")
@click.option(
    "--model", default="logistic", show_default=True, help="fixed, logistic, lightgbm or a model of your own."
)
@click.option("--name", default="", help="Name of the artifact; made from set, target and model when left out.")
@click.option("--grid", help="When to decide on ticks, e.g. 1s; bars need none.")
@click.option(
    "--split-by",
    type=click.Choice(["rows", "session"]),
    default="rows",
    show_default=True,
    help="Cut 60/20/20 by rows, or by trading days.",
)
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the training.")
@click.option("--shuffle", is_flag=True, help="Refused, with the reason: rows of a market share their future.")
@click.option("--each", is_flag=True, help="Train one model of each symbol, named NAME-SYMBOL, instead of one of all.")
@engine_options
@workspace_option
@output_option
def train(
    symbols: tuple[str, ...],
    set_name: str,
    target: str,
    model: str,
    name: str,
    grid: str | None,
    split_by: Any,
    seed: int,
    shuffle: bool,
    each: bool,
    engine: str,
    scheduler: str | None,
    workers: int | None,
    workspace: Path,
    output: str,
) -> None:
    """Train a model on the newest data of SYMBOLS into a content-addressed artifact.

    \b
    Examples:
      probatum train BTCUSDT
      probatum train BTCUSDT ETHUSDT --set v1.8.1 --model lightgbm
      probatum train BAC --set book --target direction@10s:drop-unchanged --grid 1s --split-by session
      probatum train BTCUSDT ETHUSDT --each --engine dask --workers 2
    """
    from probatum.cli.evidence import export_evidence
    from probatum.pipeline.training import TrainingPlan, train_each
    from probatum.pipeline.training import train as train_model

    plan = TrainingPlan(
        symbols=symbols,
        set=set_name,
        target=target,
        model=model,
        name=name,
        grid_ns=parse_grid(grid),
        by=split_by,
        shuffle=shuffle,
        seed=seed,
    )
    if engine != "serial" and not each:
        raise ParameterError("engine", "serial without --each: one model is fitted in one process", engine)
    place = Workspace(workspace)
    with progress() as bars, mapper_of(engine, scheduler, workers) as mapper:
        if each:
            found = list(train_each(place.ledger, place, plan, mapper, bars))
        else:
            found = [train_model(place.ledger, place, plan, bars)]
    export_evidence(place)
    for trained in found:
        for warning in trained.warnings:
            click.echo(f"warning: {warning}", err=True)
    if output == "json":
        shown = [{"name": trained.artifact.name, **trained.record.body["figures"]} for trained in found]
        print_json(shown if each else shown[0])
        return
    for trained in found:
        _print_trained(trained, workspace)


def _print_trained(trained: Trained, workspace: Path) -> None:
    rows = [(key, _shown(value)) for key, value in trained.artifact.metrics.items()]
    click.echo(f"{trained.artifact.name}: {trained.digest}")
    print_table("", ["metric", "value"], rows)
    click.echo(f"judge it: probatum gate {trained.artifact.name} -w {workspace}")


@click.command()
@click.argument("model")
@click.option(
    "--champion",
    default="champion",
    show_default=True,
    help="Alias, name or digest to compare with, where it has the same target.",
)
@click.option(
    "--cost-bp", type=float, help="Cost of a change of position by one; half the spread where features hold it."
)
@workspace_option
@output_option
def gate(model: str, champion: str, cost_bp: float | None, workspace: Path, output: str) -> None:
    """Judge MODEL (a name, alias or digest) on rows it never saw. Exits 0 at PASS, 1 at FAIL, 3 when inconclusive.

    \b
    Examples:
      probatum gate robust-large_move-60s-logistic
      probatum gate 3f9a1c20 --cost-bp 1.5 -o json
    """
    from probatum.cli.evidence import export_evidence
    from probatum.pipeline.gate import run_gate
    from probatum.pipeline.registry import CHAMPION, aliases, resolve

    place = Workspace(workspace)
    records = list(place.ledger.records())
    rival = resolve(records, champion) if champion != CHAMPION else aliases(records).get(CHAMPION)
    with progress() as bars:
        record = run_gate(place.ledger, place, resolve(records, model), champion=rival, cost_bp=cost_bp, progress=bars)
    export_evidence(place)
    figures = record.body["figures"]
    print_json(figures) if output == "json" else _print_checks(record)
    click.get_current_context().exit(EXIT_CODES[figures["verdict"]])


@click.group()
def models() -> None:
    """List versions, move aliases, publish in MLflow and fetch from there.

    \b
    Examples:
      probatum models ls
      probatum models alias challenger robust-large_move-60s-logistic
      probatum models publish champion --mlflow http://127.0.0.1:5000 --as btc
    """


@models.command("ls")
@workspace_option
@output_option
def list_models(workspace: Path, output: str) -> None:
    """List every trained version, with its aliases and its newest gate verdict.

    \b
    Examples:
      probatum models ls
      probatum models ls -o json
    """
    from probatum.pipeline.registry import versions

    found = [
        {
            "name": version.name,
            "digest": version.digest,
            "aliases": list(version.aliases),
            "gate": version.verdict,
            "target": version.record.body["figures"]["target"],
            "provenance": version.record.provenance,
            "trained": version.record.ts,
        }
        for version in versions(Workspace(workspace).ledger.records())
    ]
    if output == "json":
        print_json(found)
        return
    rows = [
        (
            v["name"],
            v["digest"][:12],
            ", ".join(v["aliases"]),
            v["gate"] or "not judged",
            v["target"],
            v["provenance"].upper(),
            v["trained"],
        )
        for v in found
    ]
    print_table("", ["name", "digest", "aliases", "gate", "target", "data", "trained"], rows)


@models.command()
@click.argument("model")
@workspace_option
@output_option
def show(model: str, workspace: Path, output: str) -> None:
    """Show one version: what it was trained on, its features, parameters and metrics.

    \b
    Examples:
      probatum models show champion
      probatum models show 3f9a1c20 -o json
    """
    import msgspec

    from probatum.pipeline.registry import artifact_of

    place = Workspace(workspace)
    digest, artifact = artifact_of(place, place.ledger.records(), model)
    if output == "json":
        print_json({"digest": digest, **msgspec.to_builtins(artifact)})
        return
    data = artifact.data
    parts = ", ".join(f"{name} {artifact.split['rows'][name]:,}" for name in ("train", "validate", "test"))
    rows = [
        ("digest", digest),
        ("model", artifact.model.__struct_config__.tag),
        ("target", artifact.target),
        ("features", f"{artifact.features.set}: {', '.join(artifact.features.names)}"),
        (
            "data",
            f"{', '.join(data.symbols)}, {data.rows:,} rows, {data.start} to {data.end} ({data.provenance.upper()})",
        ),
        ("rows", f"{parts}; the test begins at {artifact.split['test_start']}"),
        *((key, _shown(value)) for key, value in artifact.metrics.items()),
        *((key, value) for key, value in artifact.versions.items()),
    ]
    print_table(artifact.name, ["field", "value"], rows)


@models.command()
@click.argument("alias")
@click.argument("model")
@workspace_option
@output_option
def alias(alias: str, model: str, workspace: Path, output: str) -> None:
    """Point ALIAS (champion, challenger or previous) at MODEL; the move is one record in the ledger.

    \b
    Examples:
      probatum models alias challenger robust-large_move-60s-logistic
    """
    from probatum.cli.evidence import export_evidence
    from probatum.pipeline.registry import move_alias, resolve

    place = Workspace(workspace)
    record = move_alias(place.ledger, place, alias, resolve(place.ledger.records(), model))
    export_evidence(place)
    if output == "json":
        print_json({**record.body["figures"], "record": record.seq})
        return
    for name, digest in record.body["figures"]["aliases"].items():
        click.echo(f"{name} is {digest[:12]} (record {record.seq})")


for _command in (publish, fetch):
    models.add_command(_command)


def parse_grid(text: str | None) -> int | None:
    """Read a grid such as 500ms, 1s or 1m as nanoseconds.

    >>> parse_grid("1s")
    1000000000
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,5})(ms|s|m)", text)
    if match is None:
        raise ParameterError("grid", "like 500ms, 1s or 1m", text)
    return int(match[1]) * _UNITS[match[2]]


def _print_checks(record: Record) -> None:
    figures = record.body["figures"]
    rows = [
        (
            c["name"],
            *(_shown(c[key]) for key in ("value", "bound", "lower", "upper")),
            c["verdict"],
            "yes" if c["enforced"] else "shown only",
        )
        for c in figures["checks"]
    ]
    print_table(f"{record.subject}: {figures['verdict']}  ({record.provenance.upper()} data)", _CHECK_COLUMNS, rows)
    for c in figures["checks"]:
        if c["enforced"] and c["verdict"] != "PASS":
            click.echo(f"{c['name']}: {c['reason']}; would settle it: {c['settle']}")


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
