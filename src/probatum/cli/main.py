"""Start the command line. Commands are imported when they are called, so that ``--help`` stays quick."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from probatum import __version__
from probatum.cli.common import fail
from probatum.core.errors import ProbatumError

# name: (module, attribute, one line of help). Grouped as the story goes.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("probatum.cli.run", "run", "Tell the whole story on one machine: data to verdicts with evidence."),
    "data": ("probatum.cli.data", "data", "Import, fetch, record, synthesise, list and check market data."),
    "features": ("probatum.cli.features", "features", "Build, list and check feature sets."),
    "train": ("probatum.cli.train", "train", "Train a model into a content-addressed artifact."),
    "gate": ("probatum.cli.train", "gate", "Judge an artifact offline, on bounds rather than point estimates."),
    "models": ("probatum.cli.train", "models", "List versions, move aliases, exchange models with MLflow."),
    "engine": ("probatum.cli.engine", "engine", "Serve a model's predictions over HTTP."),
    "executor": ("probatum.cli.executor", "executor", "Answer decisions with the baseline, a model in its shadow."),
    "controller": ("probatum.cli.controller", "controller", "Move live rollouts on as their measurements allow."),
    "up": ("probatum.cli.up", "up", "Run engine, executor and controller, on a live feed or without."),
    "rules": ("probatum.cli.rules", "rules", "Write alert rules and dashboard from the criteria."),
    "smoke": ("probatum.cli.smoke", "smoke", "Prove an engine with 1,000 requests."),
    "shadow": ("probatum.cli.smoke", "shadow", "Prove a challenger beside the baseline."),
    "canary": ("probatum.cli.canary", "canary", "Rehearse, confirm, run and stop canaries."),
    "confirm": ("probatum.cli.live", "start", "Give the phrase that starts a rehearsed rollout."),
    "blockers": ("probatum.cli.promote", "blockers", "List what stands between a model and promotion."),
    "alerts": ("probatum.cli.alerts", "alerts", "Record which alerts fired, as Prometheus knows them."),
    "review": ("probatum.cli.promote", "review", "Record that a second person looked at a model's evidence."),
    "waive": ("probatum.cli.promote", "waive", "Let a blocker stand for a while, by name."),
    "promote": ("probatum.cli.promote", "promote", "Move champion to the model of a completed canary."),
    "rollback": ("probatum.cli.promote", "rollback", "Take a promotion or exposure back at once."),
    "drill": ("probatum.cli.promote", "drill", "Inject faults into real services and time how soon the share is 0."),
    "lint": ("probatum.cli.promote", "lint", "Find what policies and plans promise and cannot keep."),
    "drift": ("probatum.cli.drift", "drift", "Compare the live distribution with the artifact's frozen bins."),
    "outcomes": ("probatum.cli.outcomes", "outcomes", "Judge logged decisions against what then happened."),
    "skew": ("probatum.cli.outcomes", "skew", "Prove that logged features are what batch computes."),
    "jobs": ("probatum.cli.jobs", "jobs", "List and run what a controller does by the clock."),
    "report": ("probatum.cli.jobs", "report", "Render a day or a week as pages for people."),
    "retrain": ("probatum.cli.retrain", "retrain", "Propose, attempt and replay retrainings."),
    "evidence": ("probatum.cli.evidence", "evidence", "List, show, verify and export what was proven."),
    "doctor": ("probatum.cli.doctor", "doctor", "Check that this machine has what is needed."),
    "init": ("probatum.cli.init", "init", "Write a working skeleton of a model of your own."),
}


class LazyGroup(click.Group):
    """Import a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="probatum")
def cli() -> None:
    """Take a trading model from recorded market data to live decisions through steps that must be proven.

    \b
    Examples:
      probatum run                                     the whole story on a synthetic market
      probatum run --data BTC.csv --format binance-klines
      probatum evidence verify                         recompute every figure in the ledger

    Exit codes: 0 pass, 1 fail or blocked, 2 usage, 3 inconclusive, 4 aborted, 5 confirmation required.
    """


def main() -> None:
    """Run the command line and turn an error of ours into its message and exit code."""
    try:
        # Outside standalone mode click returns the code that a command exits with, instead of exiting.
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; nothing was half written", err=True)
        sys.exit(130)
    except (ProbatumError, click.ClickException) as error:
        sys.exit(fail(error))
    except OSError as error:
        sys.exit(fail(ProbatumError(f"{error.filename or 'system'}: {error.strerror or error}")))


if __name__ == "__main__":
    main()
