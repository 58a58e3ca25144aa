"""How much room the disks have left below the places envforge writes to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_LITTLE_BYTES = 256 * 2**20
"""Below it a disk may well be the one that had no room: what was half written is gone again."""


class Room(NamedTuple):
    """What a disk has left."""

    place: Path
    """A directory on it."""
    free_bytes: int
    free_files: int | None
    """How many files may still be made; None where the file system counts none."""

    @property
    def is_little(self) -> bool:
        """Whether this may be the disk that was full."""
        return self.free_bytes < _LITTLE_BYTES or self.free_files == 0


def room_at(place: Path) -> Room:
    """Ask the file system that ``place`` lies on, or would lie on."""
    there = next(path for path in (place.absolute(), *place.absolute().parents) if _is_there(path))
    seen = os.statvfs(there)
    files = seen.f_favail if seen.f_files else None
    return Room(there, seen.f_bavail * seen.f_frsize, files)


def find_full(places: Iterable[Path]) -> tuple[Room, ...]:
    """Return the disks with little room left, each once."""
    return tuple(room for room in _each_once(places) if room.is_little)


def _each_once(places: Iterable[Path]) -> Iterator[Room]:
    seen = set()
    for place in places:
        room = room_at(place)
        device = room.place.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield room


def _is_there(path: Path) -> bool:
    """What no file system would take as a name is not there, either."""
    return os.path.isdir(path)  # Path.is_dir raises for it
