"""Declare the one error tree.

::

    ProbatumError                  exit 1
    ├── InputError                 exit 2   the user's input cannot be used as it is
    │   ├── ParameterError                  a setting or argument outside its allowed range
    │   ├── DataError                       a file, row or field of market data
    │   └── UnknownNameError                a name that is not registered; lists the known ones
    ├── MissingExtraError          exit 2   an optional library is absent
    ├── IntegrityError             exit 1   bytes or figures that are not what the record says
    ├── StorageError               exit 1   the disk or database refused
    ├── BlockedError               exit 1   a gate refused
    │   └── OvertakenError                  somebody else has acted since
    ├── InconclusiveError          exit 3   too little data to decide
    ├── AbortedError               exit 4   a rollout was aborted
    └── ConfirmationError          exit 5   a confirmation is missing or void

Errors carry fields, so that a caller can act on them and ``-o json`` can print them; the message is made from the fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class ProbatumError(Exception):
    """Root of every error that Probatum raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields: dict[str, object] = {k: v for k, v in fields.items() if v is not None}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as it is: the subclasses' own arguments are not kept."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ProbatumError], args: tuple[Any, ...], state: dict[str, Any]) -> ProbatumError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InputError(ProbatumError):
    """The input cannot be used as it is; nothing was changed."""

    exit_code = 2


class ParameterError(InputError):
    """A parameter lies outside its allowed range.

    >>> raise ParameterError("alpha", "a number in (0, 1)", 2.0)
    Traceback (most recent call last):
    ...
    probatum.core.errors.ParameterError: alpha must be a number in (0, 1), got 2.0
    """

    def __init__(self, name: str, allowed: str, value: object) -> None:
        super().__init__(f"{name} must be {allowed}, got {value!r}", name=name, allowed=allowed, value=repr(value))


class DataError(InputError):
    """A file, row or field of market data cannot be used.

    >>> raise DataError("price is negative", file="a.csv", row=3, field="close", value=-1.0)
    Traceback (most recent call last):
    ...
    probatum.core.errors.DataError: a.csv, row 3, field close: price is negative (got -1.0)
    """

    def __init__(
        self,
        problem: str,
        *,
        file: object = None,
        row: int | None = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        where = ", ".join(
            part
            for part in (
                str(file) if file is not None else "",
                f"row {row}" if row is not None else "",
                f"field {field}" if field is not None else "",
            )
            if part
        )
        text = f"{where}: {problem}" if where else problem
        if value is not None:
            text = f"{text} (got {value!r})"
        super().__init__(
            text,
            problem=problem,
            file=None if file is None else str(file),
            row=row,
            field=field,
            value=None if value is None else repr(value),
        )


class UnknownNameError(InputError):
    """A name is not registered; the message lists the known ones.

    >>> raise UnknownNameError("feature set", "robus", ["robust", "book"])
    Traceback (most recent call last):
    ...
    probatum.core.errors.UnknownNameError: unknown feature set 'robus'; known: book, robust; did you mean 'robust'?
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(names) or 'none'}{hint}", kind=kind, name=name)
        self.known = names


class MissingExtraError(ProbatumError):
    """An optional library is absent; the message says how to get it."""

    exit_code = 2

    def __init__(self, extra: str, reason: str) -> None:
        super().__init__(f"{reason}; install it with: pip install 'probatum[{extra}]'", extra=extra)


class IntegrityError(ProbatumError):
    """Bytes or figures are not what the record says; ``place`` names the first bad one."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}", place=place, problem=problem)
        self.place = place


class StorageError(ProbatumError):
    """The disk or database refused; nothing was half written."""


class BlockedError(ProbatumError):
    """A gate refused, for the reasons it lists."""


class OvertakenError(BlockedError):
    """Somebody else leads or has acted since: nothing was appended; read the ledger again and decide anew."""


class InconclusiveError(ProbatumError):
    """Too little data to decide; the message says how much is missing."""

    exit_code = 3


class AbortedError(ProbatumError):
    """A rollout was aborted."""

    exit_code = 4


class ConfirmationError(ProbatumError):
    """A confirmation is missing or void."""

    exit_code = 5
