"""Write working skeletons for users' own parts."""

from __future__ import annotations

import keyword
import re
import shutil
import tempfile
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from probatum.cli.common import output_option, print_json
from probatum.core.errors import ParameterError, StorageError
from probatum.models.scoring import ENTRY_POINTS

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "src/{package}/model.py": "model.py.txt",
    "tests/test_model.py": "test_model.py.txt",
}


@click.group()
def init() -> None:
    """Write a working skeleton of a model of your own.

    \b
    Examples:
      probatum init model my-model ./my-model
    """


@init.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@output_option
def model(name: str, folder: Path, output: str) -> None:
    """Write a package with a model called NAME, its entry point and its test, to a new FOLDER.

    \b
    Examples:
      probatum init model my-model ./my-model
      pip install -e ./my-model && probatum train BTCUSDT --model my-model
    """
    write_model(name, folder)
    next_steps = [f"pip install -e {folder}", f"python -m pytest {folder}", f"probatum train SYMBOL --model {name}"]
    if output == "json":
        print_json({"path": str(folder), "next": next_steps})
    else:
        click.echo(f"wrote {folder}: {'; '.join(next_steps)}")


def write_model(name: str, folder: Path) -> None:
    """Write the package, whole or not at all. Raises ParameterError for a name or folder that is taken or unfit."""
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > 40 or keyword.iskeyword(package):
        raise ParameterError("name", "lower-case words joined by '-', at most 40 characters, no keyword", name)
    if name in (taken := entry_points(group=ENTRY_POINTS).names) or package == "probatum":
        raise ParameterError("name", f"none that is taken ({', '.join(sorted(taken))})", name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParameterError("folder", "new or empty", str(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from None
    try:
        for target, source in _FILES.items():
            path = staged / target.format(package=package)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (files("probatum.cli") / "skeleton" / source).read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(name=name, package=package), encoding="utf-8")
        (staged / "src" / package / "__init__.py").touch()
        staged.chmod(0o755)
        staged.rename(folder)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
