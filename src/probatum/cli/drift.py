"""Compare the live distribution with the artifact's frozen bins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from probatum.cli.common import output_option, print_json, print_table, print_written, progress, workspace_option
from probatum.cli.scale import engine_options, mapper_of
from probatum.cli.workspace import Workspace
from probatum.core.errors import UnknownNameError

EXIT_CODES = {"PASS": 0, "FAIL": 1, "ERROR": 1, "INCONCLUSIVE": 3}
_COLUMNS = ("column", "PSI", "bound", "unchanged", "critical", "p", "verdict", "enforced")


@click.group()
def drift() -> None:
    """Compare the live distribution with the artifact's frozen bins.

    \b
    Examples:
      probatum drift snapshot champion
      probatum drift sweep btc eth sol
      probatum drift report champion
    """


_WINDOW = click.option(
    "--window",
    default="7d",
    show_default=True,
    help='The newest span of data, such as 7d or 12h; or "test", the test part of the data the model was trained on.',
)


@drift.command()
@click.argument("model")
@click.argument("symbols", nargs=-1)
@_WINDOW
@workspace_option
@output_option
def snapshot(model: str, symbols: tuple[str, ...], window: str, workspace: Path, output: str) -> None:
    """Judge the newest rows of SYMBOLS (those of MODEL when left out) and append the snapshot to the ledger.

    Exits 0 at PASS, 1 at FAIL, 3 when inconclusive. Drift of a model that bears an alias opens a retrain proposal.

    \b
    Examples:
      probatum drift snapshot champion
      probatum drift snapshot robust-large_move-60s-logistic BTCUSDT --window test
    """
    from probatum.cli.evidence import export_evidence
    from probatum.pipeline.drift import TEST
    from probatum.pipeline.drift import snapshot as take_snapshot
    from probatum.pipeline.proposals import propose_on_drift
    from probatum.pipeline.registry import resolve

    place = Workspace(workspace)
    digest = resolve(place.ledger.records(), model)
    with progress() as bars:
        record = take_snapshot(place.ledger, place, digest, symbols, window=window, progress=bars)
        proposed = None if window == TEST else propose_on_drift(place.ledger, place, record, place.clock.now_ns())
    export_evidence(place)
    if proposed is not None:
        click.echo(f"retrain proposal {proposed.hash[:12]} stands: probatum retrain run", err=True)
    figures = record.body["figures"]
    if output == "json":
        print_json(figures)
    else:
        span = f"{figures['window']['start']} to {figures['window']['end']}"
        heading = f"{record.subject}: {figures['verdict']}  ({figures['rows']:,} rows, {span}, {record.provenance.upper()} data)"
        _print_checks(heading, figures)
    click.get_current_context().exit(EXIT_CODES[figures["verdict"]])


@drift.command()
@click.argument("models", nargs=-1, required=True)
@_WINDOW
@engine_options
@workspace_option
@output_option
def sweep(
    models: tuple[str, ...],
    window: str,
    engine: str,
    scheduler: str | None,
    workers: int | None,
    workspace: Path,
    output: str,
) -> None:
    """Judge MODELS, each over the symbols it was trained on, and append a snapshot of each. Exits as the worst verdict says.

    \b
    Examples:
      probatum drift sweep robust-BTCUSDT robust-ETHUSDT
      probatum drift sweep robust-BTCUSDT robust-ETHUSDT --engine dask --workers 2
    """
    from probatum.cli.evidence import export_evidence
    from probatum.core.verdict import Verdict
    from probatum.pipeline.drift import snapshot_each
    from probatum.pipeline.registry import resolve

    place = Workspace(workspace)
    records = list(place.ledger.records())
    digests = [resolve(records, model) for model in models]
    with progress() as bars, mapper_of(engine, scheduler, workers) as mapper:
        found = list(snapshot_each(place.ledger, place, digests, window=window, mapper=mapper, progress=bars))
    export_evidence(place)
    names = ("verdict", "rows", "overall_psi", "max_psi")
    rows = [(record.subject, *(record.body["figures"][name] for name in names)) for record in found]
    if output == "json":
        print_json([dict(zip(("model", *names), row, strict=True)) for row in rows])
    else:
        shown = [(*row[:3], *(_shown(value) for value in row[3:])) for row in rows]
        print_table("", ("model", "verdict", "rows", "PSI", "worst PSI"), shown)
    click.get_current_context().exit(EXIT_CODES[Verdict.worst(Verdict(row[1]) for row in rows)])


@drift.command()
@click.argument("model")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; in the workspace when left out."
)
@workspace_option
@output_option
def report(model: str, out: Path | None, workspace: Path, output: str) -> None:
    """Write the newest snapshot of MODEL as a self-contained HTML page.

    \b
    Examples:
      probatum drift report champion
      probatum drift report robust-large_move-60s-logistic --out drift.html
    """
    from probatum.adapters.atomic import write_atomic
    from probatum.pipeline.drift import KIND, drift_page
    from probatum.pipeline.registry import resolve

    place = Workspace(workspace)
    digest = resolve(place.ledger.records(), model)
    found = [record for record in place.ledger.records(kind=KIND) if record.body["inputs"]["artifact"] == digest]
    if not found:
        taken = {record.subject for record in place.ledger.records(kind=KIND)}
        raise UnknownNameError("drift snapshot of", model, taken)
    path = out or workspace / "reports" / f"drift-{digest[:12]}.html"
    write_atomic(path, drift_page(found[-1]).encode())
    print_written(path, output)


def _print_checks(heading: str, figures: dict[str, Any]) -> None:
    score = [figures["score"]["check"]] if figures["score"] else []
    checks = [figures["overall"], *(feature["check"] for feature in figures["features"]), *score]
    rows = [
        (
            c["name"],
            *(_shown(c[key]) for key in ("psi", "bound", "expected", "critical", "p_value")),
            c["verdict"],
            "yes" if c["enforced"] else "shown only",
        )
        for c in checks
    ]
    print_table(heading, _COLUMNS, rows)
    for c in checks:
        if c["enforced"] and c["verdict"] != "PASS":
            click.echo(f"{c['name']}: {c['reason']}; would settle it: {c['settle']}")


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
