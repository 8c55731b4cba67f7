"""Keep what the chain exports in plain files under one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from probatum.adapters.atomic import write_atomic
from probatum.core.errors import ParameterError, StorageError


class EvidenceFiles:
    """Write and read ``evidence/ml``. Each file is replaced whole; what was exported before and is no more stays."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Return where a file lives; its name is relative and leads nowhere else."""
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
            raise ParameterError("name", "a relative path of plain parts", name)
        return self.root.joinpath(*parts)

    def write(self, files: Mapping[str, bytes]) -> list[Path]:
        """Write the files that changed and return the paths of all. Raises StorageError, naming the first refused."""
        paths = []
        for name, data in files.items():
            path = self.path(name)
            if not path.is_file() or path.read_bytes() != data:
                write_atomic(path, data)
            paths.append(path)
        return paths

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None where there is none."""
        path = self.path(name)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"{path}: not read: {error.strerror or error}", file=str(path)) from None

    def names(self) -> list[str]:
        """List the files that are there, sorted, those of half-finished writes left out."""
        found = (path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self.root).as_posix() for path in found)
