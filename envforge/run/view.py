"""Folders of this machine as the training sees them: under their own paths, or in a container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from envforge.run.request import On
from envforge.training import Mounted
from envforge.training.docker import RECIPE, RUN_DIR

_INSIDE = {"recipe": RECIPE, "run_dir": RUN_DIR}


def seen(on: On, folders: Mapping[str, Path]) -> dict[str, str]:
    """Say where each named folder is seen."""
    if on == "local":
        return {name: str(path) for name, path in folders.items()}
    return {name: _INSIDE.get(name, f"/{name}") for name in folders}


def mounts(on: On, folders: Mapping[str, Path], writable: str = "") -> tuple[Mounted, ...]:
    """Mount each named folder; only ``writable`` can be written to."""
    places = seen(on, folders)
    return tuple(
        Mounted(path, places[name], read_only=name != writable) for name, path in folders.items()
    )


def joined_path(*parts: str | None) -> str:
    """Join search paths, leaving out those that are none."""
    return ":".join(part for part in parts if part)
