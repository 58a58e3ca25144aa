"""Every fault of a recipe document's form at once, each with its path.

Reported one at a time they would cost the recipe's author a round for every line.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec


def faults_of_form(document: Any, kind: Any, path: str = "") -> Iterator[str]:
    """Yield what keeps plain data from becoming ``kind``: keys, types, in every nested part."""
    part = _struct_of(kind)
    if part is None or document is None:
        yield from _fault_of_value(document, kind, path)
    elif part is tuple:
        yield from _faults_of_rows(document, kind, path)
    elif not isinstance(document, dict):
        yield f"{path or 'document'}: expected keys and values"
    elif part is dict:
        for key, value in document.items():
            yield from faults_of_form(value, typing.get_args(kind)[1], f"{path}.{key}")
    else:
        yield from _faults_of_keys(document, part, path)


def _struct_of(kind: Any) -> Any:
    """Find the part behind a type: a Struct, ``dict`` or ``tuple`` of them, None for a value."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    members = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return next((member for member in members if _struct_of(member)), None)
    origin = typing.get_origin(kind)
    if origin is tuple:
        return tuple if _struct_of(members[0]) else None
    return dict if origin is dict and _struct_of(members[1]) else None


def _fault_of_value(value: Any, kind: Any, path: str) -> Iterator[str]:
    try:
        msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        yield f"{path or 'document'}: {str(error).replace('`', '')}"


def _faults_of_rows(rows: Any, kind: Any, path: str) -> Iterator[str]:
    if not isinstance(rows, list):
        yield f"{path}: expected a list"
        return
    for index, row in enumerate(rows):
        yield from faults_of_form(row, typing.get_args(kind)[0], f"{path}[{index}]")


def _faults_of_keys(document: dict[Any, Any], part: Any, path: str) -> Iterator[str]:
    dot = f"{path}." if path else ""
    kinds = typing.get_type_hints(part, include_extras=True)
    fields = {field.name: field for field in msgspec.structs.fields(part)}
    for key in document:
        if key not in fields:
            yield f"{dot}{key}: unknown key; there are {', '.join(fields)}"
    for name, field in fields.items():
        if name in document:
            yield from faults_of_form(document[name], kinds[name], f"{dot}{name}")
        elif field.required:
            yield f"{dot}{name}: is missing"
