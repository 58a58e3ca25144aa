"""The patch series: which patches a plan needs, chosen by condition."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import msgspec
from msgspec.structs import replace

from envforge import assets, documents
from envforge.capability.models import Evidence, Range, Sha256, Text, Version, in_range
from envforge.errors import DocumentError, MissingPatch, PatchError
from envforge.patching.edit import DoesNotFit, apply_edits

if TYPE_CHECKING:
    from typing_extensions import Unpack

SERIES = "series.yaml"
PYTORCH = assets.PATCHES / "pytorch" / SERIES
TreePath = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_./+-]*$")]
Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$")]


class Axes(TypedDict, total=False):
    """What a plan says of itself beside its torch. None: it has no such thing (no cuDNN)."""

    cuda: str | None
    gcc: str | None
    python: str | None
    capability: str | None
    """Compute capability of the card: ``3.0``."""
    cudnn: str | None
    platform: str | None
    switches: Mapping[str, str]
    """Of upstream's build: ``USE_DISTRIBUTED: "0"``."""


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a patch is needed; an axis that is left out does not matter."""

    torch: Range
    cuda: Range | None = None
    gcc: Range | None = None
    python: Range | None = None
    capability: Range | None = None
    cudnn: Range | None = None
    platform: tuple[Text, ...] = ()
    unless: dict[Text, Text] = {}
    """Switches of upstream's build, each of which makes the patch needless."""

    def holds(self, torch: str, axes: Axes) -> bool:
        """Tell whether a plan meets it; an axis the plan does not have is not met."""
        if not in_range(torch, self.torch):
            return False
        if self.platform and axes.get("platform") not in self.platform:
            return False
        if set(self.unless.items()) & set(axes.get("switches", {}).items()):
            return False
        bounds = {
            "cuda": self.cuda,
            "gcc": self.gcc,
            "python": self.python,
            "capability": self.capability,
            "cudnn": self.cudnn,
        }
        return all(_within(axes.get(axis), stated) for axis, stated in bounds.items())


def _within(value: object, bounds: str | None) -> bool:
    return bounds is None or (value is not None and in_range(str(value), bounds))


class Edit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Replace every match of ``find`` in ``file``; there must be exactly ``sites`` of them."""

    file: TreePath
    find: Text
    replace: str
    sites: Annotated[int, msgspec.Meta(ge=1)]
    applied: Text | None = None
    """Matches ``sites`` times where the edit already stands; needed with groups in ``replace``."""
    sha256: Sha256 | None = None
    """Of the whole file before the edit."""
    torch: Range | None = None
    """Only releases in this range have the file so; None: all that the patch is for."""

    def __post_init__(self) -> None:
        _refuse_escape(self.file)
        try:
            documents.compile_pattern(self.find).sub(self.replace, "")
            documents.compile_pattern(self.applied or "")
        except (ValueError, re.error, IndexError) as error:
            raise ValueError(f"{self.file}: not a pattern: {error}") from error


class AddedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that upstream's tree does not have, given here or in a file beside the series."""

    file: TreePath
    content: Text | None = None
    beside: TreePath | None = None

    def __post_init__(self) -> None:
        _refuse_escape(self.file)
        _refuse_escape(self.beside or ".")
        if (self.content is None) == (self.beside is None):
            raise ValueError(f"{self.file}: either content or the file beside the series")


def _refuse_escape(path: str) -> None:
    if ".." in PurePosixPath(path).parts or path.startswith("/"):
        raise ValueError(f"a patch stays in its tree: {path!r}")


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where upstream mended it, and the first release that has it."""

    release: Version
    change: Text


class Patch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reason to change upstream's code, with its edits."""

    id: Id
    when: Condition
    why: Text
    source: Text
    evidence: Evidence
    upstream: Upstream | None = None
    """None: upstream never changed it."""
    lifts: tuple[Id, ...] = ()
    """Rules of the resolver that forbid the plan without this patch."""
    missing: Text | None = None
    """The patch is known and not carried: where it is described."""
    edits: tuple[Edit, ...] = ()
    adds: tuple[AddedFile, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.edits or self.adds) == bool(self.missing):
            raise ValueError(f"{self.id}: either changes, or where the missing patch is described")


def load_series(path: Path = PYTORCH) -> tuple[Patch, ...]:
    """Read a series with the files it adds; DocumentError with every fault."""
    rows = documents.convert_rows(documents.load_yaml(path), "patches", Patch, str(path))
    return tuple(_with_contents(patch, path) for patch in rows)


def _with_contents(patch: Patch, series: Path) -> Patch:
    """Read the files beside the series, so that a patch is whole by itself."""
    try:
        adds = tuple(
            replace(
                added,
                content=(series.parent / added.beside).read_text(encoding="utf-8"),
                beside=None,
            )
            if added.beside
            else added
            for added in patch.adds
        )
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(
            f"{series}: {patch.id}: cannot read a file it adds", because=(str(error),)
        ) from error
    return replace(patch, adds=adds)


def select(series: tuple[Patch, ...], *, torch: str, **axes: Unpack[Axes]) -> tuple[Patch, ...]:
    """Return the patches that a plan needs, in the order of the series, with its own edits only.

    MissingPatch where one of them is known and not carried: the plan cannot be built.
    """
    needed = [patch for patch in series if patch.when.holds(torch, axes)]
    missing = [patch for patch in needed if patch.missing]
    if missing:
        raise _not_carried(torch, missing)
    return tuple(_for_release(patch, torch) for patch in needed)


def _for_release(patch: Patch, torch: str) -> Patch:
    fitting = tuple(e for e in patch.edits if e.torch is None or in_range(torch, e.torch))
    return replace(patch, edits=fitting)


def _not_carried(torch: str, patches: list[Patch]) -> MissingPatch:
    return MissingPatch(
        f"torch {torch} needs a patch in this plan that envforge knows and does not carry",
        because=tuple(
            line
            for patch in patches
            for line in (f"{patch.id}: {patch.why}", f"described in: {patch.missing}")
        ),
        hint="ask for another combination: envforge explain shows what else there is",
    )


def edits_json(patches: tuple[Patch, ...]) -> bytes:
    """Write the edits as :mod:`envforge.patching.edit` reads them inside a build."""
    return documents.to_json([row for patch in patches for row in _rows(patch)]).encode()


def _rows(patch: Patch) -> Iterator[dict[str, Any]]:
    for edit in patch.edits:
        stated = msgspec.to_builtins(edit)
        del stated["torch"]  # select() has decided
        yield {
            "patch": patch.id,
            **{key: value for key, value in stated.items() if value is not None},
        }
    for added in patch.adds:
        yield {"patch": patch.id, "add": added.file, "content": added.content}


def apply(patches: tuple[Patch, ...], tree: Path) -> list[str]:
    """Apply patches to a tree on this machine; PatchError naming the file, nothing changed."""
    rows = msgspec.json.decode(edits_json(patches))
    try:
        return list(apply_edits(str(tree), rows))
    except DoesNotFit as error:
        raise PatchError("a patch does not fit this tree", because=(str(error),)) from error
