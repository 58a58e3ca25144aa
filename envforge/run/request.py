"""What to train, where, and how it differs from the recipe's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

On = Literal["docker", "local"]


class RunRequest(NamedTuple):
    """What to train, where, and how it differs from the recipe's own."""

    recipe: str
    on: On | None = None
    """None: where the run directory's run is; a new one in docker."""
    run_dir: Path | None = None
    """None: a new one, ``runs/<recipe>-<UTC time>``. One that holds a run goes on."""
    interpreter: str | None = None
    """The Python that has the torch, for ``local``; None: the one that runs envforge."""
    torch: str | None = None
    """For ``local``: make an environment with this release, or take the one made before."""
    image: str | None = None
    """A tag or id; None: the lock's."""
    lock: Path | None = None
    """None: where the run directory's run has been; a new one by ``envforge.lock``."""
    settings: Mapping[str, str] = MappingProxyType({})
    device: Literal["auto", "cpu", "gpu"] = "auto"
    shelves: tuple[Path, ...] = ()
    """Folders of recipes, before all others."""
    upstream: Path | None = None
    """A repository or copy of the upstream on this machine."""
    data: Path | None = None
    demo: bool = False
    """On a few generated examples."""
    taken: Path | None = None
    """A run that this one takes files from."""
    assets: Mapping[str, Path] = MappingProxyType({})
    vram_mib: int | None = None
    """Train as on a card of so much memory."""
    memory_mib: int | None = None
    """The container's limit of memory."""
