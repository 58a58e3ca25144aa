"""What code each of two subjects has that the other lacks, library by library."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath
from typing import NamedTuple

from envforge.binaries.library import Library
from envforge.binaries.subject import Subject

_BUNDLED = re.compile(r"-[0-9a-f]{8,}(?=[.-])")
"""What auditwheel puts into the name of a library it bundles: libcudart-f7fdd8d7.so.9.0."""
_PYTHON = re.compile(r"\.(?:cpython|pypy|cp)[\w-]*(?=\.so\Z)|\.abi3(?=\.so\Z)")
"""The Python an extension was built for."""


class CodeDifference(NamedTuple):
    """Codes that one side has and the other lacks, as ``sm_35``."""

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


class LibraryDifference(NamedTuple):
    """A library whose code differs, or that only one side has."""

    name: str
    first: str | None
    """Its path in the first subject; None where there is no such library with device code."""
    second: str | None
    roles: dict[str, CodeDifference]
    """By role: what the kernels of that role carry throughout. Only roles that differ."""
    images: CodeDifference
    """What stands anywhere in the file: the listing."""


def compare_libraries(first: Subject, second: Subject) -> tuple[LibraryDifference, ...]:
    """Return the libraries that differ, in order of their names.

    Libraries are paired by name, without the hash of a bundled one and the Python of an
    extension; by path inside the subject where a name occurs twice. Two subjects of one library
    each are paired whatever they are called.
    """
    pairs = _pairs(first, second)
    found = (_compare(name, *pair) for name, pair in sorted(pairs.items()))
    return tuple(one for one in found if one is not None)


_Pair = tuple[Library | None, Library | None]


def _pairs(first: Subject, second: Subject) -> dict[str, _Pair]:
    if len(first.libraries) == len(second.libraries) == 1:
        (one,), (other,) = first.libraries, second.libraries
        return {PurePath(one.path).name: (one, other)}
    names = [Counter(_name(library.path) for library in side.libraries) for side in (first, second)]
    twice = {name for counts in names for name, count in counts.items() if count > 1}
    left, right = _by_key(first, twice), _by_key(second, twice)
    return {key: (left.get(key), right.get(key)) for key in left.keys() | right.keys()}


def _by_key(subject: Subject, twice: set[str]) -> dict[str, Library]:
    return {_key(library.path, subject.path, twice): library for library in subject.libraries}


def _key(path: str, root: str, twice: set[str]) -> str:
    name = _name(path)
    if name not in twice:
        return name
    inside = PurePath(path.removeprefix(root).lstrip("/"))
    # site-packages of an environment or image and the root of a wheel hold the same.
    parts = inside.parts
    for place in ("site-packages", "dist-packages"):
        if place in parts:
            parts = parts[parts.index(place) + 1 :]
    return str(PurePath(*parts[:-1], name))


def _name(path: str) -> str:
    return _PYTHON.sub("", _BUNDLED.sub("", PurePath(path).name))


def _compare(name: str, first: Library | None, second: Library | None) -> LibraryDifference | None:
    sides = [_codes_by_role(library) for library in (first, second)]
    both = {
        role: _differ(*(side.get(role, ()) for side in sides)) for role in {**sides[0], **sides[1]}
    }
    roles = {role: found for role, found in both.items() if any(found)}
    images = _differ(*(library.counts if library else () for library in (first, second)))
    if first and second and not roles and not any(images):
        return None
    return LibraryDifference(
        name, first.path if first else None, second.path if second else None, roles, images
    )


def _codes_by_role(library: Library | None) -> dict[str, tuple[str, ...]]:
    parts = library.parts if library else ()
    return {part.role: tuple(map(str, part.carried())) for part in parts}


def _differ(first: Iterable[str], second: Iterable[str]) -> CodeDifference:
    left, right = list(first), list(second)
    return CodeDifference(
        tuple(code for code in left if code not in right),
        tuple(code for code in right if code not in left),
    )
