"""``envforge.lock``: what an image was made of, written only after it was verified."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from envforge import documents
from envforge.errors import DocumentError
from envforge.resolver import Resolution
from envforge.sources.archive import Release

LOCK_NAME = "envforge.lock"
SCHEMA: Final = "envforge.lock/1"


class BaseLock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of the archive the base system came from."""

    image: str
    image_id: str
    releases: tuple[Release, ...]
    """Each suite's Release file: its date and hash."""
    packages_sha256: str
    """Of the sorted list of installed packages with their versions."""
    rootfs_sha256: str


class CheckLock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that was verified inside the image, and what was seen."""

    name: str
    seen: str


class Lock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One verified image and everything that went into it."""

    schema: Literal["envforge.lock/1"] = SCHEMA
    plan: str
    """Digest of the plan: the same request and database give the same one."""
    stage: str
    created: str
    resolution: Resolution
    image: str
    image_id: str
    python: str
    """Path of the interpreter inside the image."""
    base: BaseLock
    inputs: dict[str, str]
    """Path in the build context -> sha256."""
    tree: tuple[str, ...] = ()
    """Of a tree from git: each repository as ``COMMIT PATH``, its submodules too."""
    patches: tuple[str, ...]
    wheels: dict[str, str] = {}
    """Wheels that were built: file name -> sha256. Empty where published ones were installed."""
    database: str
    """Content hash of the capability database that decided."""
    verified: tuple[CheckLock, ...]

    @property
    def torch(self) -> str:
        """The release inside the image."""
        return self.resolution.torch

    @property
    def codes(self) -> tuple[str, ...]:
        """Machine code the image carries."""
        return self.resolution.codes


def load_lock(path: Path) -> Lock:
    """Read a lock; DocumentError when it is missing, torn, or not a lock of this schema."""
    if not path.is_file():
        raise DocumentError(
            f"there is no {path}", hint="envforge build writes it: envforge build --gpu CARD"
        )
    return documents.load_json(path, Lock)


def find_lock(path: Path) -> Lock | None:
    """Read a lock where there is a good one; a broken one counts as none."""
    try:
        return load_lock(path)
    except DocumentError:
        return None


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock so that a kill at any moment leaves the old one or the new one."""
    documents.write_atomically(path, documents.to_json(lock).encode())
