"""Start, watch and stop a live canary. Each command is one event in the ledger; executors follow at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from probatum.cli.common import F, output_option, print_json, print_table, workspace_option
from probatum.core.errors import (
    AbortedError,
    ConfirmationError,
    InconclusiveError,
    ParameterError,
)

if TYPE_CHECKING:
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.alerts import AlertHistory
    from probatum.pipeline.ports import Decisions
    from probatum.pipeline.ports import Record as LedgerRecord
    from probatum.pipeline.release import SourceTree
    from probatum.pipeline.rollout import LedgerEffects, Rollout

WATCH_S = 1.0

_name = click.argument("name", required=False)
_by = click.option("--by", envvar="USER", default="operator", show_default="$USER", help="Who does this.")
_reason = click.option("--reason", default="", help="Why; it stands in the record.")


def open_rollout(space: Workspace, name: str | None) -> Rollout:
    """Return the live rollout of a name, or the newest one; UnknownNameError lists the known."""
    from probatum.pipeline import operate

    return operate.open_rollout(space.ledger, space, name)


def prometheus_option(*, required: bool = False) -> Callable[[F], F]:
    """Add ``--prometheus``: where alert histories come from."""
    text = "URL of the Prometheus that scrapes executors and engines and evaluates the alert rules."
    return click.option("--prometheus", envvar="PROBATUM_PROMETHEUS", show_envvar=True, required=required, help=text)


def live_effects(
    space: Workspace,
    tell: Callable[[str], None],
    *,
    tree: SourceTree | None = None,
    prometheus: str | None = None,
    decisions: Decisions | None = None,
    photograph: Callable[[str, LedgerRecord], None] = lambda rollout, event: None,  # noqa: ARG005
) -> LedgerEffects:
    """Return what carries out the effects of a live rollout: evidence into the ledger, tags to ``tree``, words to ``tell``.

    ``decisions`` are the workspace's, where not given; without ``prometheus`` a run has no alert history. At the end of each
    phase ``photograph`` is asked for a picture, of a rollout's name and the record that ended it.
    """
    from probatum.core.clock import parse_utc
    from probatum.pipeline.beside import look_beside
    from probatum.pipeline.canary import prove_run
    from probatum.pipeline.release import tag_source
    from probatum.pipeline.rollout import LedgerEffects
    from probatum.rollout.events import Record

    history: AlertHistory | None = None
    if prometheus is not None:
        from probatum.adapters.alerts import PrometheusAlerts

        history = PrometheusAlerts(prometheus)

    def prove(rollout: Rollout, effect: Record) -> None:
        if effect.kind == "phase" and rollout.head is not None:
            photograph(rollout.name, rollout.head)
        prove_run(rollout, effect, beside=lambda: look_beside(rollout, decisions or space.decisions, history))

    def tag(rollout: Rollout, kind: str) -> None:
        now_ns = parse_utc(rollout.head.ts) if rollout.head else 0
        found = tag_source(rollout, kind, tree, now_ns=now_ns, asked_by=rollout.state.approver).body["figures"]
        tell(f"tagged {found['tag']}" if found["tagged"] else f"{found['tag']} not tagged: {found['reason']}")

    return LedgerEffects(prove_run=prove, tag_source=tag, tell=tell)


def open_tree(repo: Path | None) -> SourceTree | None:
    """Return the git work tree to tag, where one was given; ParameterError where it is none."""
    from probatum.adapters.worktree import GitTree

    if repo is not None and not repo.is_dir():
        raise ParameterError("repo", "a folder inside a git work tree", str(repo))
    return None if repo is None else GitTree(repo)


@click.command()
@_name
@click.option("--phrase", help="The confirmation, as shown without this option.")
@click.option("--approver", help="Who confirms.")
@click.option("--last", type=click.IntRange(1, 100), help="Confirm only up to this share in per cent.")
@workspace_option
@output_option
def start(
    name: str | None, phrase: str | None, approver: str | None, last: int | None, workspace: Path, output: str
) -> None:
    """Start a canary that was rehearsed; without a phrase, print the one that is needed and exit 5.

    \b
    Examples:
      probatum canary start                                       shows the phrase
      probatum canary start --approver ada --phrase "ONAY: …"
    """
    from probatum.cli.workspace import Workspace
    from probatum.pipeline.operate import confirm, needed_phrase

    space = Workspace(workspace)
    rollout, now_ns = open_rollout(space, name), space.clock.now_ns()
    needed = needed_phrase(rollout, now_ns, last=last)
    if phrase is None or approver is None:
        raise ConfirmationError(f"confirmation required (--approver NAME --phrase '{needed}')", phrase=needed)
    confirm(rollout, phrase, approver, now_ns)
    _finish(space, rollout, output)


@click.command()
@_name
@click.option("--watch", "-w", "watch", is_flag=True, help="Go on until the rollout ends, holds or is interrupted.")
@partial(workspace_option, short=())
@output_option
def status(name: str | None, watch: bool, workspace: Path, output: str) -> None:
    """Show where a rollout stands, and what each criterion lacks. With -w exits 3 when it holds, 4 when it was aborted.

    \b
    Examples:
      probatum canary status
      probatum canary status -w
      probatum canary status btc-canary -o json
    """
    from probatum.cli.workspace import Workspace
    from probatum.rollout.machine import TERMINAL, Stage

    rollout = open_rollout(Workspace(workspace), name)
    moving = (Stage.RUNNING, Stage.PAUSED, Stage.VALIDATING)
    shown = -1
    while True:
        rollout.refresh()
        if rollout.head is not None and rollout.head.seq != shown:
            shown = rollout.head.seq
            _print(rollout, output)
        if not watch or rollout.state.stage not in moving:
            break
        time.sleep(WATCH_S)
    state = rollout.state
    if watch and state.stage in TERMINAL:
        raise AbortedError(f"{rollout.name}: {state.stage.value}: {state.reason}")
    if watch and state.stage is Stage.HOLDING:
        raise InconclusiveError(f"{rollout.name} holds: {state.reason}")


def _command(verb: str, text: str, example: str) -> click.Command:
    """Return a command that appends one event of a human's."""

    @click.command(verb, help=f"{text}\n\n\b\nExamples:\n  probatum canary {verb}\n  probatum canary {verb} {example}")
    @_name
    @_by
    @_reason
    @prometheus_option()
    @workspace_option
    @output_option
    def command(name: str | None, by: str, reason: str, prometheus: str | None, workspace: Path, output: str) -> None:
        from probatum.cli.workspace import Workspace
        from probatum.pipeline.operate import act, stop_now

        space = Workspace(workspace)
        if verb == "abort":
            name = stop_now(space.ledger, name)
        rollout = open_rollout(space, name)
        act(rollout, verb, now_ns=space.clock.now_ns(), by=by, reason=reason)
        _finish(space, rollout, output, prometheus)

    return command


