"""Sign and check with Ed25519 keys in PEM files, as ``openssl genpkey -algorithm ed25519`` writes them (extra ``sign``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from probatum.core.canonical import sha256_hex
from probatum.core.errors import MissingExtraError, ParameterError, StorageError
from probatum.pipeline.signatures import Signature

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError:
    raise MissingExtraError("sign", "signatures need the library cryptography") from None


class Signer:
    """Sign heads with the private key of a file. ParameterError where it holds none."""

    def __init__(self, path: Path) -> None:
        self._key: Ed25519PrivateKey = _load(path, Ed25519PrivateKey, serialization.load_pem_private_key, password=None)
        self.key = _digest(self._key.public_key())

    def sign(self, seq: int, head: str, ts: str) -> Signature:
        """Return the signature over a record's number and hash."""
        unsigned = Signature(seq, head, ts, self.key)
        return msgspec.structs.replace(unsigned, signature=self._key.sign(unsigned.message).hex())


class Checker:
    """Check signatures with the public key of a file. ParameterError where it holds none."""

    def __init__(self, path: Path) -> None:
        self._key: Ed25519PublicKey = _load(path, Ed25519PublicKey, serialization.load_pem_public_key)
        self.key = _digest(self._key)

    def is_valid(self, item: Signature) -> bool:
        """Say whether a signature is by this key, over just what it says."""
        try:
            self._key.verify(bytes.fromhex(item.signature), item.message)
        except (InvalidSignature, ValueError):
            return False
        return True


def append_signature(path: Path, item: Signature) -> None:
    """Append one line and sync it; StorageError where the disk refuses."""
    try:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(item) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}", file=str(path)) from None


def _load(path: Path, type_: Any, load: Any, **options: Any) -> Any:
    name = "key" if type_ is Ed25519PrivateKey else "public_key"
    try:
        key = load(path.read_bytes(), **options)
    except TypeError:
        raise ParameterError(name, "a key without a password", str(path)) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, type_):
        raise ParameterError(name, f"a PEM file with an {type_.__name__.removeprefix('Ed25519')} of Ed25519", str(path))
    return key


def _digest(key: Ed25519PublicKey) -> str:
    return sha256_hex(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))
