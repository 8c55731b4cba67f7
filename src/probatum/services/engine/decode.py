"""Read a body strictly: what the schema does not say is refused, and the message names the field."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

import msgspec

from probatum.services.http import RequestError

T = TypeVar("T")

_AT = re.compile(r"^(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_NAMED = re.compile(r"(?:unknown|required) field `([^`]*)`")
_EXPECTED = re.compile(r"Expected `([^`]*)`((?: of length)? [<>]=? ?[-\d.]+)?")


class Decoder:
    """Decode one kind of request. Raises RequestError: 400 for what is not JSON, 422 for what is not the schema's."""

    def __init__(self, schema: type[T]) -> None:
        self._decode = msgspec.json.Decoder(schema).decode

    def __call__(self, body: bytes) -> Any:
        """Return the request, without two values for one name."""
        value = self.decode(body)
        refuse_duplicates(body)
        return value

    def decode(self, body: bytes) -> Any:
        """Return the request; the caller sees to duplicate names."""
        try:
            return self._decode(body)
        except msgspec.ValidationError as error:
            _refuse(error, body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(400, f"body is not JSON: {error}", field="body", allowed="one JSON object") from None


def refuse_duplicates(body: bytes) -> None:
    """Refuse a body that gives one name two values (JSON parsers disagree on which of them counts).

    ``body`` has passed a decoder, so it is JSON of bounded depth.
    """
    json.loads(body, object_pairs_hook=_unique, parse_int=str, parse_float=str)


def _unique(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(422, f"{twice} is given twice", field=twice, allowed="each name once")


def _refuse(error: msgspec.ValidationError, body: bytes) -> NoReturn:
    match = _AT.match(str(error))
    problem, path = (match["problem"], match["path"] or "") if match else (str(error), "")
    field = _name_of(path, body)
    named, expected = _NAMED.search(problem), _EXPECTED.search(problem)
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
    raise RequestError(
        422,
        f"{field or 'body'}: {problem[0].lower()}{problem[1:]}",
        field=field or "body",
        allowed="".join(part for part in expected.groups() if part) if expected else None,
    ) from None


def _name_of(path: str, body: bytes) -> str:
    """Return the path with the names that msgspec leaves out of it, e.g. ``features.rsi14`` for ``.features[...]``.

    msgspec stopped at the error, so what stands behind it may be broken in any way: then the path stays as it is.
    """
    if "[...]" in path:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            path = _walk(path, body)
    return path.removeprefix(".")


def _walk(path: str, body: bytes) -> str:
    name = ""
    here: bytes | msgspec.Raw = body
    for key, index in _STEP.findall(path):
        if index.isdigit():
            here = msgspec.json.decode(here, type=list[msgspec.Raw])[int(index)]
            name += f"[{index}]"
            continue
        items = msgspec.json.decode(here, type=dict[str, msgspec.Raw])
        key = key or next((k for k, value in items.items() if not _is_number(value)), "")
        here = items.get(key, msgspec.Raw(b"null"))
        name += f".{key}"
    return name


def _is_number(value: msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(value, type=float)
    except msgspec.DecodeError:
        return False
    return True
