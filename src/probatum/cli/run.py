"""Tell the whole story on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from probatum.cli.common import output_option, print_json, print_table, progress, workspace_option
from probatum.cli.data import FORMATS
from probatum.core.errors import ParameterError

if TYPE_CHECKING:
    from probatum.cli.workspace import Workspace
    from probatum.market.quality import Recording
    from probatum.models.artifact import Artifact
    from probatum.pipeline.ports import Record
    from probatum.pipeline.story import Judged

SYNTHETIC_DAYS, SYNTHETIC_SEED = 28, 7
SMOKE_RATE_PER_S, SHADOW_RATE_PER_S = 500.0, 400.0
SHADOW_MAX = 10_000  # decisions: a day of minutes, or what half a minute allows of a day of seconds


@click.command()
@click.option("--data", "paths", multiple=True, metavar="FILE|binance:SYMBOL:30d", help="Recorded data [synthetic].")
@click.option("--format", "format_name", type=click.Choice(FORMATS), help="What the files are.")
@click.option("--symbol", help="The instrument, where the file names do not carry it.")
@click.option("--explain-gap", multiple=True, metavar="START..END=REASON", help="Accept a gap, for a reason.")
@click.option("--confirm", is_flag=True, help="Ask for the canary's phrase instead of confirming as approver `demo`.")
@workspace_option
@output_option
def run(
    paths: tuple[str, ...],
    format_name: str | None,
    symbol: str | None,
    explain_gap: tuple[str, ...],
    confirm: bool,
    workspace: Path,
    output: str,
) -> None:
    """Take market data to verdicts with evidence: import, training, gate, drift, serving, shadow, canary, promote gate.

    The best model is served by an engine and an executor on loopback, smoked with 1,000 requests each, and shadowed over
    the newest recorded decisions. Then its canary is rehearsed, confirmed and run under a virtual clock: over a day of decisions,
    one a second, on ticks, and over the whole test window on bars. Without --data the market is synthetic, and so is every record; nothing on it can be promoted. Exits 0 when the
    story was told, whatever the verdicts: `gate` exits 1 on a refusal.

    \b
    Examples:
      probatum run
      probatum run --data BTCUSDT-1m.csv --format binance-klines
      probatum run --data bid.csv --data ask.csv --format bid-ask-bars --symbol GBPUSD
      probatum run --data binance:BTCUSDT:30d
    """
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.story import conclude
    from probatum.pipeline.verify import verify

    space = Workspace(workspace)
    with progress() as bars:
        dataset = _import(space, _recording(space, paths, format_name, symbol, explain_gap))
        judged = _judge_all(space, dataset, bars)
        served = _serve_best(space, judged, confirm, bars)
        now_ns = space.clock.now_ns()
        judged = [conclude(item, served.get(item.name, ()), space.ledger, space, now_ns=now_ns) for item in judged]
        files = export_evidence(space)
        exported = {name: space.evidence.read(name) or b"" for name in space.evidence.names()}
        checked = verify(space.ledger, space, bars, exported=exported)
    report = next(path for path in files if path.name == "report.html")
    if output == "json":
        print_json(_as_json(judged, report, checked))
    else:
        _print(judged, report, checked)


def _recording(
    space: Workspace, paths: tuple[str, ...], format_name: str | None, symbol: str | None, explain_gap: tuple[str, ...]
) -> Recording:
    from probatum.adapters.importers import read_files
    from probatum.cli.data import open_recording, parse_options
    from probatum.market.synth import record_synthetic

    if not paths:
        return record_synthetic(days=SYNTHETIC_DAYS, seed=SYNTHETIC_SEED, symbol=symbol or "SYN")
    options = parse_options((), explain_gap, symbol=symbol)
    if len(paths) > 1:
        if format_name is None:
            raise ParameterError("format", f"given with --format for files: one of {', '.join(FORMATS)}", None)
        return read_files(format_name, [Path(path) for path in paths], options)
    return open_recording(space, paths[0], format_name=format_name, options=options)


def _import(space: Workspace, recording: Recording) -> Any:
    from probatum.cli.data import store_recording

    imported = store_recording(space, recording)
    found = imported.record.body["figures"]
    click.echo(
        f"data: {imported.dataset.symbol}, {found['provenance'].upper()}, {found['start']} to {found['end']}, "
        f"{found['rows_stored']:,} rows stored, {found['rows_quarantined']:,} in quarantine",
        err=True,
    )
    return imported.dataset


def _judge_all(space: Workspace, dataset: Any, bars: Any) -> list[Judged]:
    from probatum.pipeline.story import candidates, judge

    plans = candidates(dataset)
    judged = []
    for number, plan in enumerate(plans):
        bars.step("models", number, len(plans))
        judged.append(judge(plan, dataset, space.ledger, space, bars))
    bars.step("models", len(plans), len(plans))
    return judged


def _serve_best(space: Workspace, judged: list[Judged], confirm: bool, bars: Any) -> dict[str, list[Record]]:
    """Make the best model the challenger, serve it on loopback, and bring back what was proven of it."""
    from probatum.pipeline.registry import CHALLENGER, move_alias
    from probatum.pipeline.story import best

    chosen = best(judged)
    if chosen is None or chosen.artifact is None:
        return {}
    move_alias(space.ledger, space, CHALLENGER, chosen.artifact)
    return {chosen.name: serve_challenger(space, chosen.artifact, bars, confirm=confirm)}


def serve_challenger(
    space: Workspace, model: str, bars: Any, *, confirm: bool = False, since_ns: int = 0
) -> list[Record]:
    """Smoke, shadow and canary the challenger (digest) on loopback; the canary replays decisions after ``since_ns``."""
    from probatum.adapters.processes import service
    from probatum.cli.smoke import REQUESTS, run_shadow, run_smoke
    from probatum.core.clock import NS_PER_DAY
    from probatum.models.baseline import BASELINES, rule_beside
    from probatum.pipeline.gate import load_artifact
    from probatum.pipeline.registry import CHALLENGER
    from probatum.pipeline.story import MINUTE_GRID_NS

    artifact = load_artifact(space, model)
    place = ["--workspace", str(space.root), "--port", "0"]
    newest = min(int(NS_PER_DAY // (artifact.grid_ns or MINUTE_GRID_NS)), SHADOW_MAX)
    with service(["engine", "--model", CHALLENGER, *place]) as engine:
        click.echo(f"serving: {artifact.name} on {engine}, 1,000 requests", err=True)
        smoke = run_smoke(space, artifact, engine, SMOKE_RATE_PER_S, bars)
        rule = rule_beside(artifact.target, artifact.features.names)
        beside = ["--model", artifact.digest, "--engine", engine, "--baseline", rule, *_tick(space, artifact)]
        with service(["executor", *beside, *place]) as url:
            click.echo(
                f"shadow: executor on {url}, baseline {BASELINES[rule].name}, 1,000 and the newest {newest:,} decisions",
                err=True,
            )
            parts = {"shadow_smoke_1k": REQUESTS, "shadow_replay": newest}
            shadowed = run_shadow(space, artifact, url, parts, SHADOW_RATE_PER_S, bars)
    return [smoke, *shadowed, *_canary(space, model, confirm, bars, since_ns)]


def _canary(space: Workspace, model: str, confirm: bool, bars: Any, since_ns: int) -> list[Record]:
    """Plan, check, rehearse, confirm and run a canary over the recording; stop at the first step that does not pass."""
    from probatum.cli.canary import newest_recording, plan_for, read_policy
    from probatum.core.clock import NS_PER_S
    from probatum.core.errors import ProbatumError
    from probatum.pipeline.canary import dry_run, open_s, preflight, prove_run, replay_run, spread
    from probatum.pipeline.release import tag_source
    from probatum.pipeline.replay import read_tape
    from probatum.pipeline.rollout import LedgerEffects, Rollout
    from probatum.rollout.events import Aborted
    from probatum.rollout.machine import TERMINAL, Stage

    bare = plan_for(space, model, read_policy("default"), None, None)
    recording = newest_recording(space, bare, since_ns=since_ns)
    start_ns, end_ns = recording.span
    dataset = space.datasets.load(recording.symbol, recording.dataset)
    policy = spread(bare.policy, open_s(dataset, start_ns, end_ns))
    rollout = Rollout(space.ledger, space, f"{bare.name}-replay")
    if rollout.head is not None and rollout.state.stage not in TERMINAL:
        rollout.apply(Aborted(rollout.state.ts, "probatum run", "told anew"))
    rollout.open(msgspec.structs.replace(bare, name=rollout.name, policy=policy), start_ns)
    recording = msgspec.structs.replace(recording, shift_s=-(-(rollout.state.ts - start_ns) // NS_PER_S))
    start_ns, _ = recording.span
    bars.step("canary", 0, 3)
    records = [preflight(rollout, now_ns=start_ns, newest_ns=start_ns, provenance=dataset.provenance)]
    if rollout.state.stage is Stage.PREFLIGHTED:
        records.append(dry_run(rollout, recording, now_ns=start_ns))
        bars.step("canary", 1, 3)
    if rollout.state.stage is not Stage.AWAITING_CONFIRMATION:
        click.echo(f"canary: not started: {rollout.state.reason}", err=True)
        return records
    confirmed = _confirm(rollout, start_ns, confirm)
    tape = read_tape(space, model, recording)

    def prove(rollout: Rollout, effect: Any) -> None:
        prove_run(rollout, effect, recording=recording, tape=tape)

    def tag(rollout: Rollout, kind: str) -> None:
        records.append(tag_source(rollout, kind, None, now_ns=space.clock.now_ns(), asked_by=confirmed.approver))

    effects = LedgerEffects(prove_run=prove, tag_source=tag, tell=lambda text: click.echo(f"canary: {text}", err=True))
    replay_run(rollout, recording, tape, confirmed, effects)
    bars.step("canary", 2, 3)
    proven = prove_run(rollout, recording=recording, tape=tape)
    bars.step("canary", 3, 3)
    if proven is None:
        raise ProbatumError(f"{rollout.name} left no record")
    return [*records, proven]


def _confirm(rollout: Any, now_ns: int, ask: bool) -> Any:
    """Return the confirmation of a replayed canary: for itself as ``demo``, or from the person at the terminal."""
    from probatum.rollout.confirm import DEMO, build_phrase
    from probatum.rollout.events import Confirmed
    from probatum.rollout.machine import check_confirmation, required_permission

    phrase = build_phrase(required_permission(rollout.plan, rollout.state, now_ns))
    if not ask:
        click.echo(f"confirmed by {DEMO}: {phrase}", err=True)
        return Confirmed(now_ns, phrase, DEMO)
    click.echo(f"To start the canary, type or paste:\n  {phrase}", err=True)
    event = Confirmed(now_ns, click.prompt("phrase", err=True), click.prompt("approver", err=True))
    check_confirmation(rollout.plan, rollout.state, event)
    return event


def _tick(space: Workspace, artifact: Artifact) -> list[str]:
    tick_size = space.datasets.load(artifact.data.symbols[0]).tick_size
    return [] if tick_size is None else ["--tick-size", repr(tick_size)]


def _print(judged: list[Judged], report: Path, checked: Any) -> None:
    rows = [
        (
            item.name,
            item.target,
            _verdict(item.gate),
            _bounded(item.gate, "auc"),
            _bounded(item.gate, "precision_at_20"),
            _drift(item.drift),
            _verdict(item.drift),
            _verdict(item.proof("canary_run")),
            "PASS" if _verdict(item.promotion) == "PASS" else "BLOCKED",
        )
        for item in judged
    ]
    columns = ["model", "target", "gate", "AUC, bound", "P@20, bound", "PSI (max)", "drift", "canary", "promote"]
    print_table(f"Verdicts; all data are {judged[0].provenance.upper()}", columns, rows)
    for item in judged:
        click.echo(f"{item.name}")
        for reason in item.reasons:
            click.echo(f"  {reason}")
    click.echo(
        f"\nevidence: {checked.records} records, {checked.figures_checked} recomputed, "
        + ("chain verifies" if checked.ok else f"{len(checked.findings)} BAD: {checked.findings[0].place}")
    )
    click.echo(f"report: {report.resolve()}")


def _as_json(judged: list[Judged], report: Path, checked: Any) -> dict[str, Any]:
    return {
        "models": [
            {
                "name": item.name,
                "target": item.target,
                "provenance": item.provenance,
                "artifact": item.artifact,
                "gate": _verdict(item.gate),
                "drift": _verdict(item.drift),
                "canary": _verdict(item.proof("canary_run")),
                "promote": "PASS" if _verdict(item.promotion) == "PASS" else "BLOCKED",
                "reasons": item.reasons,
            }
            for item in judged
        ],
        "verified": checked.ok,
        "head": checked.head,
        "report": str(report.resolve()),
    }


def _verdict(record: Record | None) -> str:
    return "-" if record is None else str(record.body["figures"]["verdict"])


def _bounded(record: Record | None, name: str) -> str:
    checks = [] if record is None else record.body["figures"]["checks"]
    found = next((check for check in checks if check["name"] == name), None)
    if found is None or found["value"] is None:
        return "-"
    if found["lower"] is None:
        return f"{found['value']:.3f}"
    # The bound that the verdict follows: the upper one where the model failed, else the lower one.
    return (
        f"{found['value']:.3f} ≤{found['upper']:.3f}"
        if found["verdict"] == "FAIL"
        else f"{found['value']:.3f} ≥{found['lower']:.3f}"
    )


def _drift(record: Record | None) -> str:
    checks = {} if record is None else {check["name"]: check for check in record.body["figures"]["checks"]}
    values = [checks.get(name, {}).get("value") for name in ("psi_overall", "psi_feature")]
    return " ".join(
        part for part in (_number(values[0]), f"({_number(values[1])})" if values[1] is not None else "") if part
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
