"""What building PyTorch from source runs beside the compilers. Decoded on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from envforge.capability.models import Fact, Range, RequirementSet, Text, in_range

if TYPE_CHECKING:
    from envforge.capability.database import Database


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


class BuildToolTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``build_tools.yaml``."""

    tools: tuple[BuildTool, ...]
    pinned: tuple[RequirementSet, ...] = ()
    """Files by hash that satisfy the bounds, as the index stood some weeks after a release."""


def build_tools_of(database: Database, torch: str, python: str) -> tuple[BuildTool, ...]:
    """Return the tools a release's build needs on a Python, in the order of the data."""
    return tuple(
        tool
        for tool in database.build_tools.tools
        if in_range(torch, tool.torch) and (tool.python is None or in_range(python, tool.python))
    )


def pinned_tools_of(database: Database, torch: str, tag: str) -> RequirementSet | None:
    """Return the pinned files for a release on a Python (``cp36-cp36m``); None: not pinned."""
    for row in database.build_tools.pinned:
        if (row.torch, row.tag) == (torch, tag):
            return row
    return None
