"""The submodules of PyTorch's source trees. Decoded on demand: only a source build needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from envforge.capability.models import Commit, Fact, Text, Version

if TYPE_CHECKING:
    from envforge.capability.database import Database

Path = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$")]


class Pin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One submodule at one commit, and the releases of torch whose tags pin it."""

    path: Path
    url: Text
    """As the tag's own ``.gitmodules`` writes it."""
    commit: Commit
    torch: tuple[Version, ...]


class Vanished(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pinned commit that its own address no longer gives (or gave for a while)."""

    path: Path
    commit: Commit
    why: Text
    mirrors: tuple[Text, ...] = ()
    """Addresses that carry the same commit, best first."""
    unused: bool = False
    """Nothing that is built by default reads it: the tree may be built without it."""


class SubmoduleTable(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``submodules.yaml``."""

    vanished: tuple[Vanished, ...]
    pins: tuple[Pin, ...]


class Submodule(NamedTuple):
    """One submodule of one release."""

    path: str
    urls: tuple[str, ...]
    """Where to ask for it, in this order: its own address, then mirrors."""
    commit: str
    unused: bool
    """The tree may be built without it where no address gives it."""


def submodules_of(database: Database, torch: str) -> tuple[Submodule, ...] | None:
    """Return the top-level submodules of a release's tag, by path; None: they are not recorded.

    Submodules of submodules are not listed: the commits here determine theirs.
    """
    table = database.submodules
    gone = {(row.path, row.commit): row for row in table.vanished}
    found = [
        _submodule(pin, gone.get((pin.path, pin.commit)))
        for pin in table.pins
        if torch in pin.torch
    ]
    return tuple(sorted(found)) or None


def _submodule(pin: Pin, gone: Vanished | None) -> Submodule:
    if gone is None:
        return Submodule(pin.path, (pin.url,), pin.commit, unused=False)
    return Submodule(pin.path, (pin.url, *gone.mirrors), pin.commit, gone.unused)
