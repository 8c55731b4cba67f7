"""Promote what nothing blocks, take it back at once, and say who let what stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import output_option, print_json, print_table, progress, workspace_option
from probatum.cli.live import prometheus_option
from probatum.core.errors import BlockedError, ConfirmationError

if TYPE_CHECKING:
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.ports import Record
    from probatum.rollout.lint import Finding

_by = click.option("--by", required=True, help="Who does this.")
_name = click.argument("name", required=False)


@click.command()
@click.argument("model")
@click.option("--policy", default="default", show_default=True, help="A shipped policy, or a TOML file.")
@click.option(
    "--by", default="operator", show_default=True, envvar="USER", help="Who asks; a reviewer must be another."
)
@click.option("--verify/--no-verify", default=False, help="Verify the whole chain first, and record that.")
@workspace_option
@output_option
def blockers(model: str, policy: str, by: str, verify: bool, workspace: Path, output: str) -> None:
    """List what stands between a model and promotion: value, bound, evidence, and what clears it. Exits 1 where any is open.

    \b
    Examples:
      probatum blockers robust
      probatum blockers challenger --verify -o json
    """
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace

    space = Workspace(workspace)
    record = _ask(space, model, policy, by, verify)
    export_evidence(space)
    _show(record, output)
    if record.body["figures"]["verdict"] != "PASS":
        raise BlockedError(record.body["figures"]["summary"])


@click.command()
@_name
@_by
@click.option("--phrase", help="The confirmation, as shown without this option.")
@click.option("--repo", type=click.Path(path_type=Path, file_okay=False), help="Git work tree to tag.")
@workspace_option
@output_option
def promote(name: str | None, by: str, phrase: str | None, repo: Path | None, workspace: Path, output: str) -> None:
    """Move `champion` to the model of a completed canary. Without a phrase, print the one that is needed and exit 5.

    Called again after a promotion that was interrupted, it finishes it.

    \b
    Examples:
      probatum promote --by ada                              shows the phrase, or what blocks
      probatum promote --by ada --phrase "ONAY: …" --repo .
    """
    from probatum.cli.evidence import export_evidence
    from probatum.cli.live import live_effects, open_rollout, open_tree
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.promotion import check_promotion, promotion_phrase
    from probatum.pipeline.promotion import promote as move
    from probatum.pipeline.rollout import carry_out
    from probatum.rollout.machine import Stage

    space = Workspace(workspace)
    rollout, now_ns = open_rollout(space, name), space.clock.now_ns()
    effects = live_effects(space, lambda text: click.echo(text, err=True), tree=open_tree(repo))
    if rollout.state.stage is Stage.PROMOTED:
        carry_out(rollout, effects)  # what a full disk or a kill may have left undone
    elif phrase is None:
        policy = rollout.plan.policy
        record = check_promotion(space.ledger, space, rollout.plan.model, policy=policy, now_ns=now_ns, asked_by=by)
        export_evidence(space)
        if record.body["figures"]["verdict"] != "PASS":
            _show(record, output)
            raise BlockedError(record.body["figures"]["summary"])
        needed = promotion_phrase(rollout, record, now_ns)
        raise ConfirmationError(f"confirmation required (--phrase '{needed}')", phrase=needed)
    else:
        move(rollout, phrase, by=by, now_ns=now_ns, handler=effects)
    export_evidence(space)
    _say(output, rollout=rollout.name, stage=rollout.state.stage.value, champion=rollout.plan.model)


@click.command()
@_name
@_by
@click.option("--reason", default="", help="Why; it stands in the record.")
@prometheus_option()
@workspace_option
@output_option
def rollback(name: str | None, by: str, reason: str, prometheus: str | None, workspace: Path, output: str) -> None:
    """Take the decision back at once: share 0, and `champion` points at `previous` again.

    \b
    Examples:
      probatum rollback --by ada --reason "wrong symbol"
    """
    from probatum.cli.evidence import export_evidence
    from probatum.cli.live import live_effects, open_rollout
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.operate import append
    from probatum.pipeline.rollout import carry_out
    from probatum.rollout.events import RolledBack

    space = Workspace(workspace)
    rollout = open_rollout(space, name)
    event = RolledBack(space.clock.now_ns(), by, reason)
    effects = live_effects(space, lambda text: click.echo(text, err=True), prometheus=prometheus)
    append(rollout, event)
    carry_out(rollout, effects)
    export_evidence(space)
    _say(output, rollout=rollout.name, stage=rollout.state.stage.value, reason=rollout.state.reason)


@click.command()
@click.argument("model")
@_by
@click.option("--note", default="", help="What was looked at.")
@workspace_option
@output_option
def review(model: str, by: str, note: str, workspace: Path, output: str) -> None:
    """Record that a second person looked at a model's evidence.

    \b
    Examples:
      probatum review robust --by grace --note "gate, drift and canary read"
    """
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.promotion import review as record_review
    from probatum.pipeline.registry import resolve

    space = Workspace(workspace)
    record = record_review(space.ledger, space, resolve(space.ledger.records(), model), by=by, note=note)
    _say(output, review=record.seq, model=record.subject, by=by)


@click.command()
@click.argument("model")
@click.argument("blocker")
@_by
@click.option("--reason", required=True, help="Why it may stand.")
@click.option("--hours", type=click.FloatRange(0, 24 * 90, min_open=True), default=24.0, show_default=True)
@workspace_option
@output_option
def waive(model: str, blocker: str, by: str, reason: str, hours: float, workspace: Path, output: str) -> None:
    """Let a blocker stand for a while, by name. Live data, a review and verified evidence cannot be waived.

    \b
    Examples:
      probatum waive robust drill --by ada --reason "drilled last week on the old host" --hours 48
    """
    from probatum.cli.workspace import Workspace
    from probatum.core.clock import NS_PER_S, format_utc
    from probatum.pipeline.promotion import waive as record_waiver
    from probatum.pipeline.registry import resolve

    space = Workspace(workspace)
    now_ns = space.clock.now_ns()
    expires_ns = now_ns + int(hours * 3600) * NS_PER_S
    digest = resolve(space.ledger.records(), model)
    record_waiver(space.ledger, space, digest, blocker, by=by, reason=reason, now_ns=now_ns, expires_ns=expires_ns)
    _say(output, waived=blocker, by=by, until=format_utc(expires_ns))


@click.command()
@click.option("--executors", type=click.IntRange(1, 16), default=2, show_default=True, help="Replicas under load.")
@workspace_option
@output_option
def drill(executors: int, workspace: Path, output: str) -> None:
    """Start an engine and executors on loopback, inject an abort, a dead engine and a lost ledger, and time each.

    They run on a ledger of their own: nothing that serves is touched. Promotion wants a drill that is not stale.

    \b
    Examples:
      probatum drill
      probatum drill --executors 4 -o json
    """
    from probatum.adapters.drill import drill as run_drill
    from probatum.cli.canary import end
    from probatum.cli.evidence import export_evidence
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.drill import record_drill

    space = Workspace(workspace)
    with progress() as bars:
        record = record_drill(run_drill(executors, bars), executors, space.ledger, space)
    export_evidence(space)
    end(record, output)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@output_option
def lint(files: tuple[Path, ...], output: str) -> None:
    """Find what policies and plans promise and cannot keep. Exits 1 where there is an error.

    \b
    Examples:
      probatum lint my-policy.toml
      probatum lint plan.toml -o json
    """
    found = [(str(path), item) for path in files for item in _lint(path)]
    if output == "json":
        print_json([{"file": file, **_fields(item)} for file, item in found])
    else:
        rows = [(file, f.severity, f.place, f.problem, f.mend) for file, f in found]
        print_table("" if rows else "nothing found", ["file", "severity", "place", "problem", "would mend it"], rows)
    errors = [item for _, item in found if item.severity == "error"]
    if errors:
        raise BlockedError(
            f"{len(errors)} promises that cannot be kept; the first: {errors[0].place}: {errors[0].problem}"
        )


def _lint(path: Path) -> list[Finding]:
    from probatum.cli.evidence import read_text_file
    from probatum.pipeline.replay import TIMEOUT_NS
    from probatum.rollout.lint import Surroundings, lint_plan, lint_policy_text
    from probatum.rollout.policy import parse_plan

    text = read_text_file(path)
    if "\nmodel" in f"\n{text}":
        return lint_plan(parse_plan(text, place=str(path)), Surroundings(timeout_ms=TIMEOUT_NS / 1e6))
    return lint_policy_text(text, place=str(path))[1]


def _fields(item: Finding) -> dict[str, Any]:
    return {name: getattr(item, name) for name in item.__struct_fields__}


def _ask(space: Workspace, model: str, policy: str, by: str, verified: bool) -> Record:
    from probatum.cli.canary import read_policy
    from probatum.pipeline.promotion import check_promotion, record_verification
    from probatum.pipeline.registry import resolve
    from probatum.pipeline.verify import verify

    digest = resolve(space.ledger.records(), model)
    if verified:
        with progress() as bars:
            record_verification(space.ledger, space, verify(space.ledger, space, bars).findings)
    return check_promotion(
        space.ledger, space, digest, policy=read_policy(policy), now_ns=space.clock.now_ns(), asked_by=by
    )


def _show(record: Record, output: str) -> None:
    found = record.body["figures"]
    if output == "json":
        print_json(found)
        return
    rows = [
        (b["name"], b["severity"], b["value"], b["bound"], b["evidence"][:12], b["clears"], b["waived_by"])
        for b in found["blockers"]
    ]
    columns = ["blocker", "severity", "found", "required", "evidence", "cleared by", "waived by"]
    print_table(f"{record.subject}: {found['summary']}", columns, rows)


def _say(output: str, **fields: Any) -> None:
    if output == "json":
        print_json(fields)
    else:
        click.echo(", ".join(f"{name} {value}" for name, value in fields.items() if value != ""))
