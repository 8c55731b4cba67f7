"""Share what every command needs: where the workspace is, how results are printed, how long work shows."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import click

from probatum.core.errors import ProbatumError

F = TypeVar("F", bound=Callable[..., Any])


def workspace_option(command: F, *, short: tuple[str, ...] = ("-w",)) -> F:
    """Add ``--workspace``: the folder that holds data, blobs, ledger and evidence."""
    return click.option(
        "--workspace",
        *short,
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("workspace"),
        envvar="PROBATUM_WORKSPACE",
        show_default=True,
        show_envvar=True,
        help="Folder of data, artifacts, ledger and evidence.",
    )(command)


def output_option(command: F) -> F:
    """Add ``-o``: a table for people, JSON for programs."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="What to print.",
    )(command)


class FiniteRange(click.FloatRange):
    """Take a number in a range; NaN, which compares with nothing, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def fail(error: ProbatumError | click.ClickException) -> int:
    """Print an error (as JSON on stdout where ``-o json`` was asked for) and return its exit code."""
    fields = error.fields if isinstance(error, ProbatumError) else {}
    text = error.format_message() if isinstance(error, click.ClickException) else error.message
    message = _bounded(text)
    if _asks_for_json(sys.argv[1:]):
        shown = {key: _bounded(value) if isinstance(value, str) else value for key, value in fields.items()}
        click.echo(json.dumps({"error": type(error).__name__, "message": message, **shown}, default=str))
    if isinstance(error, click.ClickException) and message == text:
        error.show()
    else:
        click.echo(f"error: {message}", err=True)
    return error.exit_code


def _bounded(text: str) -> str:
    return text if len(text) <= _MESSAGE_MAX else f"{text[: _MESSAGE_MAX // 2]} … {text[-_MESSAGE_MAX // 4 :]}"


def _asks_for_json(arguments: Sequence[str]) -> bool:
    together = {"-ojson", "--output=json"}.intersection(arguments)
    return bool(together or {("-o", "json"), ("--output", "json")}.intersection(pairwise(arguments)))


_MESSAGE_MAX = 2_000  # characters: a name from outside may be of any length


def print_json(value: Any) -> None:
    """Print a result for programs: one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_written(path: Path, output: str) -> None:
    """Print where a file was written."""
    print_json({"path": str(path)}) if output == "json" else click.echo(path)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a result for people. Cells are plain text: names from outside cannot style the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*[Text(_plain(str(cell)), style=_STYLE.get(str(cell), "")) for cell in row])
    _console().print(table)


def _plain(text: str) -> str:
    """Spell out control characters: an escape sequence in a name is shown, not obeyed."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


_STYLE = {"PASS": "green", "FAIL": "red", "ERROR": "red", "INCONCLUSIVE": "yellow", "BLOCKED": "red"}


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)


@contextmanager
def progress(enabled: bool = True) -> Iterator[Any]:
    """Show progress bars on stderr; yields a ``pipeline.ports.Progress``. Silent where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not enabled or not sys.stderr.isatty(),
    )
    with bars:
        yield _Bars(bars)


class _Bars:
    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def step(self, description: str, done: int, total: int) -> None:
        if description not in self._tasks:
            self._tasks[description] = self._bars.add_task(description, total=total)
        self._bars.update(self._tasks[description], completed=done, total=total)
