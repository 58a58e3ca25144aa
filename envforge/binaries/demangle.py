"""C++ names as they were written, by the function every C++ program on Linux brings along.

Itanium C++ ABI, ``__cxa_demangle``: https://itanium-cxx-abi.github.io/cxx-abi/abi.html#demangler
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple


def demangle(name: str) -> str:
    """Return ``at::native::copy<float>(float*)`` for its mangled form.

    The name itself where it is none (``extern "C"``), or where there is no libstdc++.
    """
    library = _library()
    if library is None or not name.startswith("_Z"):
        return name
    status = ctypes.c_int()
    pointer = library.demangle(name.encode(), None, None, ctypes.byref(status))
    if not pointer:
        return name
    try:
        return ctypes.string_at(pointer).decode("utf-8", "replace")
    finally:
        library.free(pointer)


class _Library(NamedTuple):
    demangle: Callable[..., Any]
    free: Callable[..., Any]


@cache
def _library() -> _Library | None:
    try:
        library = ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return None
    demangle, free = library["__cxa_demangle"], library["free"]
    demangle.restype = ctypes.c_void_p
    free.argtypes = [ctypes.c_void_p]
    return _Library(demangle, free)
