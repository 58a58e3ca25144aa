"""The content-addressed store: files under the sha256 of their bytes, below the XDG cache.

What is handed out is hashed again first, so a byte changed on disk can never reach an image.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import filelock
import platformdirs

from envforge.errors import HashMismatch, SourceError, UsageError
from envforge.events import Event, OnEvent

MIRROR = "ENVFORGE_MIRROR"
"""The directory of a mirror: what it holds is taken before the network is asked."""
OFFLINE = "ENVFORGE_OFFLINE"
"""Set to 1: nothing is asked of the network."""
_NO = ("", "0", "false", "no")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK = 1 << 20


def default_root() -> Path:
    """Where the store lies when nobody says otherwise: ``$XDG_CACHE_HOME/envforge/store``."""
    return platformdirs.user_cache_path("envforge") / "store"


def default_store() -> Store:
    """Open the store, with the mirror and the reach that the environment states.

    UsageError where the mirror is no directory.
    """
    stated = os.environ.get(MIRROR)
    if stated and not Path(stated).is_dir():
        raise UsageError(
            f"there is no mirror at {stated}",
            hint=f"envforge mirror create {quote(stated)} --gpu CARD",
        )
    mirror = Path(stated).resolve() if stated else None
    return Store(default_root(), mirror, os.environ.get(OFFLINE, "") not in _NO)


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
    mirror: Path | None = None
    """A mirror's directory; its files lie as they do here and are only read."""
    offline: bool = False
    """What neither has is an error: the network is not asked."""

    def path_of(self, sha256: str) -> Path:
        """Return where a file of this hash lies, or would lie. ValueError: not a sha256."""
        if not _SHA256.match(sha256):
            raise ValueError(f"not a sha256 in lower-case hexadecimal: {sha256!r}")
        return self.root / "sha256" / sha256[:2] / sha256

    def get(self, sha256: str, name: str) -> Path | None:
        """Return the stored file, else the mirror's, or None; errors call it ``name``.

        Raises HashMismatch where the bytes on disk changed; a stored file is then removed.
        """
        path = self.path_of(sha256)
        if not path.is_file():
            return self._mirrored(sha256, name)
        found = hash_file(path)
        if found != sha256:
            path.unlink(missing_ok=True)
            raise HashMismatch(
                f"{name} in the local store has changed on disk",
                because=(f"expected sha256 {sha256}", f"found    sha256 {found}", f"at {path}"),
                hint="the changed file was removed; run the same command again to fetch it anew",
            )
        return path

    def _mirrored(self, sha256: str, name: str) -> Path | None:
        if self.mirror is None:
            return None
        path = Store(self.mirror).path_of(sha256)
        if not path.is_file():
            return None
        found = hash_file(path)
        if found != sha256:  # it may be the only copy there is: it stays for whoever repairs it
            raise HashMismatch(
                f"{name} in the mirror has changed on disk",
                because=(f"expected sha256 {sha256}", f"found    sha256 {found}", f"at {path}"),
                hint=f"envforge mirror verify {quote(str(self.mirror))}"
                "   (create fetches it again)",
            )
        return path

    def expect_network(self, name: str) -> None:
        """Let pass who wants to ask the network for ``name``; SourceError where it is cut off."""
        if not self.offline:
            return
        place = f"the mirror {self.mirror}" if self.mirror else "a mirror (none is given)"
        raise SourceError(
            f"{name} is not on this machine, and --offline asks no network",
            because=(f"neither the store {self.root} nor {place} has it",),
            hint="where there is a network: envforge mirror create DIR --gpu CARD --torch VERSION"
            "   (or --recipe NAME), then: --offline --mirror DIR",
        )

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
        """Give a directory on the store's file system that is gone after the block.

        What killed processes left goes, too: whoever works in a directory holds its lock.
        """
        parent = self.root / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        for abandoned in parent.glob("*.lock"):
            with contextlib.suppress(filelock.Timeout), filelock.FileLock(abandoned, timeout=0):
                _remove_workspace(abandoned)
        lock = parent / f"{uuid.uuid4().hex}.lock"
        with filelock.FileLock(lock):
            try:
                lock.with_suffix("").mkdir()
                yield lock.with_suffix("")
            finally:
                _remove_workspace(lock)

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


def _remove_workspace(lock: Path) -> None:
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)


def mismatch(name: str, expected: str, found: str, *origin: str) -> HashMismatch:
    """Word the error for bytes that are not the pinned ones."""
    return HashMismatch(
        f"{name} does not have the pinned hash; nothing of it was kept",
        because=(f"expected sha256 {expected}", f"received sha256 {found}", *origin),
        hint="try again; if it stays, the source or something on the way changes the file: "
        "use another index, mirror or network",
    )
