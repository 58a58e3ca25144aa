"""Sources of torchvision, which is built after torch. Decoded on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from envforge.capability.models import Fact, Sha256, Text, Version
from envforge.capability.profiles import PoolPath

if TYPE_CHECKING:
    from envforge.capability.database import Database


class TorchvisionArchive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sources of one version."""

    version: Version
    sha256: Sha256
    pool: PoolPath | None = None
    """Where a distribution's archive carries the same bytes."""


class TorchvisionTable(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``torchvision.yaml``."""

    url: Text
    """``{version}`` stands for the version."""
    versions: tuple[TorchvisionArchive, ...]


class TorchvisionSource(msgspec.Struct, frozen=True, kw_only=True):
    """One version, and where it is published."""

    version: str
    sha256: str
    url: str
    pool: str | None

    @property
    def name(self) -> str:
        """What the file is called among the inputs."""
        return f"torchvision-{self.version}.tar.gz"


def torchvision_of(database: Database, torch: str) -> TorchvisionSource | None:
    """Return the torchvision released with a torch; None: none is known by hash."""
    release = next(row for row in database.releases if row.version == torch)
    table = database.torchvision
    for row in table.versions:
        if row.version == release.torchvision:
            url = table.url.format(version=row.version)
            return TorchvisionSource(version=row.version, sha256=row.sha256, url=url, pool=row.pool)
    return None
