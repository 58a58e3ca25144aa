"""What a user points at: a file, a wheel, a directory such as site-packages."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from envforge.binaries.editable import editable_roots
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

_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_CHUNK = 1 << 20

T = TypeVar("T")


class Binary(NamedTuple):
    """A file of a subject that may hold device code."""

    name: str
    """Where it lies in the subject."""
    path: Path
    """Where its bytes are until the next one is taken."""


class Source(NamedTuple):
    """A subject that was opened and not yet read."""

    path: str
    binaries: Iterable[Binary]
    alone: bool = False
    """It is one file: what is wrong with that is an error, and not a remark."""
    left_out: tuple[str, ...] = ()
    """Places that are not looked into: what is mounted into a container."""


class Subject(NamedTuple):
    """The libraries of a subject that carry device code."""

    path: str
    libraries: tuple[Library, ...]
    unreadable: tuple[str, ...] = ()
    """Files that looked like binaries and are none, with the reason."""
    looked_at: int = 1
    """Files that were opened."""
    left_out: tuple[str, ...] = ()
    """As in :class:`Source`."""


def read_subject(path: Path, *, on_event: OnEvent = ignore) -> Subject:
    """Read whatever ``path`` is; BinaryError where it cannot be read at all."""
    return read_source(open_path(path, on_event=on_event))


def read_wheel(path: Path, *, on_event: OnEvent = ignore) -> Subject:
    """Read the libraries of a wheel; BinaryError where it is damaged."""
    return read_source(Source(str(path), _open_wheel(path, on_event)))


def read_source(source: Source) -> Subject:
    """Read each binary of ``source`` as it comes; what cannot be read is named in the result."""
    unreadable: list[str] = []
    found = list(each(source, lambda one: read_library(one.path, name=one.name), unreadable))
    return Subject(
        source.path,
        tuple(sorted(filter(_has_code, found), key=lambda library: library.path)),
        tuple(unreadable),
        len(found) + len(unreadable),
        source.left_out,
    )


def each(source: Source, read: Callable[[Binary], T], unreadable: list[str]) -> Iterator[T]:
    """Yield what ``read`` makes of each binary; those it refuses go to ``unreadable``."""
    for binary in source.binaries:
        try:
            found = read(binary)
        except BinaryError as error:
            if source.alone:
                raise
            what = error.what.removeprefix(f"{binary.name}: ")
            unreadable.append(": ".join([binary.name, what, *error.because]))
        else:
            yield found


def _has_code(library: Library) -> bool:
    return bool(library.sections)


def open_path(path: Path, *, name: str = "", on_event: OnEvent = ignore) -> Source:
    """Open a file, a wheel or a directory; ``name`` stands for the path in the result.

    BinaryError where it cannot be read at all.
    """
    shown = name or str(path)
    if _is_folder(path):
        return Source(shown, _open_directory(path, on_event))
    if _is_zip(path):
        return Source(shown, _open_wheel(path, on_event))
    return Source(shown, [Binary(shown, path)], alone=True)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise BinaryError(f"cannot read {path}", because=(str(error.strerror),)) from error


def _is_zip(path: Path) -> bool:
    """Tell a wheel by its first bytes, or by its name: a damaged one has other bytes."""
    if path.suffix in (".whl", ".zip"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) in _ZIP
    except OSError as error:
        raise BinaryError(f"cannot read {path}", because=(str(error.strerror),)) from error


def _open_directory(path: Path, on_event: OnEvent) -> Iterator[Binary]:
    """Yield every library under ``path`` and under what is installed editable there, once."""
    seen: set[tuple[int, int] | Path] = set()
    for root in (path, *editable_roots(path)):
        for file in _loadable_files(root):
            identity = _identity(file)
            if identity not in seen:
                seen.add(identity)
                on_event(Event("log", str(file.relative_to(root))))
                yield Binary(str(file), file)


def _identity(file: Path) -> tuple[int, int] | Path:
    """Return what two names of one file have in common."""
    try:
        status = file.stat()
    except OSError:
        return file
    return status.st_dev, status.st_ino


def _loadable_files(path: Path) -> list[Path]:
    """Return the loadable files in order of their names, links last: their target may be here.

    conda's torch/lib is full of links to the libraries of the environment. A folder that cannot
    be read is among them, for the reader to say why.
    """
    found: list[Path] = []
    closed: list[Path] = []
    for folder, folders, files in os.walk(
        path, onerror=lambda no: closed.append(Path(no.filename))
    ):
        folders.sort()
        if "conda-meta" in folders:  # the base environment keeps the others inside it
            folders[:] = [name for name in folders if name not in ("envs", "pkgs")]
        found += [Path(folder, name) for name in sorted(filter(_LOADABLE.search, files))]
    return sorted(filter(_may_be_file, found), key=Path.is_symlink) + closed


def _may_be_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return True  # the reader says why


def _open_wheel(path: Path, on_event: OnEvent) -> Iterator[Binary]:
    """Yield the libraries of a wheel; each is unpacked to a temporary file, then removed.

    Unpacking takes about ten seconds per gigabyte, a thousand times what reading takes.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            for info in wheel.infolist():
                if may_carry_code(info.filename):
                    with tempfile.NamedTemporaryFile(prefix="envforge-") as unpacked:
                        _unpack(wheel, info, unpacked, on_event)
                        yield Binary(info.filename, Path(unpacked.name))
    except _DAMAGE as error:
        raise BinaryError(
            f"cannot read the wheel {path}",
            because=(str(error),),
            hint="download it anew: it is cut off or damaged",
        ) from error


def may_carry_code(member: str) -> bool:
    """Tell from a file's name whether a process loads it and it may hold device code."""
    name = member.rsplit("/", 1)[-1]
    return bool(_LOADABLE.search(name)) and not _WITHOUT_CODE.match(name)


def _unpack(
    wheel: zipfile.ZipFile, info: zipfile.ZipInfo, unpacked: IO[bytes], on_event: OnEvent
) -> None:
    free = shutil.disk_usage(Path(unpacked.name).parent).free
    if info.file_size > free:
        raise BinaryError(
            f"no room to unpack {info.filename}",
            because=(f"it has {info.file_size} bytes, {free} are free",),
            hint="set TMPDIR to a larger disk",
        )
    done = 0
    with wheel.open(info) as packed:
        while chunk := packed.read(_CHUNK):
            unpacked.write(chunk)
            done += len(chunk)
            on_event(Event("bytes", info.filename, done, info.file_size))
    unpacked.flush()
