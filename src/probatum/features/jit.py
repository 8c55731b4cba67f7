"""Compile kernels with numba behind one typed wrapper, so that the rest of the tree stays under mypy --strict."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, TypeVar

import numba

from probatum.core.errors import UnknownNameError

F = TypeVar("F", bound=Callable[..., Any])

_plain = False


def jit(function: F) -> F:
    """Compile a part of a kernel, without fastmath: the compiled result equals the plain one bit by bit."""
    if _plain:
        return function
    part: F = numba.njit(function, error_model="numpy")
    return part


def entry(function: F) -> F:
    """Compile a kernel that Python calls, and keep its machine code on disk where numba finds a folder it may write to.

    Only entries are kept: parts that are cached by themselves are not inlined, which doubles the time. numba invalidates
    the cache by the module's own file only, so an entry calls no kernel of another module.
    """
    if _plain:
        return function
    try:
        compiled: F = numba.njit(function, cache=True, error_model="numpy")
    except RuntimeError:  # no folder to keep the cache in
        compiled = numba.njit(function, error_model="numpy")
    return compiled


def freeze(function: Callable[..., Any]) -> None:
    """Let a compiled function accept no new argument types: from now on it converts (an int price) or refuses."""
    if not _plain and hasattr(function, "disable_compile"):
        function.disable_compile()


def load_plain(name: str) -> ModuleType:
    """Load a second, uncompiled copy of a kernel module: the oracle for the compiled one."""
    global _plain
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise UnknownNameError("kernel module", name, ["probatum.features.kernels"])
    module = module_from_spec(spec)
    _plain = True
    try:
        spec.loader.exec_module(module)
    finally:
        _plain = False
    return module
