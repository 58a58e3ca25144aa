"""What to start, in words that every engine understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LABEL = {"envforge": "1"}
OF_A_BUILD = {"envforge.part": "build"}
"""Also on containers that are there to look at what was built, and are nobody's work."""
SHM_SIZE_MIB = 1024
"""Docker's own 64 MB end a DataLoader's workers with "Bus error"."""


class Mount(NamedTuple):
    """A directory or file of the host inside a container."""

    source: Path
    target: str
    read_only: bool = True


class Launch(NamedTuple):
    """What to start: a command in an image. Never privileged."""

    image: str
    argv: Sequence[str]
    name: str | None = None
    user: str | None = None
    """``uid:gid``; None: the caller's own."""
    mounts: Sequence[Mount] = ()
    env: Mapping[str, str] = {}
    shm_size_mib: int = SHM_SIZE_MIB
    memory_mib: int | None = None
    init: bool = True
    gpus: bool = False
    network: str | None = None
    labels: Mapping[str, str] = {}
    workdir: str | None = None
