"""Publish models in an MLflow registry, and fetch them from there."""

from __future__ import annotations

from pathlib import Path

import click

from probatum.cli.common import output_option, print_json, workspace_option

_URL = click.option("--mlflow", "url", required=True, help="URL of the MLflow server (extra mlflow).")


@click.command()
@click.argument("model")
@_URL
@click.option("--as", "name", default="", help="Name of the registered model.  [default: that of the artifact]")
@workspace_option
@output_option
def publish(model: str, url: str, name: str, workspace: Path, output: str) -> None:
    """Publish MODEL (a name, alias or digest) as a version of a registered model; the aliases there follow those here.

    \b
    Examples:
      probatum models publish champion --mlflow http://127.0.0.1:5000 --as btc
      probatum models publish robust-large_move-60s-logistic --mlflow http://127.0.0.1:5000
    """
    import msgspec

    from probatum.adapters.mlflow import MlflowRegistry
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.registry import aliases, resolve

    space = Workspace(workspace)
    records = list(space.ledger.records())
    data = space.blobs.get("artifact", resolve(records, model))
    done = MlflowRegistry(url).publish(data, aliases(records), name)
    if output == "json":
        print_json(msgspec.to_builtins(done))
        return
    shown = "".join(f", {alias} is {version}" for alias, version in done.aliases.items())
    click.echo(f"{done.name}/{done.version} is {done.digest[:12]}{shown}")


@click.command()
@click.argument("reference", metavar="NAME@ALIAS")
@_URL
@workspace_option
@output_option
def fetch(reference: str, url: str, workspace: Path, output: str) -> None:
    """Fetch NAME@ALIAS (or NAME/VERSION) into the workspace, verified; its digest is what `engine --model` takes.

    \b
    Examples:
      probatum models fetch btc@champion --mlflow http://127.0.0.1:5000
      probatum models fetch btc/3 --mlflow http://127.0.0.1:5000 -o json
    """
    from probatum.adapters.mlflow import MlflowRegistry
    from probatum.cli.workspace import Workspace

    digest, data = MlflowRegistry(url).fetch(reference)
    Workspace(workspace).blobs.put("artifact", data)
    print_json({"model": reference, "digest": digest}) if output == "json" else click.echo(digest)
