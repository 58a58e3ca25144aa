"""The Python packages a variant needs beside torch, pinned by hash, for the interpreter at hand.

They are laid out in a folder that stands on PYTHONPATH: no pip is needed where the training runs,
and neither an image nor an interpreter is changed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec
import platformdirs

from envforge import documents
from envforge.errors import HostMismatch
from envforge.events import Event, OnEvent
from envforge.recipes.document import Count, Sha256, Text
from envforge.recipes.variant import runs_on
from envforge.sources import tarball
from envforge.sources.fetch import WheelInput, fetch_wheel
from envforge.sources.store import Store, default_store


class PinnedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One wheel."""

    tag: Text
    name: Text
    sha256: Sha256
    size_bytes: Count


class Pinned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One package at one version."""

    project: Text
    version: Text
    file: PinnedFile


class Pins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an interpreter with this tag and such a torch gets."""

    tag: Text
    """``cp37-cp37m``."""
    torch: Text
    as_of: Text
    rows: tuple[Pinned, ...]
    source: Text

    def fits(self, tag: str, torch: str) -> bool:
        """Whether they are for this interpreter."""
        return self.tag == tag and runs_on(self.torch, torch)


def load_pins(path: Path) -> tuple[Pins, ...]:
    """Read a packages file; DocumentError with every fault."""
    return documents.convert_rows(documents.load_yaml(path), "packages", Pins, str(path))


def pins_for(path: Path, tag: str, torch: str, missing: tuple[str, ...]) -> Pins:
    """Choose the pins for an interpreter; HostMismatch with those there are."""
    every = load_pins(path)
    for pins in every:
        if pins.fits(tag, torch):
            return pins
    raise HostMismatch(
        f"the interpreter lacks {', '.join(missing)}, and nothing is pinned for it",
        because=(
            f"it is {tag} with torch {torch}",
            *(f"pinned: {pins.tag} with torch {pins.torch}" for pins in every),
        ),
        hint="install them there yourself, or give an interpreter that has them: --interpreter",
    )


def lay_out_packages(pins: Pins, on_event: OnEvent, root: Path | None = None) -> Path:
    """Fetch every wheel by its hash and unpack them into one folder, made once and kept.

    SourceError or HashMismatch where one cannot be had.
    """
    root = root or platformdirs.user_cache_path("envforge") / "packages"
    digest = hashlib.sha256("\n".join(row.file.sha256 for row in pins.rows).encode()).hexdigest()
    target = root / f"{pins.tag}-{digest[:16]}"
    store = default_store()
    with store.locked(f"packages-{target.name}", on_event):
        if not target.is_dir():
            _fill(target, pins, store, on_event)
    return target


def _fill(target: Path, pins: Pins, store: Store, on_event: OnEvent) -> None:
    staging = target.with_name(f".{target.name}")
    shutil.rmtree(staging, ignore_errors=True)
    unpack_wheels([wheel_of(row) for row in pins.rows], staging, store, on_event)
    on_event(Event("done", f"laid out {len(pins.rows)} packages"))
    staging.replace(target)


def unpack_wheels(
    wheels: Iterable[WheelInput], folder: Path, store: Store, on_event: OnEvent
) -> None:
    """Fetch every wheel by its hash and unpack it into ``folder``, as pip would lay it out."""
    for wheel in wheels:
        tarball.unpack(fetch_wheel(wheel, store, on_event), folder)
    for each in sorted(folder.glob("*.data/*lib")):
        shutil.copytree(each, folder, dirs_exist_ok=True)  # purelib, platlib


def wheel_of(row: Pinned) -> WheelInput:
    """Name a pinned wheel as it is fetched."""
    return WheelInput(
        distribution=row.project,
        version=row.version,
        name=row.file.name,
        sha256=row.file.sha256,
        size_bytes=row.file.size_bytes,
        tag=row.file.tag,
    )
