"""Walk the fatbins of a buffer from header to header; payloads are never touched.

The layout is published nowhere. It was measured on the output of nvcc 11.8, 12.4 and 13.0 and on
about 120 libraries of CUDA 9.0 to 13.x, against cuobjdump of the same generation
(docs/verification/2026-11-22-binaries.md). Everything is little endian::

    fatbin   u32 magic · u16 version · u16 header size · u64 bytes that follow      8-aligned
    entry    u16 kind · u16 0x0101 · u32 header size · u64 payload size · u32 compressed size ·
             u32 options offset · u16 minor · u16 major · u32 architecture · u32 u32 identifier ·
             u64 flags · u64 unused · u64 uncompressed size                         64 bytes or more

Sizes come from the file and are never trusted: every step is bounded by the enclosing range, a
header is at least 64 bytes long, so the walk always ends; what does not fit is recorded as a
:class:`Defect` and the rest is still read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from typing import Literal, NamedTuple, TypeAlias

from envforge.values import ComputeCapability, DeviceCode

Buffer: TypeAlias = bytes | mmap.mmap
"""What is parsed: it must offer ``find`` and slices, which ``memoryview`` does not."""

Kind = Literal["ptx", "sass", "lto-ir", "unknown"]
Compression = Literal["none", "lz4", "zstd"]

MAGIC = b"\x50\xed\x55\xba"
_FATBIN = Struct("<4sHHQ")
_ENTRY = Struct("<HHIQIIHHIIIQQQ")
_ALIGNMENT = 8

_KINDS: dict[int, Kind] = {1: "ptx", 2: "sass", 8: "lto-ir"}
_LZ4 = 0x2000
_ZSTD = 0x8000
_ARCHITECTURE_SPECIFIC = 0x100000
_FAMILY_SPECIFIC = 0x200000
_SUFFIXES = _ARCHITECTURE_SPECIFIC | _FAMILY_SPECIFIC
_OLDEST, _NEWEST = 10, 999
"""Architectures outside these cannot be: the header is damaged."""


class PtxVersion(NamedTuple):
    """The version of the PTX language, which decides whether a driver can compile it."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class Defect(NamedTuple):
    """Something in a binary that is not as it must be; the reader went on without it."""

    offset: int
    what: str


class Entry(NamedTuple):
    """One device image of a fatbin: its header's fields as they stand in the file."""

    offset: int
    kind_number: int
    marker: int
    header_size: int
    payload_size: int
    compressed_size: int
    options_offset: int
    minor: int
    major: int
    architecture: int
    identifier_offset: int
    identifier_size: int
    flags: int
    unused: int
    uncompressed_size: int

    @property
    def kind(self) -> Kind:
        """What the payload is; LTO-IR cannot be loaded by itself."""
        return _KINDS.get(self.kind_number, "unknown")

    @property
    def code(self) -> DeviceCode | None:
        """The architecture it was made for; None for what a driver cannot load."""
        return _device_code(self.kind_number, self.architecture, self.flags & _SUFFIXES)

    @property
    def label(self) -> str:
        """How this entry is counted: ``sm_35``, ``compute_50``, ``lto_90``."""
        return _label(self.kind_number, self.architecture, self.flags & _SUFFIXES)

    @property
    def ptx_version(self) -> PtxVersion | None:
        """The PTX ISA version of a PTX entry."""
        return PtxVersion(self.major, self.minor) if self.kind_number == 1 else None

    @property
    def compression(self) -> Compression:
        """How the payload is packed; the header itself never is."""
        if not self.uncompressed_size:
            return "none"
        return "lz4" if self.flags & _LZ4 else "zstd" if self.flags & _ZSTD else "none"

    @property
    def payload(self) -> tuple[int, int]:
        """Start and end of the payload in the buffer, without the padding of packed ones."""
        start = self.offset + self.header_size
        packed = self.compression != "none" and 0 < self.compressed_size < self.payload_size
        return start, start + (self.compressed_size if packed else self.payload_size)

    @property
    def image_size(self) -> int:
        """Bytes of the device image once unpacked."""
        return self.uncompressed_size if self.compression != "none" else self.payload_size


