"""Sort the fatbins of a file by whose kernels they hold, and count their architectures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from envforge.binaries import names
from envforge.binaries.content import Content
from envforge.binaries.fatbin import Entry, Fatbin, PtxVersion
from envforge.binaries.role import VENDOR, Role, role_of_kernels
from envforge.values import DeviceCode

NEARLY_ALL = 0.99
"""An architecture counts as carried when this share of a part's fatbins has it. Measured: torch's
own fatbins carry one list in 98.6 % to 100 %, and more than it in the rest; strays such as sm_90a
stand in 3 of 208."""

_FIRST_LOOK = 1 << 10
_SECOND_LOOK = 1 << 14
"""How much of an image is unpacked to find a name that tells: most tell in the first kilobyte."""
_LARGEST_STUB = 1 << 11
"""Bytes; measured: 1072 and 1256 (CUDA 11.8)."""


class Code(NamedTuple):
    """Device code in a fatbin; two PTX images of one architecture may differ in version."""

    device: DeviceCode
    ptx_version: PtxVersion | None = None

    def __str__(self) -> str:
        return str(self.device)


class CodeSet(NamedTuple):
    """How many fatbins of a part carry exactly these codes."""

    codes: tuple[Code, ...]
    fatbins: int


class Part(NamedTuple):
    """The fatbins of a library that belong to one role; only those that hold a kernel."""

    role: Role
    sets: tuple[CodeSet, ...]
    """The most common set first."""

    @property
    def fatbins(self) -> int:
        """How many fatbins with kernels."""
        return sum(group.fatbins for group in self.sets)

    def counts(self) -> dict[DeviceCode, int]:
        """Return in how many fatbins each architecture is."""
        found: Counter[DeviceCode] = Counter()
        for group in self.sets:
            for device in {code.device for code in group.codes}:
                found[device] += group.fatbins
        return dict(sorted(found.items(), key=_listing_order))

    def carried(self) -> tuple[DeviceCode, ...]:
        """Return what counts as carried: in nearly all fatbins, or in any of a vendor's."""
        need = 0.0 if self.role in VENDOR else NEARLY_ALL * self.fatbins
        return tuple(device for device, count in self.counts().items() if count >= need)

    def ptx_versions(self) -> tuple[PtxVersion, ...]:
        """Return the ISA versions of its PTX, oldest first."""
        codes = (code for group in self.sets for code in group.codes)
        return tuple(sorted({code.ptx_version for code in codes if code.ptx_version}))


def _listing_order(item: tuple[DeviceCode, int]) -> tuple[bool, DeviceCode]:
    return item[0].kind == "compute", item[0]


class _Seen(NamedTuple):
    """A fatbin that holds kernels, after a first look at their names."""

    codes: tuple[Code, ...]
    image: Entry
    role: Role | None


def sort_fatbins(content: Content, fatbins: Iterable[Fatbin], file_role: Role) -> tuple[Part, ...]:
    """Return the parts of a file whose name says ``file_role``."""
    if file_role in VENDOR:
        return _parts((file_role, codes) for codes in _vendors(content, fatbins))
    seen = [row for fatbin in fatbins if (row := _first_look(content, fatbin)) is not None]
    if file_role == "linear-algebra":
        return _linear_algebra(seen)
    # Where no name can be read (zstd, and a Python without it) the most common set is torch's.
    common = _most_common(row.codes for row in seen if row.role == "torch") or _most_common(
        row.codes for row in seen if row.role is None
    )
    return _parts((_role(content, row, file_role, common), row.codes) for row in seen)


def codes_of(fatbin: Fatbin) -> tuple[Code, ...]:
    """Return what a driver could load from a fatbin, each code once."""
    codes = {
        Code(device, entry.ptx_version)
        for entry in fatbin.entries
        if (device := entry.code) is not None
    }
    return tuple(sorted(codes))


def _parts(rows: Iterable[tuple[Role, tuple[Code, ...]]]) -> tuple[Part, ...]:
    by_role: dict[Role, Counter[tuple[Code, ...]]] = {}
    for role, codes in rows:
        if codes:
            by_role.setdefault(role, Counter())[codes] += 1
    return tuple(
        Part(
            role=role,
            sets=tuple(CodeSet(codes=codes, fatbins=count) for codes, count in sets.most_common()),
        )
        for role, sets in by_role.items()
    )


def _first_look(content: Content, fatbin: Fatbin) -> _Seen | None:
    """Return what the first kernel names of a fatbin tell; None if it holds no kernel."""
    codes = codes_of(fatbin)
    if not codes:
        return None
    # SASS before PTX: in an ELF image the names stand in front.
    images = [entry for entry in fatbin.entries if entry.code is not None]
    image = min(images, key=lambda entry: (entry.kind == "ptx", entry.image_size))
    found = names.kernels(names.beginning(content, image, _FIRST_LOOK))
    if not found and _holds_none(content, image):
        return None
    return _Seen(codes, image, role_of_kernels(found))


def _vendors(content: Content, fatbins: Iterable[Fatbin]) -> Iterator[tuple[Code, ...]]:
    """Yield the codes of a vendor's fatbins, without what nvcc makes of a source with no kernel.

    libcufftw and libnppc of CUDA 11.8 hold nothing but such a stub, for nvcc's default
    architecture: taken for code it would make them miss every other. Only what would add to the
    union is looked at.
    """
    rows = [
        (codes_of(fatbin), max(fatbin.entries, key=lambda image: image.image_size))
        for fatbin in fatbins
        if fatbin.entries
    ]
    union: set[Code] = set()
    for codes, image in sorted(rows, key=lambda row: -row[1].image_size):
        stub = image.image_size <= _LARGEST_STUB
        if not (stub and not union.issuperset(codes) and _holds_none(content, image)):
            union.update(codes)
            yield codes


def _holds_none(content: Content, image: Entry) -> bool:
    """Say whether a device image is empty, as the ones nvcc links into every library."""
    if image.image_size > _SECOND_LOOK:
        return False
    whole = names.beginning(content, image, _SECOND_LOOK)
    return len(whole) >= image.image_size and not names.kernels(whole)


def _role(content: Content, row: _Seen, file_role: Role, common: frozenset[Code]) -> Role:
    """Decide whose a fatbin is.

    Torch compiles every file for one list, so a fatbin that carries all of it is torch's; it
    could not change the verdict either. Only of the others it matters whose they are.
    """
    unnamed = row.role is None
    if unnamed and file_role == "torch" and common and common <= set(row.codes):
        return "torch"
    role = _second_look(content, row) if unnamed else row.role
    if file_role == "torch":
        return role or "other"
    # An extension's own kernels take torch's types as arguments; only a vendor's are not its own.
    return role if role in VENDOR else file_role


def _second_look(content: Content, row: _Seen) -> Role | None:
    return role_of_kernels(names.kernels(names.beginning(content, row.image, _SECOND_LOOK)))


def _linear_algebra(seen: list[_Seen]) -> tuple[Part, ...]:
    """Tell MAGMA and torch's own kernels from the cuSOLVER linked into the same library.

    Neither has names that tell. The most common set is that of what was compiled for this
    library: 107 of 189 fatbins in torch 1.13.1, all of 107 in 2.8.0, 32 of 33 in 2.15.0.
    """
    common = _most_common(row.codes for row in seen)
    return _parts(
        ("linear-algebra" if common <= set(row.codes) else "cusolver", row.codes) for row in seen
    )


def _most_common(sets: Iterable[tuple[Code, ...]]) -> frozenset[Code]:
    ranked = Counter(sets).most_common(1)
    return frozenset(ranked[0][0]) if ranked else frozenset()
