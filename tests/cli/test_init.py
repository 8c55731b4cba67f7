"""The skeleton that users start from works: its own test passes, it installs, and it trains through the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT, run

import pytest
from click.testing import CliRunner

from probatum.cli.init import init, write_model
from probatum.core.errors import ParameterError, StorageError

TRAIN = """
from probatum.pipeline import gate, training
from probatum.pipeline.verify import verify
from probatum.testing.fakes import MemoryLedger, MemorySources
from probatum.testing.models import toy_dataset

sources, ledger = MemorySources([toy_dataset(days=5)]), MemoryLedger()
plan = training.TrainingPlan(symbols=("TOY",), set="robust", target="large_move@60s", model="naive-bayes")
trained = training.train(ledger, sources, plan)
assert trained.artifact.model.entry_point == "naive-bayes"
record = gate.run_gate(ledger, sources, trained.digest)
assert record.body["figures"]["auc"] > 0.55, record
print("verified", verify(ledger, sources).ok)
"""


def call(*arguments: str, cwd: Path, path: Path) -> str:
    """Run a command with ``path`` importable and return its output; a failure shows it."""
    done = run(
        arguments,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_skeleton_passes_its_test_installs_and_trains(tmp_path: Path) -> None:
    """init → its own test → pip install --target → ``probatum train --model`` → gate record, each a process of its own."""
    folder = tmp_path / "made" / "naive-bayes"
    result = CliRunner().invoke(init, ["model", "naive-bayes", str(folder)])
    assert result.exit_code == 0, result.output
    assert "2 passed" in call(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder, path=folder / "src"
    )
    target = tmp_path / "site"
    install = (
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
        str(folder),
    )
    call(sys.executable, "-m", *install, cwd=tmp_path, path=folder / "src")
    assert "verified True" in call(sys.executable, "-c", TRAIN, cwd=tmp_path, path=target)


@pytest.mark.parametrize(
    "name", ["", "Model", "a b", "../x", "x" * 41, "class", "logistic", "probatum", "-a", "a--b", "a\n"]
)
def test_unfit_names_are_refused(name: str, tmp_path: Path) -> None:
    """A name that is no package name, or is taken, is refused and nothing is written."""
    with pytest.raises(ParameterError):
        write_model(name, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    """A folder that holds something, or a file, is not written into."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name in ("used", "file"):
        with pytest.raises(ParameterError, match="new or empty"):
            write_model("my-model", tmp_path / name)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "mine.txt", "used"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up half-way leaves neither folder nor temporary files."""

    def full(self: Path, *args: object, **kwargs: object) -> int:  # noqa: ARG001
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError, match="No space"):
        write_model("my-model", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
