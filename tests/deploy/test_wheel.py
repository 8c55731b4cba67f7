"""Install the wheel in an environment of its own, away from the repository, and tell the story there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from probatum.adapters.store import PROVENANCE_KEY
from probatum.testing.models import toy_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with what the lock holds, and no network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, check=True, capture_output=True, cwd=ROOT)
    (found,) = folder.glob("probatum-*.whl")
    return found


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    """Code, pages, policies, vendored assets and py.typed: what lies under src is packed, and nothing else."""
    source = ROOT / "src"
    there = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {path for path in there if path.endswith((".j2", ".js", ".css", ".toml", ".json", "py.typed"))}
    assert packed == there


def test_the_installed_wheel_tells_the_story(wheel: Path, tmp_path: Path) -> None:
    """`probatum run` in a clean environment: its code is the wheel's, the chain verifies, the report is there."""
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--no-index", "--no-deps", wheel], check=True, capture_output=True)
    # The dependencies are those of this environment: a .pth adds the folder, whose own .pth files are not read.
    site = next((home / "lib").glob("python*")) / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PROBATUM", "VIRTUAL"))}
    where = "import probatum, sys; print(probatum.__file__, *sys.path, sep='\\n')"
    code, *path = subprocess.run(
        [python, "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path, env=clean
    ).stdout.splitlines()
    assert Path(code).is_relative_to(site)
    assert not [folder for folder in path if Path(folder or tmp_path).is_relative_to(ROOT / "src")]
    toy_dataset(days=8).bars.write_parquet(tmp_path / "TOY.parquet", metadata={PROVENANCE_KEY: "synthetic"})  # type: ignore[union-attr]
    done = subprocess.run(
        [home / "bin" / "probatum", "run", "--data", "TOY.parquet", "--format", "parquet", "--symbol", "TOY",
         "--workspace", "story"],
        capture_output=True, text=True, cwd=tmp_path, env=clean,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "all data are SYNTHETIC" in done.stdout
    assert "chain verifies" in done.stdout
    assert (tmp_path / "story" / "evidence" / "ml" / "report.html").stat().st_size > 10_000
