"""Prove running services with a thousand requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import FiniteRange, output_option, print_json, print_table, progress, workspace_option
from probatum.core.errors import BlockedError, InconclusiveError

if TYPE_CHECKING:
    from probatum.cli.workspace import Workspace
    from probatum.models.artifact import Artifact
    from probatum.pipeline.ports import Record


REQUESTS = 1_000


@click.command()
@click.option("--model", default="challenger", show_default=True, help="Alias, name or digest that is to be proven.")
@click.option("--engine", "url", default="http://127.0.0.1:4010", show_default=True, help="The engine that serves it.")
@click.option("--rate", type=FiniteRange(1, 20_000), default=500.0, show_default=True, help="Requests a second.")
@workspace_option
@output_option
def smoke(model: str, url: str, rate: float, workspace: Path, output: str) -> None:
    """Send 1,000 distinct recorded rows to an engine, open loop, and judge replies, latency and the engine's own count.

    Latency counts from the instant a request was due, so a stall shows in every request it delayed. Writes
    smoke_1k.json and metrics_baseline_<UTC>.txt. Exits 0, 1 or 3 by the verdict.

    \b
    Examples:
      probatum engine --model robust & probatum smoke --model robust
      probatum smoke --engine http://127.0.0.1:4011 --rate 1000 -o json
    """
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.gate import load_artifact
    from probatum.pipeline.registry import resolve

    space = Workspace(workspace)
    artifact = load_artifact(space, resolve(space.ledger.records(), model))
    with progress() as bars:
        record = run_smoke(space, artifact, url, rate, bars)
    export_evidence(space)
    _end(record, output)


@click.group()
def shadow() -> None:
    """Prove a challenger beside the baseline.

    \b
    Examples:
      probatum shadow smoke --model robust
    """


@shadow.command("smoke")
@click.option("--model", default="challenger", show_default=True, help="Alias, name or digest that is in the shadow.")
@click.option("--executor", "url", default="http://127.0.0.1:4001", show_default=True, help="The executor.")
@click.option("--rate", type=FiniteRange(1, 5_000), default=200.0, show_default=True, help="Decisions a second.")
@click.option(
    "--decisions", type=click.IntRange(1, 1_000_000), default=REQUESTS, show_default=True, help="How many decisions."
)
@workspace_option
@output_option
def shadow_smoke(model: str, url: str, rate: float, decisions: int, workspace: Path, output: str) -> None:
    """Replay the newest recorded events through an executor, with a decision at each, and judge its counts by outcome.

    The events are those of the dataset the model was trained on; provenance is theirs. Writes shadow_smoke_1k.json.

    \b
    Examples:
      probatum executor --model DIGEST & probatum shadow smoke --model DIGEST
      probatum shadow smoke --model robust --decisions 5000 --rate 1000
    """
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.gate import load_artifact
    from probatum.pipeline.registry import resolve

    space = Workspace(workspace)
    artifact = load_artifact(space, resolve(space.ledger.records(), model))
    with progress() as bars:
        (record,) = run_shadow(space, artifact, url, {"shadow_smoke_1k": decisions}, rate, bars)
    export_evidence(space)
    _end(record, output)


def run_smoke(space: Workspace, artifact: Artifact, url: str, rate_per_s: float, bars: Any) -> Record:
    """Smoke an engine with the newest rows that the gate judged, and append ``smoke_1k``."""
    from probatum.adapters.smoke import smoke_engine
    from probatum.pipeline.predictions import read_predictions
    from probatum.pipeline.smoke import record_smoke

    report = next(
        (r for r in space.ledger.records(kind="offline_report") if r.body["inputs"]["artifact"] == artifact.digest),
        None,
    )
    if report is None:
        raise BlockedError(f"{artifact.name} has no recorded rows to send: run `probatum gate {artifact.name}` first")
    rows = read_predictions(space.blobs.get("predictions", report.body["inputs"]["predictions"]), "predictions").values[
        -REQUESTS:
    ]
    run = smoke_engine(url, artifact, rows.tolist(), rate_per_s=rate_per_s, now_ns=space.clock.now_ns(), progress=bars)
    return record_smoke(run, report.provenance, space.ledger, space)


def run_shadow(
    space: Workspace, artifact: Artifact, url: str, parts: dict[str, int], rate_per_s: float, bars: Any
) -> list[Record]:
    """Replay the model's newest data through an executor; ``parts`` are (kind of record, decisions), the last one last."""
    import numpy as np

    from probatum.adapters.smoke import ShadowDriver
    from probatum.features.events import dataset_events
    from probatum.market.events import BAR, TIMER
    from probatum.pipeline.shadowing import record_shadow

    symbol = artifact.data.symbols[0]
    dataset = space.datasets.load(symbol)
    events = dataset_events(dataset, grid_ns=artifact.grid_ns)
    due = np.flatnonzero((events.kind == BAR) | (events.kind == TIMER)) + 1
    wanted = sum(parts.values())
    if len(due) <= wanted:
        raise BlockedError(f"{symbol} has {len(due):,} decisions, {wanted:,} and some to warm up are needed")
    driver = ShadowDriver(url, artifact, symbol, events)
    driver.warm_up(int(due[-wanted - 1]), bars)
    records, first = [], len(due) - wanted
    for kind, count in parts.items():
        ends = due[first : first + count].tolist()
        run = driver.decide(ends, rate_per_s=rate_per_s, now_ns=space.clock.now_ns(), progress=bars)
        records.append(record_shadow(kind, run, dataset.provenance, space.ledger, space))
        first += count
    return records


def _end(record: Record, output: str) -> None:
    found = record.body["figures"]
    if output == "json":
        print_json(found)
    else:
        shown = [
            (name, f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value:,}")
            for name, value in found.items()
            if isinstance(value, int | float)
        ]
        title = f"{record.subject}, {record.provenance.upper()}: {found['verdict']}"
        print_table(title, ["figure", "value"], shown)
        rows = [(c["name"], c["verdict"], c["reason"], c["settle"]) for c in found["checks"]]
        print_table("", ["check", "verdict", "reason", "would settle it"], rows)
    if found["verdict"] == "INCONCLUSIVE":
        raise InconclusiveError(f"{record.kind}: too little was seen to decide")
    if found["verdict"] != "PASS":
        raise BlockedError(f"{record.kind}: the verdict is {found['verdict']}")
