"""Tag a git work tree and keep its CHANGELOG.md."""

from __future__ import annotations

import subprocess
from pathlib import Path

from probatum.adapters.atomic import write_atomic
from probatum.core.errors import ParameterError, StorageError

TIMEOUT_S = 30.0
HEADING = "# Changelog"


class GitTree:
    """Mark releases in a git work tree. Implements ``pipeline.release.SourceTree``.

    Only CHANGELOG.md is committed, whatever else is changed or staged there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self._git("rev-parse", "--is-inside-work-tree")
        except StorageError:
            raise ParameterError("repo", "a folder inside a git work tree", str(root)) from None

    def mark(self, tag: str, message: str, entry: str) -> str:
        """Write the entry, commit it, tag the commit, and return its hash; a tag that is there already is refused."""
        if self._git("tag", "--list", tag):
            raise StorageError(f"{self.root}: the tag {tag} is there already", file=str(self.root))
        path = self.root / "CHANGELOG.md"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        rest = before.removeprefix(HEADING).lstrip("\n")
        write_atomic(path, f"{HEADING}\n\n{entry}\n{rest}".encode())
        self._git("add", "--", "CHANGELOG.md")
        self._git("commit", "--quiet", "--message", f"Release {tag}: {message}", "--", "CHANGELOG.md")
        self._git("tag", "--annotate", tag, "--message", message)
        return self._git("rev-parse", "HEAD")

    def _git(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(self.root), *arguments],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StorageError(f"{self.root}: git did not run: {error}", file=str(self.root)) from None
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise StorageError(
                f"{self.root}: git refused: {lines[-1] if lines else done.returncode}", file=str(self.root)
            )
        return done.stdout.strip()
