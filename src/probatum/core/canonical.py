"""Give every value one spelling in bytes, so that a digest names it.

Canonical JSON is RFC 8785 (JCS): keys sorted, shortest numbers, no white space.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import rfc8785

from probatum.core.errors import ParameterError


def canonical_json(value: Any) -> bytes:
    """Return the RFC 8785 bytes of a JSON value.

    Integers must lie within ±(2**53 − 1), as the RFC demands; times go through :func:`probatum.core.clock.format_utc`.
    NaN and infinity are refused: a figure that is not a number is no figure.

    >>> canonical_json({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise ParameterError("value", f"canonical JSON (RFC 8785: {error})", type(value).__name__) from None


def parse_json(data: bytes) -> Any:
    """Read JSON into the value whose canonical bytes are the ones read: the inverse of :func:`canonical_json`.

    A float such as 1e20 is spelt as an integer in canonical JSON; beyond 2**53 it is read as the float it was.
    Raises ValueError (JSON, UTF-8) for anything else, NaN and infinity among them.

    >>> canonical_json(parse_json(canonical_json({"volume": 1e20, "n": 3})))
    b'{"n":3,"volume":100000000000000000000}'
    """
    try:
        return json.loads(data.decode(), parse_int=_integer, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(text: str) -> int | float:
    value = int(text) if len(text) <= 17 else float(text)
    return value if abs(value) < 2**53 else float(value)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    return sha256_hex(canonical_json(value))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
