"""Training, gate and registry from the command line: what a person types, reads and gets as an exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from probatum.cli.main import cli
from probatum.cli.workspace import Workspace
from probatum.core.errors import InputError, IntegrityError, ProbatumError
from probatum.pipeline.verify import verify
from probatum.testing.models import toy_dataset


def call(workspace: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "-w", str(workspace)])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a workspace with a toy market and one trained model."""
    root = tmp_path_factory.mktemp("workspace")
    Workspace(root).datasets.save(toy_dataset(days=6))
    trained = call(root, "train", "TOY", "--name", "m1")
    assert trained.exit_code == 0, trained.output
    assert "probatum gate m1" in trained.output
    return root


def test_the_exit_code_is_the_verdict(workspace: Path) -> None:
    """gate prints each check and exits 0, 1 or 3; the seed's files are written, the verdict on the first line."""
    result = call(workspace, "gate", "m1")
    report = json.loads((workspace / "evidence/ml/offline_report.json").read_text())
    assert result.exit_code == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[report["verdict"]]
    assert "precision_at_20" in result.output
    assert "SYNTHETIC" in result.output
    assert (workspace / "evidence/ml/eval_result.txt").read_text().split("\n")[0] == report["verdict"]
    again = call(workspace, "gate", "m1", "-o", "json")
    assert json.loads(again.stdout)["auc"] == report["auc"]


def test_a_refused_model_exits_1_and_says_why(workspace: Path) -> None:
    """A direction model on a market without direction is refused, with a reason and what would settle it."""
    assert call(workspace, "train", "TOY", "--target", "direction@60s", "--name", "d1").exit_code == 0
    result = call(workspace, "gate", "d1")
    assert result.exit_code == 1
    assert re.search(
        r"auc: the area under the ROC curve is 0\.\d+, at best 0\.\d+; must be at least 0.62; would settle it: another model",
        result.output,
    )


def test_levels_are_warned_of_on_stderr(workspace: Path) -> None:
    """The warning does not disturb the JSON on stdout."""
    result = call(workspace, "train", "TOY", "--set", "v1.8-b0", "--model", "fixed", "--name", "b0", "-o", "json")
    assert json.loads(result.stdout)["name"] == "b0"
    assert "warning: mid is a level" in result.stderr


def test_models_are_listed_shown_and_aliased(workspace: Path) -> None:
    """ls, show and alias agree on name and digest; an alias then stands for the model."""
    listed = json.loads(call(workspace, "models", "ls", "-o", "json").stdout)
    digest = next(item["digest"] for item in listed if item["name"] == "m1")
    assert f"challenger is {digest[:12]}" in call(workspace, "models", "alias", "challenger", "m1").output
    assert json.loads(call(workspace, "models", "show", "challenger", "-o", "json").stdout)["digest"] == digest
    assert "log_rv10_rv60" in call(workspace, "models", "show", digest[:8]).output
    assert "challenger" in call(workspace, "models", "ls").output


def test_everything_is_verified(workspace: Path) -> None:
    """What the commands appended is recomputed from the stored data without a difference."""
    place = Workspace(workspace)
    found = verify(place.ledger, place)
    assert found.ok, found.findings
    assert found.figures_checked == found.records > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "NONE"), "NONE"),
        (("train", "TOY", "--shuffle"), "leak"),
        (("train", "TOY", "--model", "logistics"), "did you mean 'logistic'"),
        (("train", "TOY", "--set", "robus"), "did you mean 'robust'"),
        (("train", "TOY", "--target", "up"), "direction@H"),
        (("train", "TOY", "--grid", "1 s"), "grid must be like"),
        (("train", "TOY", "--grid", "1s"), "one-minute bars"),
        (("train", "TOY", "--name", "../../x"), "name must be"),
        (("gate", "nothing"), "unknown model"),
        (("gate", "m1", "--cost-bp", "-3"), "cost_bp"),
        (("models", "alias", "winner", "m1"), "champion"),
        (("models", "show", "nothing"), "unknown model"),
    ],
)
def test_mistakes_get_a_message_and_exit_2(workspace: Path, arguments: tuple[str, ...], message: str) -> None:
    """A user's mistake is named, and nothing is appended."""
    before = Workspace(workspace).ledger.head()
    error = call(workspace, *arguments).exception
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    assert message in error.message
    assert Workspace(workspace).ledger.head() == before


def test_an_edited_artifact_is_named(tmp_path: Path) -> None:
    """One flipped byte in a stored artifact stops the gate with the file's name and exit code 1."""
    Workspace(tmp_path).datasets.save(toy_dataset(days=3))
    assert call(tmp_path, "train", "TOY", "--name", "m1").exit_code == 0
    (path,) = (tmp_path / "blobs").rglob("*.json")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    error = call(tmp_path, "gate", "m1").exception
    assert isinstance(error, IntegrityError)
    assert isinstance(error, ProbatumError)
    assert path.name[:12] in error.message
