"""Directories as tar files: equal trees give equal bytes, and no entry can leave its folder."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from envforge.errors import DiskFull, SourceError
from envforge.sources.store import Store, hash_file

_EXECUTABLE = 0o755
_PLAIN = 0o644


def pack(
    tree: Path, target: Path, *, mtime: int = 0, without: frozenset[str] = frozenset()
) -> None:
    """Write everything below ``tree`` to ``target``: sorted, owned by root, one time stamp.

    ``without``: names of entries that are left out at any depth.
    """
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in _walk(tree, without):
            entry = archive.gettarinfo(path, str(path.relative_to(tree)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = mtime
            if entry.islnk():  # two names of one file here need not be two names there
                entry.type, entry.size = tarfile.REGTYPE, path.stat().st_size
            if not entry.issym():
                entry.mode = _EXECUTABLE if entry.isdir() or entry.mode & stat.S_IXUSR else _PLAIN
            if entry.isreg():
                with path.open("rb") as stream:
                    archive.addfile(entry, stream)
            elif entry.isdir() or entry.issym():
                archive.addfile(entry)


def _walk(tree: Path, without: frozenset[str]) -> list[Path]:
    found: list[Path] = []
    for folder, directories, files in os.walk(tree):
        directories[:] = [name for name in directories if name not in without]
        found += [Path(folder, name) for name in (*directories, *files) if name not in without]
    return sorted(found)


def pack_directory(directory: Path, store: Store) -> tuple[Path, str]:
    """Put a local source tree into the store as a tar file; return it with its sha256.

    ``.git`` stays out: what is built is what lies there, whatever was committed.
    SourceError where the directory cannot be read, DiskFull.
    """
    if not directory.is_dir():
        raise SourceError(f"there is no source tree at {directory}")
    with store.workspace() as workspace:
        packed = workspace / "tree.tar"
        try:
            pack(directory, packed, without=frozenset({".git"}))
        except OSError as error:
            if DiskFull.is_told_by(error):
                raise DiskFull.here(f"{directory} into {packed.parent}: {error}") from error
            raise SourceError(
                f"cannot read the source tree at {directory}", because=(str(error),)
            ) from error
        sha256 = hash_file(packed)
        return store.put_verified(packed, sha256, str(directory)), sha256


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar (gz, bz2, xz) or zip file into ``target``.

    Raises SourceError for anything that is neither, and for an entry that would leave ``target``;
    what was unpacked until then is the caller's to remove.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, target)
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(target, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        if DiskFull.is_told_by(error):
            raise DiskFull.here(f"{archive.name} into {target}: {error}") from error
        raise SourceError(f"cannot unpack {archive.name}", because=(str(error),)) from error


def _unpack_zip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise SourceError(
                    f"cannot unpack {archive.name}", because=(f"{name!r} would leave its folder",)
                )
        opened.extractall(target)  # noqa: S202 -- every name was checked
