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
    """Compile a function on its first call, without fastmath: the compiled result equals the plain one bit by bit.

    The machine code is kept on disk where numba finds a folder it may write to. numba invalidates that cache by the
    module's own file only, so a kernel calls no kernel of another module.
    """
    return _compile(function, {"error_model": "numpy"})


def lean(function: F) -> F:
    """Compile, as :func:`jit` does, a function that allocates nothing: it need not count references to its arrays.

    That halves the time of a feature update. ``_nrt`` is numba's own name for it; one that drops it will say so.
    """
    return _compile(function, {"error_model": "numpy", "_nrt": False})


def melt(function: F) -> F:
    """Compile, as :func:`lean` does, a function of the common path into each of its callers.

    A call passes every array as seven arguments: without calls a feature update takes 32 instead of 43 ns.
    """
    return _compile(function, {"error_model": "numpy", "_nrt": False, "forceinline": True})


def _compile(function: F, options: dict[str, Any]) -> F:
    if _plain:
        return function
    try:
        compiled: F = numba.njit(function, cache=True, **options)
    except RuntimeError:  # no folder to keep the cache in
        compiled = numba.njit(function, **options)
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
