"""Look back at logged decisions: were their features right, and was what the model said?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from probatum.cli.common import output_option, print_json, print_table, workspace_option

F = TypeVar("F", bound=Callable[..., Any])
EXIT_CODES = {"PASS": 0, "FAIL": 1, "ERROR": 1, "INCONCLUSIVE": 3}
_END_NS = (1 << 63) - 1


def _log_options(command: F) -> F:
    for option in (
        click.option("--dataset", help="Stored market data, where they bear another name than the logged symbol."),
        click.option("--until", help="Decisions before this time."),
        click.option("--since", help="Decisions from this time on, e.g. 2024-01-31T00:00:00Z.  [default: all]"),
        click.option(
            "--log",
            "log",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of the decision log.  [default: WORKSPACE/decisions]",
        ),
    ):
        command = option(command)
    return command


def _span(since: str | None, until: str | None) -> tuple[int, int]:
    from probatum.core.clock import parse_utc
    from probatum.core.errors import ParameterError

    start_ns, end_ns = 0 if since is None else parse_utc(since), _END_NS if until is None else parse_utc(until)
    if start_ns >= end_ns:
        raise ParameterError("until", f"after since ({since})", until)
    return start_ns, end_ns


@click.command()
@click.argument("model")
@click.option("--champion", help="Compare with this model too.  [default: the alias champion, where it is another]")
@_log_options
@workspace_option
@output_option
def outcomes(
    model: str,
    champion: str | None,
    log: Path | None,
    since: str | None,
    until: str | None,
    dataset: str | None,
    workspace: Path,
    output: str,
) -> None:
    """Join the logged decisions of MODEL with what then happened and judge them; the record is in the ledger.

    Exits 0 when it is proven that the model loses less than the abort bound allows where it differs, 1 when more, 3 when
    there is too little.

    \b
    Examples:
      probatum outcomes challenger
      probatum outcomes challenger --since 2024-01-31T00:00:00Z -o json
      probatum outcomes robust-large_move-60s-logistic --dataset BTCUSDT
    """
    from probatum.adapters.decisions import ParquetDecisions
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.outcomes import judge_outcomes
    from probatum.pipeline.registry import CHAMPION, aliases, resolve

    place = Workspace(workspace)
    records, (start_ns, end_ns) = list(place.ledger.records()), _span(since, until)
    record = judge_outcomes(
        place.ledger,
        place,
        ParquetDecisions(log) if log else place.decisions,
        resolve(records, model),
        start_ns=start_ns,
        end_ns=end_ns,
        champion=resolve(records, champion) if champion else aliases(records).get(CHAMPION),
        dataset=dataset,
    )
    export_evidence(place)
    figures = record.body["figures"]
    print_json(figures) if output == "json" else _print_outcomes(record.subject, record.provenance, figures)
    click.get_current_context().exit(EXIT_CODES[figures["verdict"]])


@click.command()
@click.option("--session", help="Only decisions of this session, as their callers named it.")
@click.option("--symbol", help="Only decisions of this symbol.")
@click.option("--grid", default="1s", show_default=True, help="How far apart timers are, where the data are quotes.")
@_log_options
@workspace_option
@output_option
def skew(
    session: str | None,
    symbol: str | None,
    grid: str,
    log: Path | None,
    since: str | None,
    until: str | None,
    dataset: str | None,
    workspace: Path,
    output: str,
) -> None:
    """Compute every logged feature again from the recorded raw data, bit by bit; the record is in the ledger.

    Exits 0 when all that could be checked are equal, 1 at the first that is not (it is named, with both values), 3 when too
    few could be checked.

    \b
    Examples:
      probatum skew
      probatum skew --symbol BTCUSDT --since 2024-01-31T00:00:00Z
      probatum skew --session 2013-10-07 --symbol X --dataset BAC --grid 1s
    """
    from probatum.adapters.decisions import ParquetDecisions
    from probatum.cli.evidence import export_evidence
    from probatum.cli.train import parse_grid
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.skew import prove_skew

    place = Workspace(workspace)
    frame = (ParquetDecisions(log) if log else place.decisions).read(*_span(since, until))
    for column, wanted in (("session", session), ("symbol", symbol)):
        if wanted is not None:
            frame = frame.filter(frame[column] == wanted)
    record = prove_skew(place.ledger, place, frame, dataset=dataset, grid_ns=parse_grid(grid) or 0)
    export_evidence(place)
    figures = record.body["figures"]
    print_json(figures) if output == "json" else _print_skew(record.subject, record.provenance, figures)
    click.get_current_context().exit(EXIT_CODES[figures["verdict"]])


def _print_outcomes(subject: str, provenance: str, figures: dict[str, Any]) -> None:
    print_table(
        f"{subject}: {figures['verdict']}  ({figures['joined']:,} of {figures['logged']:,} decisions joined, "
        f"{provenance.upper()} data)",
        ("", "AUC", "lower", "upper", "Brier", "calibration error"),
        [
            (name, *(_shown(figures[name][key]) for key in ("auc", "lower", "upper", "brier", "ece")))
            for name in ("model", "baseline", "champion")
            if figures[name]
        ],
    )
    columns = ("where they differ, against", "outcomes apart", "lost", "rate", "upper", "bound", "needed", "missing")
    keys = ("n", "losses", "rate", "upper", "bound", "n_needed", "missing")
    rows = [(name, *(_shown(found[key]) for key in keys)) for name, found in figures["losses"].items()]
    print_table("", columns, rows)
    left = ("unheard", "other_scores", "no_data", "off_grid", "unlabelled")
    click.echo("not joined: " + ", ".join(f"{name} {figures[name]:,}" for name in left))
    _print_open(figures)


def _print_skew(subject: str, provenance: str, figures: dict[str, Any]) -> None:
    print_table(
        f"{subject}: {figures['verdict']}  ({provenance.upper()} data, {figures['start']} to {figures['end']})",
        ("logged rows", "checked", "equal", "unequal", "not checked"),
        [tuple(f"{figures[key]:,}" for key in ("rows", "ready", "equal", "unequal", "unchecked"))],
    )
    if reasons := [f"{name} {n:,}" for name, n in figures["reasons"].items() if n]:
        click.echo("not checked: " + ", ".join(reasons))
    if first := figures["first_mismatch"]:
        click.echo(
            "first mismatch: {symbol} at {time} (decision {seq}, made {made}), {feature}: "
            "logged {logged}, computed {computed}".format(**first)
        )
    _print_open(figures)


def _print_open(figures: dict[str, Any]) -> None:
    for check in figures["checks"]:
        if check["enforced"] and check["verdict"] != "PASS":
            click.echo(f"{check['name']}: {check['reason']}; would settle it: {check['settle']}")


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