pause = _command("pause", "Stop the clock of a running phase; the share stays.", '--reason "maintenance"')
resume = _command("resume", "Let a paused or holding rollout go on.", "--by ada")
abort = _command("abort", "End a rollout now: share 0 is in the ledger when this returns.", '--reason "wrong model"')
validate = _command(
    "validate",
    "Watch a completed canary or exposure over fresh data, for as long as its policy says; the controller judges it.",
    "--by ada && probatum canary status -w",
)


@click.command()
@_name
@workspace_option
@output_option
def retry(name: str | None, workspace: Path, output: str) -> None:
    """Open another attempt of an ended rollout, with the same plan; preflight, dry-run and confirmation are due anew.

    \b
    Examples:
      probatum canary retry
      probatum canary retry btc-canary
    """
    from probatum.cli.workspace import Workspace

    space = Workspace(workspace)
    rollout = open_rollout(space, name)
    rollout.open(rollout.plan, space.clock.now_ns())
    _print(rollout, output)


LIVE = (start, status, pause, resume, abort, validate, retry)
"""What the group ``canary`` adds."""


def _finish(space: Workspace, rollout: Rollout, output: str, prometheus: str | None = None) -> None:
    """The share is in the ledger by now; carry out what takes longer, and show where the rollout stands."""
    from probatum.pipeline.rollout import carry_out

    carry_out(rollout, live_effects(space, lambda text: click.echo(text, err=True), prometheus=prometheus))
    _print(rollout, output)


def _print(rollout: Rollout, output: str) -> None:
    from probatum.pipeline.standing import summary

    found: dict[str, Any] = summary(rollout)
    if output == "json":
        print_json(found)
        return
    checks = found.pop("checks")
    print_table("", ["", ""], [(key, "" if value is None else value) for key, value in found.items()])
    if checks:
        rows = [(c["name"], c["verdict"], f"{c['bad']}/{c['n']}", c["bound"], c["reason"], c["settle"]) for c in checks]
        print_table("", ["criterion", "verdict", "bad/n", "bound", "reason", "would settle it"], rows)
