"""Let a command do its work on other processes: ``--engine dask``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from probatum.cli.common import F
from probatum.core.errors import ParameterError
from probatum.pipeline.ports import Mapper, OneProcess


def engine_options(command: F) -> F:
    """Add ``--engine``, ``--scheduler`` and ``--workers``, for :func:`mapper_of`."""
    for option in (
        click.option(
            "--workers", type=click.IntRange(1, 256), help="Dask workers to start on this machine.  [default: 2]"
        ),
        click.option("--scheduler", help="Address of a running Dask scheduler, such as tcp://host:8786."),
        click.option(
            "--engine",
            type=click.Choice(["serial", "dask"]),
            default="serial",
            show_default=True,
            help="Do the work in this process, or on Dask (extra dask); the results are the same.",
        ),
    ):
        command = option(command)
    return command


@contextmanager
def mapper_of(engine: str, scheduler: str | None, workers: int | None) -> Iterator[Mapper]:
    """Yield where the work is done. Raises ParameterError for options that do not fit together."""
    told: dict[str, Any] = {"scheduler": scheduler, "workers": workers}
    if (engine == "serial" and any(told.values())) or all(told.values()):
        raise ParameterError("scheduler, workers", "one of the two at most, and with --engine dask", told)
    if engine == "serial":
        yield OneProcess()
        return
    from probatum.adapters.dask import dask_mapper

    with dask_mapper(scheduler, workers or 2) as mapper:
        yield mapper
