"""What building PyTorch from source runs beside the compilers. Decoded on demand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import msgspec

from envforge.capability.models import Fact, Range, Sha256, Text, Version, in_range
from envforge.values import version_key

if TYPE_CHECKING:
    from envforge.capability.database import Database

_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")


class BuildTool(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One program or Python package that upstream's build calls or imports."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    torch: Range
    versions: Range | None = None
    """None: no bound is known."""
    python: Range | None = None
    """Only on these Pythons; None: on all."""
    at_run_time: bool = False
    """Torch itself imports it, too: the one it was built with must be there."""
    why: Text


class PinnedWheel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the package index. Its name says the project, the version and where it runs."""

    name: Text
    sha256: Sha256
    size_bytes: Annotated[int, msgspec.Meta(gt=0)]


class Pip(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pip that takes the place of a platform's own where that one refuses wheels."""

    versions: Range
    """Those that take every wheel: a platform's own within it is good enough."""
    file: PinnedWheel
    why: Text


class Manylinux(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tags of wheels from before a tag said itself which glibc it needs."""

    glibc: dict[str, Version]


class BuildToolTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``build_tools.yaml``."""

    pip: Pip
    manylinux: Manylinux
    tools: tuple[BuildTool, ...]

    def glibc_of(self, wheel: str) -> str | None:
        """Return the glibc that a file of the package index needs; None: its name says none."""
        needed = []
        for tag in wheel.removesuffix(".whl").rpartition("-")[2].split("."):
            stated = _MANYLINUX.match(tag)
            known = self.manylinux.glibc.get(tag.partition("_")[0])
            needed += [f"{stated[1]}.{stated[2]}"] if stated else [known] if known else []
        return min(needed, key=version_key, default=None)


class PinnedBuild(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What building one release for one Python takes from the package index, by file name."""

    torch: Version
    tag: Text
    as_of: Text
    tools: tuple[Text, ...]
    """What the build runs and imports."""
    imports: tuple[Text, ...]
    """What torch imports beside itself, without the CUDA that a published wheel takes along."""
    distribution: tuple[Text, ...] = ()
    """Tools that never had a wheel for this Python: the platform's own packages are taken."""


class PinnedBuildTable(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``pinned_builds.yaml``: one source for all its rows."""

    wheels: tuple[PinnedWheel, ...] = ()
    builds: tuple[PinnedBuild, ...] = ()

    def files_of(self, names: tuple[str, ...]) -> tuple[PinnedWheel, ...]:
        """Return the files of these names."""
        known = {wheel.name: wheel for wheel in self.wheels}
        return tuple(known[name] for name in names)


def build_tools_of(database: Database, torch: str, python: str) -> tuple[BuildTool, ...]:
    """Return the tools a release's build needs on a Python, in the order of the data."""
    return tuple(
        tool
        for tool in database.build_tools.tools
        if in_range(torch, tool.torch) and (tool.python is None or in_range(python, tool.python))
    )


def find_pinned_build(database: Database, torch: str, tag: str) -> PinnedBuild | None:
    """Return what is pinned for a release on a Python (``cp36-cp36m``); None: nothing is."""
    for build in database.pinned_builds.builds:
        if (build.torch, build.tag) == (torch, tag):
            return build
    return None
