"""The content-addressed store: files under the sha256 of their bytes, below the XDG cache.

What is handed out is hashed again first, so a byte changed on disk can never reach an image.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import filelock
import platformdirs

from envforge.errors import HashMismatch
from envforge.events import Event, OnEvent

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK = 1 << 20


def default_root() -> Path:
    """Where the store lies when nobody says otherwise: ``$XDG_CACHE_HOME/envforge/store``."""
    return platformdirs.user_cache_path("envforge") / "store"


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class Store(NamedTuple):
    """Files by hash. Safe for several processes: every file appears whole or not at all."""

    root: Path

    def path_of(self, sha256: str) -> Path:
        """Return where a file of this hash lies, or would lie. ValueError: not a sha256."""
        if not _SHA256.match(sha256):
            raise ValueError(f"not a sha256 in lower-case hexadecimal: {sha256!r}")
        return self.root / "sha256" / sha256[:2] / sha256

    def get(self, sha256: str, name: str) -> Path | None:
        """Return the stored file, or None; ``name`` is what an error calls it.

        Raises HashMismatch where the bytes on disk changed; the file is removed.
        """
        path = self.path_of(sha256)
        if not path.is_file():
            return None
        found = hash_file(path)
        if found != sha256:
            path.unlink(missing_ok=True)
            raise HashMismatch(
                f"{name} in the local store has changed on disk",
                because=(f"expected sha256 {sha256}", f"found    sha256 {found}", f"at {path}"),
                hint="the changed file was removed; run the same command again to fetch it anew",
            )
        return path

    def put_verified(self, fetched: Path, sha256: str, name: str, origin: str = "") -> Path:
        """Move ``fetched`` (a file on the store's own file system) to its place, atomically.

        ``origin`` is what an error says of where it came from.

        Raises HashMismatch where its bytes are not the pinned ones; nothing of them is kept.
        """
        path = self.path_of(sha256)
        found = hash_file(fetched)
        if found != sha256:
            fetched.unlink(missing_ok=True)
            raise mismatch(name, sha256, found, *filter(None, [origin]))
        path.parent.mkdir(parents=True, exist_ok=True)
        fetched.chmod(0o444)
        fetched.replace(path)
        return path

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Give a directory on the store's file system that is gone after the block."""
        parent = self.root / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def partial_of(self, sha256: str) -> Path:
        """Return where an unfinished download of this hash waits to be resumed."""
        path = self.root / "partial" / self.path_of(sha256).name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def locked(self, key: str, on_event: OnEvent) -> Iterator[None]:
        """Hold the lock of ``key`` (a hash, a tag), waiting for another envforge if need be."""
        path = self.root / "locks" / (re.sub(r"[^A-Za-z0-9._-]", "-", key) + ".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            on_event(Event("step", f"waiting for another envforge that works on {key}"))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def mismatch(name: str, expected: str, found: str, *origin: str) -> HashMismatch:
    """Word the error for bytes that are not the pinned ones."""
    return HashMismatch(
        f"{name} does not have the pinned hash; nothing of it was kept",
        because=(f"expected sha256 {expected}", f"received sha256 {found}", *origin),
        hint="try again; if it stays, the source or something on the way changes the file: "
        "use another index, mirror or network",
    )
