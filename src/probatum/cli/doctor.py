"""Look whether this machine has what Probatum needs, before something else fails for want of it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import click

from probatum.cli.common import output_option, print_json, print_table, workspace_option
from probatum.core.errors import BlockedError, ProbatumError
from probatum.core.verdict import Verdict

FREE_MIN_GB = 1.0
PROGRAMS = {
    "promtool": "rules are checked by it",
    "prometheus": "live measurements over several replicas",
    "prometheus-alertmanager": "alerts reach the ledger through it",
    "chromium": "pictures of the dashboard in the evidence",
}
SERVICES = {"engine": (4010, "/ml/ready"), "executor": (4001, "/ready"), "controller": (4020, "/health")}
_EXTRA = re.compile(r"^([A-Za-z0-9_.-]+).*extra == ['\"]([a-z]+)['\"]")


class Finding(NamedTuple):
    """Hold what was found of one thing. ``verdict`` is None where it is optional and absent."""

    name: str
    verdict: Verdict | None
    found: str
    mend: str = ""


@click.command()
@workspace_option
@output_option
def doctor(workspace: Path, output: str) -> None:
    """Check Python, libraries, disk, ledger, programs and services. Exits 1 where something needed is missing.

    What is optional and absent is shown with `-`, and with what would bring it.

    \b
    Examples:
      probatum doctor
      probatum doctor -w /srv/probatum -o json
    """
    found = [*_python(), *_extras(), *_disk(workspace), *_ledger(workspace), *_programs(), *_services()]
    if output == "json":
        print_json([item._asdict() for item in found])
    else:
        rows = [(item.name, item.verdict or "-", item.found, item.mend) for item in found]
        print_table("", ["what", "verdict", "found", "would mend it"], rows)
    failed = [item.name for item in found if item.verdict is Verdict.FAIL]
    if failed:
        raise BlockedError(f"not fit to run: {', '.join(failed)}")


def _python() -> Iterator[Finding]:
    running = ".".join(map(str, sys.version_info[:3]))
    fit = sys.version_info >= (3, 11)
    yield Finding("python", Verdict.PASS if fit else Verdict.FAIL, running, "" if fit else "Python 3.11 or later")
    yield Finding("probatum", Verdict.PASS, version("probatum"))


def _extras() -> Iterator[Finding]:
    """Yield each extra with the versions of its libraries, read from the package's own metadata."""
    wanted: dict[str, list[str]] = {}
    for line in requires("probatum") or []:
        if match := _EXTRA.match(line):
            wanted.setdefault(match[2], []).append(match[1])
    for extra, names in sorted(wanted.items()):
        try:
            shown = ", ".join(f"{name} {version(name)}" for name in names)
        except PackageNotFoundError as error:
            yield Finding(f"extra {extra}", None, f"no {error.name}", f"pip install 'probatum[{extra}]'")
        else:
            yield _loads(extra, shown)


def _loads(extra: str, shown: str) -> Finding:
    if extra == "trees":
        try:
            import lightgbm  # noqa: F401
        except OSError as error:  # its wheel needs the system's libgomp
            return Finding(f"extra {extra}", Verdict.FAIL, str(error), "apt install libgomp1")
    return Finding(f"extra {extra}", Verdict.PASS, shown)


def _disk(workspace: Path) -> Iterator[Finding]:
    place = next(path for path in (workspace.absolute(), *workspace.absolute().parents) if path.exists())
    free_gb = shutil.disk_usage(place).free / 1e9
    roomy = free_gb >= FREE_MIN_GB
    mend = "" if roomy else f"at least {FREE_MIN_GB:g} GB"
    yield Finding("disk", Verdict.PASS if roomy else Verdict.FAIL, f"{free_gb:,.1f} GB free at {place}", mend)
    try:
        with tempfile.TemporaryFile(dir=place):
            yield Finding("workspace", Verdict.PASS, f"{workspace} can be written")
    except OSError as error:
        yield Finding("workspace", Verdict.FAIL, f"{place}: {error.strerror}", "a folder that may be written")


def _ledger(workspace: Path) -> Iterator[Finding]:
    from probatum.cli.workspace import LEDGER_URL, Workspace

    if not os.environ.get(LEDGER_URL) and not (workspace / "ledger.db").exists():
        yield Finding("ledger", None, "none yet", "it is made by the first record")
        return
    try:
        head = Workspace(workspace).ledger.head()
        yield Finding("ledger", Verdict.PASS, f"head {head[:12]}… (`probatum evidence verify` recomputes it)")
    except ProbatumError as error:
        yield Finding("ledger", Verdict.FAIL, error.message, "a database that answers")


def _programs() -> Iterator[Finding]:
    for name, use in PROGRAMS.items():
        place = shutil.which(name)
        yield Finding(
            name, Verdict.PASS if place else None, place or "not installed", "" if place else f"install it: {use}"
        )


def _services() -> Iterator[Finding]:
    for name, (port, path) in SERVICES.items():
        url = f"http://127.0.0.1:{port}{path}"
        try:
            with urlopen(url, timeout=1) as reply:
                yield Finding(name, Verdict.PASS, f"{url} answers {reply.status}")
        except (URLError, OSError) as error:
            yield Finding(name, None, f"{url}: {getattr(error, 'reason', error)}", f"probatum {name}")
