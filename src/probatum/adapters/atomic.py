"""Write a file whole or not at all."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from probatum.core.errors import StorageError


def write_atomic(path: Path, data: bytes) -> None:
    """Write bytes to a temporary file in the same folder, sync it to disk and rename it into place.

    A reader sees the old file or the new one, after a crash too. Raises StorageError, naming the file, when the system
    refuses (full disk, read-only folder); the temporary file is gone then.
    """
    temp = path.with_name(f".{path.name[:200]}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temp.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temp.unlink()
        raise StorageError(f"{path}: not written: {error.strerror or error}", file=str(path)) from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
