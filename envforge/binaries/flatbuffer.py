"""Step over a FlatBuffer: cuBLASLt keeps megabytes of them between the fatbins of a section.

A FlatBuffer does not say how long it is, but it is written from its end to its beginning: what its
root table points to first stands at its end. Format: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from envforge.binaries.content import Content

_HEAD = 256
_OFFSET, _BACK, _VTABLE = Struct("<I"), Struct("<i"), Struct("<HH")
_SIZES = range(4, 1 << 10, 2)
"""Bytes of a table's description; real ones have a few dozen."""


def past_flatbuffer(content: Content, position: int, end: int) -> int:
    """Return how far the FlatBuffer at ``position`` (zeros may precede it) reaches at least.

    ``position`` + 1 where there is none. Whatever is skipped is not looked at, so an offset counts
    only if a table stands where it points.
    """
    head = content.read(min(_HEAD, end - position), position)
    start = len(head) - len(head.lstrip(b"\0"))
    tables = (place for place in _targets(head, start) if _is_table(content, position, place, end))
    return position + max(tables, default=1)


def _targets(head: bytes, start: int) -> Iterator[int]:
    """Yield where the root table's fields would point, if they are offsets."""
    if start + _OFFSET.size > len(head):
        return
    table = start + _OFFSET.unpack_from(head, start)[0]
    if table + _BACK.size > len(head):
        return
    vtable = table - _BACK.unpack_from(head, table)[0]
    if not start < vtable <= len(head) - _VTABLE.size:
        return
    size, _table_size = _VTABLE.unpack_from(head, vtable)
    for place in range(vtable + _VTABLE.size, min(vtable + size, len(head) - 1), 2):
        field = table + int.from_bytes(head[place : place + 2], "little")
        if table < field <= len(head) - _OFFSET.size:
            yield field + _OFFSET.unpack_from(head, field)[0]


def _is_table(content: Content, base: int, place: int, end: int) -> bool:
    """Say whether a table with a description of a credible size stands at ``base + place``."""
    if base + place + _BACK.size > end:
        return False
    vtable = place - _BACK.unpack(content.read(_BACK.size, base + place))[0]
    if not 0 <= vtable <= end - base - _VTABLE.size:
        return False
    size, table_size = _VTABLE.unpack(content.read(_VTABLE.size, base + vtable))
    return size in _SIZES and table_size in range(4, 1 << 10)
