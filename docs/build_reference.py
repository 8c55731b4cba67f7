"""Write docs/reference/cli.md from the commands themselves; a test holds the file to what this prints.

.venv/bin/python docs/build_reference.py > docs/reference/cli.md
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from probatum.cli.main import cli

HEAD = """# Command line

Written by `python docs/build_reference.py` from the commands; a test fails when they differ.

Exit codes: 0 pass, 1 fail or blocked, 2 usage, 3 inconclusive, 4 aborted, 5 confirmation required.
"""


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and everything below it, with the words that call each."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            child = command.get_command(click.Context(command), name)
            assert child is not None
            yield from commands(child, f"{path} {name}")


def reference() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for path, command in commands(cli, "probatum"):
        names = ["-h", "--help"]  # as every command inherits them from `probatum`
        with click.Context(
            command, info_name=path, max_content_width=110, terminal_width=110, help_option_names=names
        ) as context:
            parts.append(f"## `{path}`\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
