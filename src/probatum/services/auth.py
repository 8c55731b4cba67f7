"""Know callers by bearer tokens of which only the SHA-256 is kept, each with one role."""

from __future__ import annotations

import hmac
from enum import IntEnum
from pathlib import Path

import msgspec

from probatum.core.canonical import sha256_hex
from probatum.core.errors import DataError
from probatum.services.http import RequestError


class Role(IntEnum):
    """Name what a caller may do; each role includes the ones before it."""

    VIEW = 1
    OPERATE = 2
    APPROVE = 3


class Tokens:
    """Hold the digests of the tokens that are accepted.

    >>> tokens = Tokens({sha256_hex(b"correct horse battery staple"): Role.OPERATE})
    >>> tokens.require(b"Bearer correct horse battery staple", Role.VIEW)
    >>> tokens.require(b"Bearer guess", Role.VIEW)
    Traceback (most recent call last):
    ...
    probatum.services.http.RequestError: a token with role view is needed
    """

    def __init__(self, roles: dict[str, Role]) -> None:
        self._roles = roles

    def require(self, authorization: bytes | None, role: Role) -> None:
        """Raise RequestError 401 without a known token, 403 when its role does not reach."""
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = sha256_hex(token) if scheme.lower() == b"bearer" else ""
        found = [held for known, held in self._roles.items() if hmac.compare_digest(known, digest)]
        if not found or found[0] < role:
            raise RequestError(
                403 if found else 401, f"a token with role {role.name.lower()} is needed", field="authorization"
            )


def read_tokens(path: Path | None) -> Tokens:
    """Read a JSON file ``{"<sha256 of the token>": "view" | "operate" | "approve"}``; without one nobody is accepted."""
    if path is None:
        return Tokens({})
    names = {role.name.lower(): role for role in Role}
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except msgspec.DecodeError as error:
        raise DataError(str(error), file=path) from None
    for digest, name in entries.items():
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise DataError("not a SHA-256 in lower-case hex", file=path, field=digest[:12])
        if name not in names:
            raise DataError(f"role must be one of {', '.join(names)}", file=path, field=digest[:12], value=name)
    return Tokens({digest: names[name] for digest, name in entries.items()})
