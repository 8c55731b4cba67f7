"""Rehearse, confirm, run and stop canaries."""

from __future__ import annotations

import click

from probatum.cli.live import LIVE


@click.group()
def canary() -> None:
    """Take a model from shadow to full share in steps that are proven while they are watched.

    \b
    Examples:
      probatum canary status -w
      probatum canary abort --reason "wrong model"
    """


for _command in LIVE:
    canary.add_command(_command)
