"""Which driver compiles PTX of which language version."""

from __future__ import annotations

import msgspec

from envforge.capability.database import Database
from envforge.capability.models import Fact, Version
from envforge.values import version_key


class PtxRelease(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version of the PTX language, and the CUDA release that brought it."""

    version: Version
    cuda: Version


class PtxTable(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``ptx.yaml``: one source for all its rows."""

    ptx: tuple[PtxRelease, ...]


def driver_for_ptx(database: Database, version: str) -> str | None:
    """Return the oldest driver that compiles PTX ``version`` (``6.0``): that of its CUDA release.

    None where the version or that driver is not known.
    """
    rows = msgspec.msgpack.decode(database.ptx_table, type=PtxTable).ptx
    series = next((row.cuda for row in rows if row.version == version), None)
    floors = [
        toolkit.driver_min
        for toolkit in database.toolkits
        if toolkit.driver_min and ".".join(toolkit.version.split(".")[:2]) == series
    ]
    return min(floors, key=version_key, default=None)
