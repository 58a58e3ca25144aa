"""Feature profiles of source builds. Decoded on demand: only a source build needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from envforge.capability.models import Fact, Range, Sha256, Text, in_range

if TYPE_CHECKING:
    from envforge.capability.database import Database

Switch = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]*$")]
TreePath = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+-]*(/[A-Za-z0-9_.+-]+)*$")
]
PoolPath = Annotated[str, msgspec.Meta(pattern=r"^pool/[a-z0-9./+_~-]+$")]


class SourceArchive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source tree as a distribution's archive carries it."""

    path: PoolPath
    """Below the archive's address."""
    sha256: Sha256
    size_bytes: int

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]


class Profile(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a source build of some releases includes, and what it gives up."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z-]*$")]
    torch: Range
    platforms: tuple[Text, ...] = ()
    """Only on these; none named: on every platform."""
    archive: SourceArchive | None = None
    """Where the tree comes from; None: from git, by tag and commit."""
    patches: Annotated[str, msgspec.Meta(pattern=r"^[a-z-]+\.yaml$")] | None = None
    """A series of its own below ``patches/pytorch``, applied after the common one."""
    packages: tuple[Text, ...] = ()
    """What the build takes from the distribution beside the toolchain."""
    prepare: tuple[tuple[Text, ...], ...] = ()
    """Commands run in the patched tree before anything is compiled."""
    switches: dict[Switch, Text]
    """The environment of upstream's own build, without cuDNN."""
    with_cudnn: dict[Switch, Text]
    """What of it is another where cuDNN is built in."""
    probe: tuple[TreePath, ...] = ()
    """Files compiled before all others: a hopeless build fails with them, in minutes."""
    gives_up: tuple[Text, ...]


def profiles_of(database: Database, torch: str, platform: str) -> tuple[Profile, ...]:
    """Return the profiles there are for a release on a platform, the default first."""
    return tuple(
        profile
        for profile in database.profiles
        if in_range(torch, profile.torch)
        and (not profile.platforms or platform in profile.platforms)
    )
