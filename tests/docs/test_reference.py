"""The docs say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from probatum.core.verdict import Provenance, Verdict

ROOT = Path(__file__).parents[2]


def _build_reference() -> str:
    """Run the script as a person would: in its own process, for click keeps the help option of a command once called."""
    script = ROOT / "docs" / "build_reference.py"
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout


def test_cli_reference_is_what_the_commands_say() -> None:
    """docs/reference/cli.md is the help of every command, word for word."""
    assert (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8") == _build_reference()


def test_every_command_shows_examples() -> None:
    """Each command that does something shows how it is called."""
    sections = _build_reference().split("\n## `")[1:]
    assert [section.split("`")[0] for section in sections if "Examples:" not in section] == []


def test_glossary_names_every_verdict_and_class() -> None:
    """The glossary holds the words that records use."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert [word for word in (*Verdict, *Provenance) if f"`{word.value}`" not in text] == []


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link in a page leads to a file that is there."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
