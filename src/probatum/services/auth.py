"""Know callers by bearer tokens of which only the SHA-256 is kept, each with one role and, where given, a name."""

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
    """Hold the digests of the tokens that are accepted, and the names of their holders.

    >>> digest = sha256_hex(b"correct horse battery staple")
    >>> tokens = Tokens({digest: Role.OPERATE}, {digest: "ada"})
    >>> tokens.require(b"Bearer correct horse battery staple", Role.VIEW)
    'ada'
    >>> tokens.require(b"Bearer guess", Role.VIEW)
    Traceback (most recent call last):
    ...
    probatum.services.http.RequestError: a token with role view is needed
    """

    def __init__(self, roles: dict[str, Role], names: dict[str, str] | None = None) -> None:
        self._roles, self._names = roles, names or {}

    def require(self, authorization: bytes | None, role: Role) -> str:
        """Return who calls; raise RequestError 401 without a known token, 403 when its role does not reach."""
        held = self.held(authorization)
        if held is None or held[0] < role:
            raise RequestError(
                403 if held else 401, f"a token with role {role.name.lower()} is needed", field="authorization"
            )
        return held[1]

    def held(self, authorization: bytes | None) -> tuple[Role, str] | None:
        """Return role and holder of a token, or None for an unknown one. One without a name is named by its digest."""
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = sha256_hex(token) if scheme.lower() == b"bearer" else ""
        found = [known for known in self._roles if hmac.compare_digest(known, digest)]
        return (self._roles[digest], self._names.get(digest, f"token {digest[:8]}")) if found else None


def read_tokens(path: Path | None) -> Tokens:
    """Read a JSON file ``{"<sha256 of the token>": "<role> [<name>]"}``, role view, operate or approve.

    Without a file nobody is accepted. Records name the holder, so give each person a token.
    """
    if path is None:
        return Tokens({})
    roles = {role.name.lower(): role for role in Role}
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (msgspec.DecodeError, OSError) as error:
        raise DataError(str(error), file=path) from None
    held: dict[str, Role] = {}
    for digest, entry in entries.items():
        role = entry.split(" ")[0]
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise DataError("not a SHA-256 in lower-case hex", file=path, field=digest[:12])
        if role not in roles:
            raise DataError(f"role must be one of {', '.join(roles)}", file=path, field=digest[:12], value=role)
        held[digest] = roles[role]
    names = {digest: entry.partition(" ")[2].strip() for digest, entry in entries.items()}
    return Tokens(held, {digest: name for digest, name in names.items() if name})
