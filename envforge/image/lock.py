"""``envforge.lock``: what an image was made of, written only after it was verified.

Two locks are compared by their facts: what the plan pins (:func:`plan_facts`) before anything is
built, what came out of it (:func:`outcome_facts`) after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from envforge import documents
from envforge.errors import DocumentError
from envforge.image.plan import Stage
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


class Features(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a build from source was asked to include."""

    profile: str
    cudnn: str | None = None
    torchvision: str | None = None


class Lock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One verified image and everything that went into it."""

    schema: Literal["envforge.lock/1"] = SCHEMA
    plan: str
    """Digest of the plan: the same request and database give the same one."""
    stage: Stage
    created: str
    resolution: Resolution
    image: str
    image_id: str
    python: str
    """Path of the interpreter inside the image."""
    base: BaseLock
    features: Features | None = None
    """None where nothing was built from source."""
    files: dict[str, str]
    """Rendered files that decide the image -> sha256: Dockerfile, edits, pinned requirements."""
    inputs: dict[str, str]
    """Path in the build context -> sha256."""
    packages: tuple[str, ...]
    """The distribution's packages in the image, as ``name:architecture=version``, sorted."""
    built_with: tuple[str, ...] = ()
    """The same of the stage that compiled, where one did."""
    tree: tuple[str, ...] = ()
    """Of a tree from git: each repository as ``COMMIT PATH``, its submodules too."""
    patches: tuple[str, ...]
    wheels: dict[str, str] = {}
    """Wheels that were built: file name -> sha256. Empty where published ones were installed."""
    database: str
    """Content hash of the capability database that decided."""
    verified: tuple[CheckLock, ...]
    seal: str = ""
    """sha256 of everything else here: an edit by hand is seen. Empty in locks of before."""

    @property
    def is_whole(self) -> bool:
        """Whether it is as envforge wrote it."""
        return self.seal in ("", _seal(self))

    @property
    def torch(self) -> str:
        """The release inside the image."""
        return self.resolution.torch

    @property
    def codes(self) -> tuple[str, ...]:
        """Machine code the image carries."""
        return self.resolution.codes


def _seal(lock: Lock) -> str:
    bare = msgspec.structs.replace(lock, seal="")
    return hashlib.sha256(documents.to_json(bare).encode()).hexdigest()


class Drift(NamedTuple):
    """One thing that is not what the lock says."""

    what: str
    locked: str | None
    """None: the lock has no such thing."""
    now: str | None
    """None: it is there no longer."""

    def __str__(self) -> str:
        if self.locked is None:
            return f"{self.what}: {self.now} is new"
        if self.now is None:
            return f"{self.what}: {self.locked} is gone"
        return f"{self.what}: locked {self.locked}, now {self.now}"


_DECIDED = (
    *("route", "torch", "cuda", "cuda_origin", "gcc", "python", "python_origin", "platform"),
    *("variant", "compute_capability"),
)
"""Fields of a resolution that make another image; its sources and notes do not."""


def plan_facts(
    resolution: Resolution,
    stage: str,
    features: Features | None,
    files: Mapping[str, str],
    inputs: Mapping[str, str],
) -> dict[str, str]:
    """Name everything a plan decides, with its value."""
    decided = {name: getattr(resolution, name) for name in _DECIDED}
    chosen = msgspec.structs.asdict(features) if features else {}
    facts = {**decided, "codes": " ".join(resolution.codes) or None, "stage": stage, **chosen}
    return {
        **{name: value for name, value in facts.items() if value is not None},
        **{f"file {name}": sha256 for name, sha256 in files.items()},
        **inputs,
    }


def outcome_facts(lock: Lock) -> dict[str, str]:
    """Name everything a build took from outside that only the finished image shows.

    The archive's Release files are no such fact: a point release changes them also where it
    changes no package of this image.
    """
    return {
        **_versions("package", lock.packages),
        **_versions("built with", lock.built_with),
        **{f"tree {path}": commit for commit, path in (row.split(" ", 1) for row in lock.tree)},
    }


def _versions(kind: str, packages: tuple[str, ...]) -> dict[str, str]:
    return {f"{kind} {name}": version for name, _, version in (p.partition("=") for p in packages)}


def find_drift(locked: Mapping[str, str], now: Mapping[str, str]) -> tuple[Drift, ...]:
    """List what differs, in the order of the facts."""
    return tuple(
        Drift(name, locked.get(name), now.get(name))
        for name in dict.fromkeys((*locked, *now))
        if locked.get(name) != now.get(name)
    )


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


def write_lock(path: Path, lock: Lock) -> Lock:
    """Seal and write the lock so that a kill at any moment leaves the old one or the new one."""
    sealed = msgspec.structs.replace(lock, seal=_seal(lock))
    documents.write_atomically(path, documents.to_json(sealed).encode())
    return sealed
