"""Every fault of a recipe document at once, each with its path.

Reported one at a time they would cost the recipe's author a round for every line.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from envforge.errors import EnvforgeError
from envforge.recipes.document import Recipe
from envforge.recipes.setting import PLACES, placeholders, read_setting
from envforge.values import VersionRange

_NAME = re.compile(r"[a-z][a-z0-9-]*\Z")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]*\Z")

_GROUPS = {
    "progress": ({"step"}, {"total", "seconds", "losses"}),
    "loss": ({"name", "value"}, set()),
    "check": ({"name", "outcome"}, {"words"}),
    "checkpoint": ({"path"}, set()),
    "resumed": ({"step"}, {"path"}),
    "stopped": (set(), {"step"}),
}
"""Each pattern's groups: those it must have, those it may have."""


def faults_of_form(document: Any, kind: Any, path: str = "") -> Iterator[str]:
    """Yield what keeps plain data from becoming ``kind``: keys, types, in every nested part."""
    part = _struct_of(kind)
    if part is None or document is None:
        yield from _fault_of_value(document, kind, path)
    elif not isinstance(document, dict):
        yield f"{path or 'document'}: expected keys and values"
    elif part is dict:
        for key, value in document.items():
            yield from faults_of_form(value, typing.get_args(kind)[1], f"{path}.{key}")
    else:
        yield from _faults_of_keys(document, part, path)


def _struct_of(kind: Any) -> Any:
    """Find the part behind a type: a Struct, ``dict`` of Structs, or None for a plain value."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    members = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return next((member for member in members if _struct_of(member)), None)
    return dict if typing.get_origin(kind) is dict and _struct_of(members[1]) else None


def _fault_of_value(value: Any, kind: Any, path: str) -> Iterator[str]:
    try:
        msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        yield f"{path or 'document'}: {str(error).replace('`', '')}"


def _faults_of_keys(document: dict[Any, Any], part: Any, path: str) -> Iterator[str]:
    dot = f"{path}." if path else ""
    kinds = typing.get_type_hints(part)
    fields = {field.name: field for field in msgspec.structs.fields(part)}
    for key in document:
        if key not in fields:
            yield f"{dot}{key}: unknown key; there are {', '.join(fields)}"
    for name, field in fields.items():
        if name in document:
            yield from faults_of_form(document[name], kinds[name], f"{dot}{name}")
        elif field.required:
            yield f"{dot}{name}: is missing"


def faults_of_sense(recipe: Recipe, folder: Path) -> Iterator[str]:
    """Yield what a well-formed recipe still gets wrong: patterns, placeholders, names, places."""
    if not _NAME.match(recipe.name) or recipe.name != folder.resolve().name:
        yield f"name: must be the folder's name in small letters, got {recipe.name!r}"
    yield from _faults_of_torch(recipe.torch)
    yield from _faults_of_places(recipe, folder)
    yield from _faults_of_patterns(recipe)
    yield from _faults_of_parameters(recipe)
    yield from _faults_of_command(recipe)
    for name in ("shm_size_mib", "stop_wait_s"):
        if getattr(recipe, name) < 1:
            yield f"{name}: must be at least 1"
    if recipe.success.line is None and recipe.success.result is None:
        yield "success: must name a line or a result, else nothing says what was reached"


def _faults_of_torch(text: str) -> Iterator[str]:
    try:
        if VersionRange.parse(text).upper is None:
            yield f"torch: {text!r} has no upper bound"
    except ValueError as error:
        yield f"torch: {error}"


def _faults_of_places(recipe: Recipe, folder: Path) -> Iterator[str]:
    result = recipe.success.result
    inside = {"files": (recipe.files,), "checkpoints": (recipe.checkpoints,), "show": recipe.show}
    inside["success.result.file"] = (result.file,) if result else ()
    for name, places in inside.items():
        for place in places:
            if not place or place.startswith("/") or ".." in PurePosixPath(place).parts:
                yield f"{name}: {place!r} must be a path below its folder"
    if not (folder / recipe.files).is_dir():
        yield f"files: there is no folder {recipe.files!r} beside the document"


def _faults_of_patterns(recipe: Recipe) -> Iterator[str]:
    for name, (must, may) in _GROUPS.items():
        pattern = getattr(recipe.log, name)
        if pattern is not None:
            yield from _faults_of_pattern(f"log.{name}", pattern, must, may)
    if recipe.success.line is not None:
        yield from _faults_of_pattern("success.line", recipe.success.line, set(), set())


def _faults_of_pattern(path: str, pattern: str, must: set[str], may: set[str]) -> Iterator[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        yield f"{path}: not a regular expression: {error}"
        return
    if compiled.search(""):
        yield f"{path}: matches an empty line"
    groups = set(compiled.groupindex)
    if missing := must - groups:
        yield f"{path}: has no group {', '.join(sorted(missing))}"
    if unknown := groups - must - may:
        yield f"{path}: has a group nobody reads: {', '.join(sorted(unknown))}"


def _faults_of_parameters(recipe: Recipe) -> Iterator[str]:
    used = {name for word in recipe.command for name in placeholders(word)}
    for name, parameter in recipe.parameters.items():
        path = f"parameters.{name}"
        if not _PARAMETER.match(name) or name in PLACES:
            yield f"{path}: not a name for a parameter"
        if name not in used:
            yield f"{path}: the command does not use it"
        try:
            read_setting(name, parameter, str(parameter.default))
        except EnvforgeError as error:
            yield f"{path}.default: {error}"


def _faults_of_command(recipe: Recipe) -> Iterator[str]:
    if not recipe.command:
        yield "command: is empty"
    known = {*PLACES, *recipe.parameters}
    for index, word in enumerate(recipe.command):
        for name in placeholders(word):
            if name not in known:
                yield f"command[{index}]: nothing is called {{{name}}}"
        if re.search(r"[{}]", re.sub(r"\{\w+\}", "", word)):
            yield f"command[{index}]: a brace that encloses no name: {word!r}"