class Fatbin(NamedTuple):
    """The device images of one translation unit, of which the driver picks one."""

    offset: int
    end: int
    entries: tuple[Entry, ...]


@lru_cache(maxsize=4096)
def _device_code(kind_number: int, architecture: int, suffixes: int) -> DeviceCode | None:
    capability = ComputeCapability.from_number(architecture)
    suffix = "a" if suffixes & _ARCHITECTURE_SPECIFIC else "f" if suffixes else ""
    if kind_number == 1:
        return DeviceCode("compute", capability, suffix)
    return DeviceCode("sm", capability, suffix) if kind_number == 2 else None  # noqa: PLR2004


@lru_cache(maxsize=4096)
def _label(kind_number: int, architecture: int, suffixes: int) -> str:
    code = _device_code(kind_number, architecture, suffixes)
    if code is not None:
        return str(code)
    stem = "lto" if _KINDS.get(kind_number) == "lto-ir" else f"kind{kind_number}"
    return stem + str(_device_code(1, architecture, suffixes)).removeprefix("compute")


def walk(
    buffer: Buffer, start: int = 0, end: int | None = None, *, defects: list[Defect] | None = None
) -> Iterator[Fatbin]:
    """Yield the fatbins between ``start`` and ``end``, empty ones included, in file order.

    What is damaged is appended to ``defects`` and stepped over.
    """
    found: list[Defect] = [] if defects is None else defects
    end = len(buffer) if end is None else min(end, len(buffer))
    position = _next_fatbin(buffer, start, start, end, found)
    while position is not None:
        fatbin = _read_fatbin(buffer, position, end, found)
        yield fatbin
        position = _next_fatbin(buffer, start, fatbin.end, end, found)


def _next_fatbin(
    buffer: Buffer, base: int, position: int, end: int, defects: list[Defect]
) -> int | None:
    """Return where the next header stands, stepping over padding, or None at the end."""
    if end - position >= _FATBIN.size and buffer[position : position + 4] == MAGIC:
        return position
    found = position
    while (found := buffer.find(MAGIC, found, end)) >= 0:
        if (found - base) % _ALIGNMENT == 0 and end - found >= _FATBIN.size:
            break
        found += 1
    if buffer[position : found if found >= 0 else end].strip(b"\0"):
        gap = (found if found >= 0 else end) - position
        defects.append(Defect(position, f"{gap} bytes that are no fatbin"))
    return found if found >= 0 else None


def _read_fatbin(buffer: Buffer, offset: int, limit: int, defects: list[Defect]) -> Fatbin:
    """Read the fatbin whose whole header lies before ``limit``."""
    _magic, version, header_size, size = _FATBIN.unpack_from(buffer, offset)
    if version != 1 or header_size < _FATBIN.size:
        defects.append(Defect(offset, f"fatbin of version {version}, header of {header_size}"))
        return Fatbin(offset, offset + _FATBIN.size, ())
    end = offset + header_size + size
    if end > limit:
        defects.append(Defect(offset, f"fatbin runs {end - limit} bytes past its section"))
        end = limit
    first = min(offset + header_size, end)
    return Fatbin(offset, end, tuple(_entries(buffer, first, end, defects)))


def _entries(buffer: Buffer, position: int, end: int, defects: list[Defect]) -> Iterator[Entry]:
    while position < end:
        if end - position < _ENTRY.size:
            defects.append(Defect(position, f"{end - position} bytes are too few for an entry"))
            return
        entry = Entry(position, *_ENTRY.unpack_from(buffer, position))
        position += entry.header_size + entry.payload_size
        if position > end or entry.header_size < _ENTRY.size:
            defects.append(Defect(entry.offset, _misfit(entry, position - end)))
            return
        if _OLDEST <= entry.architecture <= _NEWEST:
            yield entry
        else:
            defects.append(Defect(entry.offset, f"architecture {entry.architecture}"))


def _misfit(entry: Entry, excess: int) -> str:
    if entry.header_size < _ENTRY.size:
        return f"entry header of {entry.header_size} bytes"
    return f"entry runs {excess} bytes past its fatbin"
