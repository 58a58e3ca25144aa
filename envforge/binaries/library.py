"""One binary file: what device code it carries, and whose.

Of a library of a gigabyte a walk reads one page per device image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from envforge.binaries import cubin, elf
from envforge.binaries.content import Content, open_content
from envforge.binaries.errors import BinaryError
from envforge.binaries.fatbin import Defect, Fatbin, Fatbins
from envforge.binaries.parts import Part, sort_fatbins
from envforge.binaries.role import Role, role_of_file
from envforge.values import DeviceCode

FATBIN_SECTIONS = (".nv_fatbin", "__nv_relfatbin", ".cask_resource")
"""Executable images, relocatable ones (``-rdc``), and NVIDIA's extra ones, which cuobjdump does
not list. A driver loads the first; they decide."""


class SectionCount(NamedTuple):
    """The listing of one section, as cuobjdump gives it: entries by architecture."""

    name: str
    fatbins: int
    """Empty ones included."""
    entries: dict[str, int]
    """``sm_35``, ``compute_50``, ``lto_90`` -> number of images."""


class Library(NamedTuple):
    """What one file carries."""

    path: str
    format: elf.Format
    role: Role
    """By the file's name."""
    sections: tuple[SectionCount, ...]
    parts: tuple[Part, ...] = ()
    """Empty from :func:`list_code`, which does not look at kernel names."""
    defects: tuple[Defect, ...] = ()

    @property
    def own(self) -> Part | None:
        """The kernels the file exists for: torch's own, an extension's own, a vendor's own."""
        return next((part for part in self.parts if part.role == self.role), None)

    @property
    def sass(self) -> tuple[DeviceCode, ...]:
        """The SASS that its own kernels carry throughout."""
        return self._carried("sm")

    @property
    def ptx(self) -> tuple[DeviceCode, ...]:
        """The PTX that its own kernels carry throughout."""
        return self._carried("compute")

    def _carried(self, kind: str) -> tuple[DeviceCode, ...]:
        codes = () if self.own is None else self.own.carried()
        return tuple(code for code in codes if code.kind == kind)

    @property
    def counts(self) -> dict[str, int]:
        """Images by architecture over all sections."""
        total: Counter[str] = Counter()
        for section in self.sections:
            total.update(section.entries)
        return dict(total)


def read_library(path: Path, *, name: str = "") -> Library:
    """Read ``path``: every section's listing, and whose kernels its fatbins hold.

    ``name`` stands for the path in the result, for a file unpacked from somewhere else.
    """
    with open_content(path, name) as content:
        found = find_fatbins(content, name or str(path))
        return _library(found, sort_fatbins(content, _deciding(found), found.role))


def list_code(path: Path) -> Library:
    """Read only the listing, without looking at a kernel name: a tenth of the time."""
    with open_content(path) as content:
        return _library(find_fatbins(content, str(path)), ())


class Found(NamedTuple):
    """The fatbins of a file by the section they stand in, before anybody counts them."""

    path: str
    format: elf.Format
    sections: dict[str, Fatbins]
    defects: list[Defect]

    @property
    def role(self) -> Role:
        return role_of_file(Path(self.path).name)


def find_fatbins(content: Content, path: str) -> Found:
    """Walk a file's fatbins, whatever its format; BinaryError if it is none of ours."""
    found = Found(path, elf.identify(content), {}, [])
    for section in _ranges(content, found.format, found.defects):
        fatbins = found.sections.setdefault(section.name, Fatbins(found.defects))
        if found.format == "cubin":
            fatbins.add_cubin(cubin.read_code(content, defects=found.defects), content.size)
        else:
            # cuBLASLt keeps FlatBuffers between the fatbins of this one.
            mixed = section.name == ".cask_resource"
            fatbins.walk(content, section.offset, section.end, mixed=mixed)
    return found


def _ranges(content: Content, kind: elf.Format, defects: list[Defect]) -> Iterator[elf.Section]:
    """Yield the stretches of a file that hold device code."""
    whole = elf.Section(kind, 0, content.size)
    if kind in ("cubin", "fatbin"):
        yield whole
        return
    members: Iterable[elf.Member | elf.Section] = [whole]
    if kind == "archive":
        members = elf.read_archive(content, defects=defects)
    for member in members:
        if elf.read_header(content, member.offset, member.end) is not None:
            sections = elf.read_sections(content, member.offset, member.end, defects=defects)
            if kind == "elf" and not sections:
                # Whether there is code in it cannot be told: the table stands at the file's end.
                raise BinaryError(
                    "its sections cannot be found",
                    because=tuple(defect.what for defect in defects),
                    hint="copy or download it anew if it is cut off",
                )
            yield from (section for section in sections if section.name in FATBIN_SECTIONS)


def _library(found: Found, parts: tuple[Part, ...]) -> Library:
    sections = tuple(
        SectionCount(name=name, fatbins=len(fatbins), entries=fatbins.count())
        for name, fatbins in found.sections.items()
    )
    return Library(
        path=found.path,
        format=found.format,
        role=found.role,
        sections=sections,
        parts=parts,
        defects=tuple(found.defects),
    )


def _deciding(found: Found) -> list[Fatbin]:
    """Return what a driver loads: cuobjdump does not even list ``.cask_resource``."""
    return executable(found.sections, without=FATBIN_SECTIONS[1:])


def executable(
    sections: dict[str, Fatbins], *, without: tuple[str, ...] = ("__nv_relfatbin",)
) -> list[Fatbin]:
    """Return the executable images; relocatable ones where a link has yet to make those."""
    loadable = [
        fatbin for name, fatbins in sections.items() if name not in without for fatbin in fatbins
    ]
    return loadable or list(sections.get("__nv_relfatbin", ()))
