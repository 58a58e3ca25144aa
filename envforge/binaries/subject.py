"""What a user points at: a file, a wheel, a directory such as site-packages."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from envforge.binaries.errors import BinaryError
from envforge.binaries.library import Library, read_library
from envforge.events import Event, OnEvent, ignore

_LOADABLE = re.compile(r"\.(?:so(?:\.\d+)*|cubin|fatbin)\Z")
"""Files a process loads; a static archive beside them runs nowhere."""

_WITHOUT_CODE = re.compile(
    r"lib(?:torch_(?:cpu|python|global_deps)|c10|shm|gomp|gfortran|quadmath|openblas\w*|mkl\w*"
    r"|nvrtc\w*|cudart|cupti|nvToolsExt|nvperf\w*|cufile\w*)[-.]"
)
"""Libraries that hold no device code: they need not be unpacked, the first has 400 MB."""

_DAMAGE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError)
"""What zipfile raises; the last two for an encrypted member and an unknown compression."""

_CHUNK = 1 << 20


class Subject(NamedTuple):
    """The libraries of a subject that carry device code."""

    path: str
    libraries: tuple[Library, ...]
    unreadable: tuple[str, ...] = ()
    """Files that looked like binaries and are none, with the reason."""


def read_subject(path: Path, *, on_event: OnEvent = ignore) -> Subject:
    """Read whatever ``path`` is; BinaryError where it cannot be read at all."""
    if path.is_dir():
        return read_directory(path, on_event=on_event)
    if path.suffix in (".whl", ".zip"):
        return read_wheel(path, on_event=on_event)
    return Subject(path=str(path), libraries=(read_library(path),))


def read_directory(path: Path, *, on_event: OnEvent = ignore) -> Subject:
    """Read every library under ``path``: a package, site-packages, an environment."""
    libraries: list[Library] = []
    unreadable: list[str] = []
    for file in _loadable_files(path):
        on_event(Event("step", str(file.relative_to(path))))
        try:
            library = read_library(file)
        except BinaryError as error:
            unreadable.append(str(error))
            continue
        if library.sections:
            libraries.append(library)
    return Subject(path=str(path), libraries=tuple(libraries), unreadable=tuple(unreadable))


def _loadable_files(path: Path) -> Iterator[Path]:
    """Yield the loadable files in order of their names, each file once."""
    if not path.is_dir():
        raise BinaryError(f"no such directory: {path}")
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(filter(_LOADABLE.search, files)):
            file = Path(folder, name)
            if file.is_symlink() or not file.is_file():
                continue
            status = file.stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                yield file


def read_wheel(path: Path, *, on_event: OnEvent = ignore) -> Subject:
    """Read the libraries of a wheel; each is unpacked to a temporary file, then removed.

    Unpacking takes about ten seconds per gigabyte, a thousand times what reading takes.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            members = [info for info in wheel.infolist() if may_carry_code(info.filename)]
            found = [_read_member(wheel, info, on_event) for info in members]
    except _DAMAGE as error:
        raise BinaryError(f"cannot read the wheel {path}", because=(str(error),)) from error
    libraries = tuple(library for library in found if library is not None and library.sections)
    return Subject(path=str(path), libraries=libraries)


def may_carry_code(member: str) -> bool:
    """Tell from a file's name whether a process loads it and it may hold device code."""
    name = member.rsplit("/", 1)[-1]
    return bool(_LOADABLE.search(name)) and not _WITHOUT_CODE.match(name)


def _read_member(
    wheel: zipfile.ZipFile, info: zipfile.ZipInfo, on_event: OnEvent
) -> Library | None:
    with tempfile.NamedTemporaryFile(prefix="envforge-") as unpacked:
        free = shutil.disk_usage(Path(unpacked.name).parent).free
        if info.file_size > free:
            raise BinaryError(
                f"no room to unpack {info.filename}",
                because=(f"it has {info.file_size} bytes, {free} are free",),
                hint="set TMPDIR to a larger disk",
            )
        with wheel.open(info) as packed:
            _unpack(packed, unpacked, info, on_event)
        try:
            return read_library(Path(unpacked.name), name=info.filename)
        except BinaryError:  # a linker script, or a library of another machine
            return None


def _unpack(
    packed: IO[bytes], unpacked: IO[bytes], info: zipfile.ZipInfo, on_event: OnEvent
) -> None:
    done = 0
    while chunk := packed.read(_CHUNK):
        unpacked.write(chunk)
        done += len(chunk)
        on_event(Event("bytes", info.filename, done, info.file_size))
    unpacked.flush()
