"""The patch series: which patches a plan needs, chosen by condition."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec

from envforge import assets, documents
from envforge.capability.models import Evidence, Range, Text, in_range
from envforge.errors import PatchError
from envforge.patching.edit import DoesNotFit, apply_edits

SERIES = "series.yaml"
PYTORCH = assets.PATCHES / "pytorch" / SERIES


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a patch is needed; an axis that is left out does not matter."""

    torch: Range
    cuda: Range | None = None


class Edit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replace every match of ``find`` in ``file``; there must be exactly ``sites`` of them."""

    file: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./+-]*$")]
    find: Text
    replace: Text
    sites: Annotated[int, msgspec.Meta(ge=1)]

    def __post_init__(self) -> None:
        if ".." in Path(self.file).parts:
            raise ValueError(f"a patch stays in its tree: {self.file!r}")
        re.compile(self.find)


class Patch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reason to change upstream's code, with its edits."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    when: Condition
    why: Text
    source: Text
    evidence: Evidence
    edits: tuple[Edit, ...]


def load_series(path: Path = PYTORCH) -> tuple[Patch, ...]:
    """Read a series; DocumentError with every fault."""
    text = path.read_text(encoding="utf-8")
    return documents.convert_rows(
        documents.parse_yaml(text, str(path)), "patches", Patch, str(path)
    )


def select(series: tuple[Patch, ...], *, torch: str, cuda: str | None) -> tuple[Patch, ...]:
    """Return the patches that this torch with this CUDA needs, in the order of the series."""
    return tuple(patch for patch in series if _needed(patch.when, torch, cuda))


def _needed(when: Condition, torch: str, cuda: str | None) -> bool:
    if not in_range(torch, when.torch):
        return False
    return when.cuda is None or (cuda is not None and in_range(cuda, when.cuda))


def edits_json(patches: tuple[Patch, ...]) -> bytes:
    """Write the edits as :mod:`envforge.patching.edit` reads them inside a build."""
    rows = [
        {"patch": patch.id, **msgspec.to_builtins(edit)}
        for patch in patches
        for edit in patch.edits
    ]
    return documents.to_json(rows).encode()


def apply(patches: tuple[Patch, ...], tree: Path) -> list[str]:
    """Apply patches to a tree on this machine; PatchError naming the file, nothing changed."""
    rows = msgspec.json.decode(edits_json(patches))
    try:
        return list(apply_edits(str(tree), rows))
    except DoesNotFit as error:
        raise PatchError("a patch does not fit this tree", because=(str(error),)) from error
