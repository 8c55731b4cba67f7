"""Build, list and check feature sets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import output_option, print_json, print_table, progress, workspace_option
from probatum.cli.scale import engine_options, mapper_of
from probatum.core.errors import ParameterError
from probatum.features.sets import FEATURE_SETS, get_feature_set, level_warnings

if TYPE_CHECKING:
    from probatum.features.fold import FeatureFrame
    from probatum.features.sets import FeatureSet
    from probatum.market.dataset import Dataset
    from probatum.market.events import Events

_SET = click.option("--set", "set_name", required=True, help="Feature set (probatum features ls).")
_GRID = click.option("--grid", help="When to decide on ticks, e.g. 1s; bars need none.")


@click.group()
def features() -> None:
    """Build, list and check feature sets.

    \b
    Examples:
      probatum features ls
      probatum features build BTCUSDT --set robust --out robust.parquet
      probatum features check BAC --set book --grid 1s
    """


@features.command("ls")
@output_option
def ls(output: str) -> None:
    """List the feature sets: columns, what they need of the data, warm-up and fingerprint.

    \b
    Examples:
      probatum features ls
      probatum features ls -o json
    """
    if output == "json":
        print_json([_described(item) for item in FEATURE_SETS.values()])
        return
    for item in FEATURE_SETS.values():
        needs = f", needs {', '.join(item.requires)}" if item.requires else ""
        title = f"{item.name}  ready after {item.required_minutes} min{needs}  {item.fingerprint[:12]}"
        flags = [" ".join(["level"] * f.level + ["derived"] * f.derived) for f in item.features]
        rows = [(f.name, f.definition, ", ".join(f.needs), flag) for f, flag in zip(item.features, flags, strict=True)]
        print_table(title, ("column", "definition", "needs", ""), rows)


@features.command()
@click.argument("symbols", nargs=-1, required=True)
@_SET
@_GRID
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the rows to this file.parquet, or to SYMBOL.parquet in this folder.",
)
@engine_options
@workspace_option
@output_option
def build(
    symbols: tuple[str, ...],
    set_name: str,
    grid: str | None,
    out: Path | None,
    engine: str,
    scheduler: str | None,
    workers: int | None,
    workspace: Path,
    output: str,
) -> None:
    """Build one set over stored datasets, each as the variant that its data support.

    \b
    Examples:
      probatum features build BTCUSDT --set robust
      probatum features build BAC --set book --grid 1s --out book.parquet
      probatum features build BTCUSDT ETHUSDT --set robust --out features --engine dask --workers 2
    """
    if out is not None and out.suffix == ".parquet" and len(symbols) > 1:
        raise ParameterError("out", "a folder, where there are several symbols", str(out))
    target = None if out is None else out.absolute()  # workers have a folder of their own
    built = partial(_built, workspace.absolute(), set_name, grid, target)
    results, warnings = [], dict[str, None]()
    with progress() as bars, mapper_of(engine, scheduler, workers) as mapper:
        for done, (result, warned) in enumerate(mapper.map(built, symbols), 1):
            bars.step(f"features {set_name}", done, len(symbols))
            results.append(result)
            warnings |= dict.fromkeys(warned)
    if output == "json":
        print_json(results if len(symbols) > 1 else results[0])
    else:
        for result in results:
            rows = [(name, result[name]) for name in ("set", "fingerprint", "events", "rows", "ready")]
            print_table(f"features of {result['symbol']}", ("", ""), [*rows, ("columns", ", ".join(result["columns"]))])
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _built(
    workspace: Path, set_name: str, grid: str | None, out: Path | None, symbol: str
) -> tuple[dict[str, Any], list[str]]:
    """Build one symbol's features, write them where asked, and return what they are and what to be warned of."""
    from probatum.features.fold import fold

    feature_set, events, dataset = _loaded(workspace, symbol, set_name, grid)
    frame = fold(feature_set, events, tick_size=dataset.tick_size)
    if out is not None:
        _write(frame, out if out.suffix == ".parquet" else out / f"{symbol}.parquet")
    ready = int(frame.ready.sum())
    result = {**_described(feature_set), "symbol": symbol, "events": len(events), "rows": len(frame), "ready": ready}
    return result, level_warnings(feature_set)


@features.command()
@click.argument("symbol")
@_SET
@_GRID
@workspace_option
@output_option
def check(symbol: str, set_name: str, grid: str | None, workspace: Path, output: str) -> None:
    """Prove on a stored dataset that online equals batch, compiled equals plain, and nothing looks ahead.

    All compare bit by bit. Exits 1 on any difference, and where no row is ready, for then nothing was proven.

    \b
    Examples:
      probatum features check BTCUSDT --set v1.8.1
      probatum features check BAC --set book --grid 1s
    """
    from probatum.features.check import check_features

    feature_set, events, dataset = _loaded(workspace, symbol, set_name, grid)
    checks = check_features(feature_set, events, dataset.tick_size)
    words = {True: "PASS", False: "FAIL"}
    if output == "json":
        print_json([{"check": c.name, "verdict": words[c.ok], "rows": c.rows, "detail": c.detail} for c in checks])
    else:
        rows = [(c.name, words[c.ok], f"{c.rows:,}", c.detail) for c in checks]
        print_table(f"{set_name} on {symbol}", ("check", "verdict", "rows", "detail"), rows)
    click.get_current_context().exit(0 if all(c.ok for c in checks) else 1)


def _loaded(workspace: Path, symbol: str, set_name: str, grid: str | None) -> tuple[FeatureSet, Events, Dataset]:
    from probatum.cli.train import parse_grid
    from probatum.cli.workspace import Workspace
    from probatum.features.events import available, dataset_events

    get_feature_set(set_name)  # before any file is read
    dataset = Workspace(workspace).datasets.load(symbol)
    feature_set = get_feature_set(set_name, available(dataset))
    return feature_set, dataset_events(dataset, grid_ns=parse_grid(grid)), dataset


def _described(feature_set: FeatureSet) -> dict[str, object]:
    return {
        "set": feature_set.name,
        "version": feature_set.version,
        "columns": list(feature_set.names),
        "needs": sorted(feature_set.needs),
        "requires": list(feature_set.requires),
        "level": [f.name for f in feature_set.features if f.level],
        "derived": [f.name for f in feature_set.features if f.derived],
        "required_minutes": feature_set.required_minutes,
        "memory_minutes": feature_set.memory_minutes,
        "fingerprint": feature_set.fingerprint,
    }


def _write(frame: FeatureFrame, out: Path) -> None:
    import io

    import polars as pl

    from probatum.adapters.atomic import write_atomic

    columns = {f"f_{name}": frame.values[:, j] for j, name in enumerate(frame.feature_set.names)}
    buffer = io.BytesIO()
    pl.DataFrame({"ts": frame.ts, "ready": frame.ready, "mid": frame.mid, **columns}).write_parquet(buffer)
    write_atomic(out, buffer.getvalue())
