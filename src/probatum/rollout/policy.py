"""Read policies and plans from TOML, refusing what they do not know.

The reader never opens a file of the user's: it takes text, so that the caller does the IO. Shipped policies are package data.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from probatum.core.errors import DataError, ParameterError, UnknownNameError
from probatum.rollout.plan import Plan, Policy

_FOLDER = resources.files("probatum.rollout") / "policies"
_T = TypeVar("_T", Policy, Plan)

POLICY_NAMES = ("default", "seed-v1.8")
"""The shipped policies."""


def shipped_policy(name: str) -> Policy:
    """Return a shipped policy; UnknownNameError lists the known ones.

    >>> shipped_policy("seed-v1.8").canary.shares_percent
    (5, 10, 25, 50, 100)
    """
    if name not in POLICY_NAMES:
        raise UnknownNameError("policy", name, POLICY_NAMES)
    return parse_policy((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"), place=f"{name}.toml")


def parse_policy(text: str, *, place: str) -> Policy:
    """Read a policy from TOML. Unknown keys are refused, for a misspelt limit must not become no limit.

    Raises DataError (not TOML, a wrong type, a value outside its range), naming ``place`` and the key, and UnknownNameError,
    naming the unknown key and the known ones.
    """
    return _convert(_load(text, place), Policy, place)


def parse_plan(text: str, *, place: str) -> Plan:
    """Read a plan from TOML; ``policy`` is the name of a shipped one or a table of its own."""
    data = _load(text, place)
    if isinstance(data.get("policy"), str):
        data["policy"] = msgspec.to_builtins(shipped_policy(data["policy"]))
    return _convert(data, Plan, place)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a policy file, made from the Structs; ``policies/policy.schema.json`` is a copy of it."""
    schema = msgspec.json.schema(Policy)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Probatum rollout policy", **schema}


def _load(text: str, place: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"not TOML: {error}", file=place) from None


def _convert(data: dict[str, Any], type_: type[_T], place: str) -> _T:
    _refuse_unknown(data, type_, place)
    try:
        return msgspec.convert(data, type_)
    except (msgspec.ValidationError, ParameterError) as error:
        raise DataError(str(error), file=place) from None


def _refuse_unknown(data: Mapping[str, Any], type_: type, place: str) -> None:
    hints = get_type_hints(type_)
    for key, value in data.items():
        if key not in hints:
            raise UnknownNameError(f"key in {place}", key, hints)
        for struct in _structs(hints[key]):
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    _refuse_unknown(item, struct, f"{place}: {key}")


def _structs(hint: Any) -> list[type]:
    """Return the Struct types inside a field's type."""
    if isinstance(hint, type) and get_origin(hint) is None:
        return [hint] if issubclass(hint, msgspec.Struct) else []
    return [struct for part in get_args(hint) for struct in _structs(part)]
