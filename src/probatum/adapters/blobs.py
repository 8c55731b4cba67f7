"""Keep artifacts and predictions in files named by the digest of their bytes."""

from __future__ import annotations

from pathlib import Path

from probatum.adapters.atomic import write_atomic
from probatum.core.canonical import sha256_hex
from probatum.core.errors import IntegrityError, ParameterError, StorageError, UnknownNameError
from probatum.pipeline.kinds import BLOB_KINDS


class FileBlobs:
    """Store bytes as ``<root>/<kind>/<digest>.<ext>``. Implements ``pipeline.ports.Blobs``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, digest: str) -> Path:
        """Return where a blob lives; the digest must be 64 hex digits, so that no name leads out of the root."""
        if kind not in BLOB_KINDS:
            raise UnknownNameError("kind of blob", kind, BLOB_KINDS)
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ParameterError("digest", "64 lower-case hex digits", digest)
        return self.root / kind / f"{digest}.{BLOB_KINDS[kind]}"

    def put(self, kind: str, data: bytes) -> str:
        """Store bytes and return their SHA-256. A file that is there already but damaged is written anew."""
        digest = sha256_hex(data)
        path = self.path(kind, digest)
        try:
            same = path.read_bytes() == data
        except OSError:
            same = False
        if not same:
            write_atomic(path, data)
        return digest

    def get(self, kind: str, digest: str) -> bytes:
        """Return the bytes, verified; IntegrityError names the file when it is missing or changed."""
        path = self.path(kind, digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise IntegrityError(str(path), "the file is missing") from None
        except OSError as error:
            raise StorageError(f"{path}: not read: {error.strerror or error}", file=str(path)) from None
        if sha256_hex(data) != digest:
            raise IntegrityError(str(path), f"the bytes were changed: their digest is {sha256_hex(data)[:12]}…")
        return data
