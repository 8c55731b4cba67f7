"""Propose, attempt and replay retrainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import output_option, print_json, print_table, progress, workspace_option
from probatum.cli.data import FORMATS
from probatum.cli.train import EXIT_CODES
from probatum.cli.workspace import Workspace
from probatum.core.errors import ParameterError

if TYPE_CHECKING:
    from probatum.pipeline.ports import Record
    from probatum.pipeline.retrain import Outcome
    from probatum.pipeline.retrain_replay import Day

_CANDIDATE = click.option(
    "--candidate",
    "candidates",
    multiple=True,
    metavar="SET[:MODEL]",
    help="Feature set and model to compare, several times; MODEL may be your own [v1.8.1 and robust, logistic].",
)
_TARGET = click.option("--target", default="large_move@60s", show_default=True, help="What the candidates foretell.")


@click.group()
def retrain() -> None:
    """Propose, attempt and replay retrainings. The champion stays until a successor is promoted.

    \b
    Examples:
      probatum retrain propose champion --reason "a new venue"
      probatum retrain run
      probatum retrain replay --data BTCUSDT-1m.csv --format binance-klines --history 14d
    """


@retrain.command()
@click.argument("model")
@click.option("--reason", required=True, help="Why, in words that are kept.")
@workspace_option
@output_option
def propose(model: str, reason: str, workspace: Path, output: str) -> None:
    """Ask for a successor of MODEL. While a proposal stands there is no second; drift and alerts open theirs by themselves.

    \b
    Examples:
      probatum retrain propose champion --reason "fees have changed"
    """
    from probatum.cli.evidence import export_evidence
    from probatum.pipeline.proposals import ask, describe, proposals
    from probatum.pipeline.registry import resolve

    space = Workspace(workspace)
    digest = resolve(space.ledger.records(), model)
    record = ask(space.ledger, space, model=digest, reason=reason, now_ns=space.clock.now_ns())
    export_evidence(space)
    found = next(item for item in proposals(space.ledger.records()) if item.record.hash == record.hash)
    if output == "json":
        print_json(describe(found))
        return
    click.echo(f"proposal {record.hash[:12]} is {found.state}: {record.body['figures']['reason']}")


@retrain.command("ls")
@workspace_option
@output_option
def list_proposals(workspace: Path, output: str) -> None:
    """List proposals, what asked for them, and what became of them.

    \b
    Examples:
      probatum retrain ls
      probatum retrain ls -o json
    """
    from probatum.pipeline.proposals import describe, proposals
    from probatum.rollout.criteria import RETRAIN_ATTEMPTS_MAX

    found = [describe(item) for item in proposals(Workspace(workspace).ledger.records())]
    if output == "json":
        print_json(found)
        return
    rows = [
        (p["proposal"][:12], p["model"], p["state"], f"{len(p['attempts'])} of {RETRAIN_ATTEMPTS_MAX}", p["reason"])
        for p in found
    ]
    print_table("", ["proposal", "replaces", "state", "attempts", "because"], rows)


@retrain.command("run")
@click.argument("proposal", required=False, default="")
@_CANDIDATE
@_TARGET
@workspace_option
@output_option
def run_one(proposal: str, candidates: tuple[str, ...], target: str, workspace: Path, output: str) -> None:
    """Check the newest data and make one attempt on PROPOSAL (a hash or a model's name; the newest open one).

    Candidates are trained on one split, the best on its validation part is judged at the attempt's share of alpha; on PASS it
    becomes the challenger. On the same data there is one attempt. Writes retrain_data.json, retrain_attempt.json,
    retrain_strategy.md and model_card.md. Exits 0 at PASS, 1 at FAIL, 3 when inconclusive.

    \b
    Examples:
      probatum retrain run
      probatum retrain run v1.8-b0 --candidate robust --candidate robust:lightgbm
    """
    from probatum.cli.evidence import export_evidence
    from probatum.pipeline.retrain import choose_proposal, run_retrain

    space = Workspace(workspace)
    chosen, tried = choose_proposal(list(space.ledger.records()), proposal), parse_candidates(candidates)
    with progress() as bars:
        outcome = run_retrain(space.ledger, space, chosen, tried, target=target, progress=bars)
    export_evidence(space)
    record = outcome.attempt or outcome.data
    if output == "json":
        print_json({"kind": record.kind, "record": record.hash, **record.body["figures"]})
    else:
        _print_outcome(outcome)
    click.get_current_context().exit(EXIT_CODES[outcome.verdict])


@retrain.command()
@click.option("--data", "path", required=True, metavar="FILE|binance:SYMBOL:30d", help="Recorded data.")
@click.option("--format", "format_name", type=click.Choice(FORMATS), help="What the file is.")
@click.option("--symbol", help="The instrument, where the file name does not carry it.")
@click.option("--history", default="14d", show_default=True, help="How much is known before the replay begins.")
@_CANDIDATE
@_TARGET
@workspace_option
@output_option
def replay(
    path: str,
    format_name: str | None,
    symbol: str | None,
    history: str,
    candidates: tuple[str, ...],
    target: str,
    workspace: Path,
    output: str,
) -> None:
    """Replay a recording day by day: v1.8-b0 drifts, a proposal opens, and a successor is tried daily until one passes.

    All attempts share one alpha. What passes becomes the challenger, is served and shadowed on loopback, goes through a canary
    over the days after its gate, and what still blocks its promotion is listed. An interrupted replay goes on where it stopped.
    Exits 0 when an attempt passed, 1 when the last failed, 3 when it was inconclusive, whatever became of the canary.

    \b
    Examples:
      probatum retrain replay --data BTCUSDT-1m.csv --format binance-klines --history 14d
      probatum retrain replay --data binance:BTCUSDT:30d -w retrained
    """
    from probatum.cli.data import open_recording, parse_options
    from probatum.cli.evidence import export_evidence
    from probatum.pipeline.drift import span_ns
    from probatum.pipeline.retrain_replay import replay_days

    space = Workspace(workspace)
    if (history_ns := span_ns(history)) is None:
        raise ParameterError("history", "like 14d", history)
    recording = open_recording(space, path, format_name=format_name, options=parse_options((), (), symbol=symbol))
    tried, days = parse_candidates(candidates), list[Any]()
    with progress() as bars:
        for day in replay_days(recording, history_ns, save=space.datasets.save, ledger=space.ledger, sources=space, candidates=tried, target=target, progress=bars):  # fmt: skip
            days.append(day)
            click.echo(_day_line(_attempt_json(day)), err=True)
        outcome = days[-1].outcome
        records = _prove_challenger(space, days[-1], bars) if outcome and outcome.verdict == "PASS" else []
    export_evidence(space)
    _print_replay(days, records, output)
    click.get_current_context().exit(EXIT_CODES[outcome.verdict] if outcome else EXIT_CODES["INCONCLUSIVE"])


def parse_candidates(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Read SET or SET:MODEL; none means the shipped ones.

    >>> parse_candidates(["robust", "v1.8.1:lightgbm"])
    [('robust', 'logistic'), ('v1.8.1', 'lightgbm')]
    """
    from probatum.features.sets import get_feature_set
    from probatum.models.trainer import get_trainer
    from probatum.pipeline.retrain import CANDIDATES

    found = [(name, model or "logistic") for name, _, model in (text.partition(":") for text in texts)]
    for name, model in found:
        get_feature_set(name)
        get_trainer(model)
    return found or list(CANDIDATES)


def _prove_challenger(space: Workspace, day: Day, bars: Any) -> list[Record]:
    """Serve, shadow and canary the challenger over what came after its gate, unless that was done; then list its blockers."""
    from probatum.cli.run import serve_challenger
    from probatum.core.clock import parse_utc
    from probatum.pipeline.drift import snapshot
    from probatum.pipeline.promotion import check_promotion
    from probatum.rollout.confirm import DEMO
    from probatum.rollout.policy import shipped_policy

    assert day.outcome is not None
    assert day.outcome.attempt is not None
    model = day.outcome.attempt.body["inputs"]["artifact"]
    kinds = ("smoke_1k", "shadow_smoke_1k", "shadow_replay", "canary_run")
    known = [item for kind in kinds for item in space.ledger.records(kind=kind) if item.body["inputs"].get("artifact") == model]  # fmt: skip
    if not known or known[-1].kind != "canary_run":
        known = serve_challenger(space, model, bars, since_ns=parse_utc(day.end))
    drift = snapshot(space.ledger, space, model, progress=bars)
    now_ns, policy = space.clock.now_ns(), shipped_policy("default")
    return [*known, drift, check_promotion(space.ledger, space, model, policy=policy, now_ns=now_ns, asked_by=DEMO)]


def _print_outcome(outcome: Outcome) -> None:
    data = outcome.data.body["figures"]
    rows = [
        (c["name"], c["value"], c["bound"], c["verdict"], "yes" if c["enforced"] else "warns") for c in data["checks"]
    ]
    print_table(f"Data {data['span']['start']} to {data['span']['end']}: {data['verdict']}", ["check", "value", "bound", "verdict", "enforced"], rows)  # fmt: skip
    for c in data["checks"]:
        if c["verdict"] != "PASS":
            click.echo(f"{c['name']}: {c['reason']}; would settle it: {c['settle']}")
    if outcome.attempt is None:
        return
    found = outcome.attempt.body["figures"]
    title = f"Attempt {found['number']} of {found['attempts_max']} at alpha {found['alpha']:.4g}: {found['verdict']}  ({outcome.attempt.provenance.upper()} data)"
    tried = [
        (c["set"], c["model"], _shown(c["validate_auc"]), _bound(c, "auc"), _bound(c, "precision_at_20"), c["verdict"], "chosen" if c["chosen"] else "")
        for c in found["candidates"]
    ]  # fmt: skip
    print_table(title, ["set", "model", "validation AUC", "AUC, bound", "P@20, bound", "gate", ""], tried)
    for number, step in enumerate(found["next_steps"], 1):
        click.echo(f"{number}. {step}")


def _day_line(day: dict[str, Any]) -> str:
    said = f"{day['day'][:10]}: PSI of v1.8-b0 {day['psi']:.3g}, drift {day['drift']}; {day['verdict']}"
    return said if day["attempt"] is None else f"{said} at attempt {day['attempt']}, AUC {day['auc']}"


def _print_replay(days: Sequence[Day], records: Sequence[Record], output: str) -> None:
    found = {record.kind: record.body["figures"] for record in records if "verdict" in record.body["figures"]}
    blockers = found.get("promote_check", {}).get("blockers", [])
    attempts = [_attempt_json(day) for day in days]
    if output == "json":
        verdicts = {kind: item["verdict"] for kind, item in found.items()}
        print_json({"days": attempts, "challenger": verdicts, "blockers": [b["name"] for b in blockers]})
        return
    rows = [
        (a["day"], _shown(a["psi"]), a["drift"], a["attempt"] or "-", a["auc"], a["precision_at_20"], a["verdict"])
        for a in attempts
    ]
    columns = ["until", "PSI of v1.8-b0", "drift", "attempt", "AUC, bound", "P@20, bound", "gate"]
    print_table("Retraining, day by day; all data are " + days[-1].drift.provenance.upper(), columns, rows)
    if not records:
        click.echo("No attempt passed in this recording: there is no challenger, and the champion stays.")
        return
    print_table("The challenger", ["proof", "verdict"], [(kind, item["verdict"]) for kind, item in found.items()])
    print_table("What still blocks it", ["blocker", "found", "required", "clears"], [(b["name"], b["value"], b["bound"], b["clears"]) for b in blockers])  # fmt: skip


def _attempt_json(day: Day) -> dict[str, Any]:
    drift = day.drift.body["figures"]
    made = {"day": day.end, "psi": drift["overall_psi"], "drift": drift["verdict"]}
    attempt = day.outcome.attempt if day.outcome else None
    if attempt is None:
        verdict = "no proposal" if day.outcome is None else f"data {day.outcome.verdict}"
        return {**made, "attempt": None, "auc": "-", "precision_at_20": "-", "verdict": verdict}
    found = attempt.body["figures"]
    best = next(c for c in found["candidates"] if c["chosen"])
    return {**made, "attempt": found["number"], **{name: _bound(best, name) for name in ("auc", "precision_at_20")}, "verdict": found["verdict"]}  # fmt: skip


def _bound(candidate: dict[str, Any], name: str) -> str:
    return f"{_shown(candidate[name])} ≥{_shown(candidate[name + '_lower'])}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
