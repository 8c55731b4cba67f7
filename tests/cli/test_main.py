"""The command line as a whole: every way to fail is one message, and one JSON document where JSON was asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click
import pytest

from probatum.cli.main import cli, main


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(cli))
# These run until they are stopped, and log.
SERVICES = {("engine",), ("executor",), ("controller",), ("up",)}


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["run", "--bogus"],
        ["data", "import"],
        ["evidence", "verify", "-w", __file__],
        ["evidence", "show", "x" * 10_000],
        ["data", "check", "y\x1b[31m" * 10_000],
        ["run", "z" * 10_000],
    ],
)
@pytest.mark.parametrize("asked", [["-o", "json"], ["-ojson"], ["--output=json"]])
def test_a_mistake_is_one_json_document(
    arguments: list[str], asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage errors too: exit 2, an error class and a message of bounded length on stdout, the words on stderr."""
    monkeypatch.setattr(sys, "argv", ["probatum", *arguments, *asked])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert end.value.code == 2
    assert found["error"]
    assert 0 < len(found["message"]) <= 2_000
    assert "error" in err.lower()
    assert len(out) + len(err) < 8_000
    assert "\x1b" not in err


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_can_answer_programs(path: tuple[str, ...]) -> None:
    """What prints a result has -o."""
    command = ALL[path]
    if not isinstance(command, click.Group) and path not in SERVICES:
        assert "--output" in {option for parameter in command.params for option in parameter.opts}
