"""Walk the fatbins of a file from header to header; payloads are never touched.

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

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from struct import Struct
from typing import Literal, NamedTuple

from envforge.binaries.content import Content
from envforge.binaries.flatbuffer import past_flatbuffer
from envforge.values import ComputeCapability, DeviceCode

Kind = Literal["ptx", "sass", "lto-ir", "unknown"]
Compression = Literal["none", "lz4", "zstd"]

MAGIC = b"\x50\xed\x55\xba"
_FATBIN = Struct("<4sHHQ")
_ENTRY = Struct("<H2xIQI4xHHI8xQ8xQ")
_STEP = Struct("<4xIQ12xI").unpack_from
"""Header size, payload size and architecture: what the walk itself needs."""
_LISTED = Struct("<H26xI8xQ").unpack_from
"""Kind, architecture and flags: what an image is counted by."""
_ALIGNMENT = 8
_SMALL_CHUNK, _CHUNK = 1 << 8, 1 << 16
_FIND = re.compile(re.escape(MAGIC)).search
"""Twice as fast as bytes.find for these four bytes."""

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
    """One device image of a fatbin: those fields of its header that tell something."""

    offset: int
    kind_number: int
    header_size: int
    payload_size: int
    compressed_size: int
    minor: int
    major: int
    architecture: int
    flags: int
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
        """Start and end of the payload in the file, without the padding of packed ones."""
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
    headers: tuple[tuple[int, bytes], ...]
    """Where each image's header stands, and its 64 bytes: most are only ever counted."""

    @classmethod
    def of_cubin(cls, code: DeviceCode, size: int) -> Fatbin:
        """Return a cubin that stands alone, with no header in front of it."""
        flags = {"a": _ARCHITECTURE_SPECIFIC, "f": _FAMILY_SPECIFIC}.get(code.suffix, 0)
        header = _ENTRY.pack(2, 0, size, 0, 0, 0, code.capability.number, flags, 0)
        return cls(0, size, ((0, header),))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The images, decoded at every call."""
        unpack = _ENTRY.unpack_from
        return tuple(Entry(offset, *unpack(header)) for offset, header in self.headers)


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
    content: Content,
    start: int = 0,
    end: int | None = None,
    *,
    defects: list[Defect] | None = None,
    mixed: bool = False,
) -> Iterator[Fatbin]:
    """Yield the fatbins between ``start`` and ``end``, empty ones included, in file order.

    What is damaged is appended to ``defects`` and stepped over; other data between fatbins is
    usual where they are ``mixed`` with it, and a defect elsewhere.
    """
    noted: list[Defect] = [] if defects is None else defects
    end = content.size if end is None else min(end, content.size)
    position, read = start, content.read
    while end - position >= _FATBIN.size:
        # The first entry comes with the header: a read costs more than its bytes.
        head = read(min(_FATBIN.size + _ENTRY.size, end - position), position)
        if head.startswith(MAGIC) and len(head) >= _FATBIN.size:
            fatbin = _read_fatbin(read, position, head, end, noted)
            yield fatbin
            position = fatbin.end
        else:
            behind = past_flatbuffer(content, position, end) if mixed else position + 1
            stop = _find_fatbin(content, start, behind, end)
            if not mixed:
                _check_padding(content, position, stop, noted)
            position = stop
    if not mixed:
        _check_padding(content, position, end, noted)


def _find_fatbin(content: Content, base: int, position: int, end: int) -> int:
    """Return where the next fatbin stands, at ``position`` or behind it; ``end`` if nowhere."""
    position += -(position - base) % _ALIGNMENT
    size = _SMALL_CHUNK  # usually padding of a few bytes, and megabytes in the other cases
    while position < end:
        chunk = content.read(min(size, end - position), position)
        found = _FIND(chunk)
        while found and found.start() % _ALIGNMENT:
            found = _FIND(chunk, found.end())
        if found:
            return position + found.start()
        position += size
        size = _CHUNK
    return end


def _check_padding(content: Content, position: int, stop: int, defects: list[Defect]) -> None:
    """Note a gap between fatbins that is anything but zeros."""
    for start in range(position, stop, _CHUNK):
        if content.read(min(_CHUNK, stop - start), start).strip(b"\0"):
            defects.append(Defect(position, f"{stop - position} bytes that are no fatbin"))
            return


def _read_fatbin(
    read: Callable[[int, int], bytes], offset: int, head: bytes, limit: int, defects: list[Defect]
) -> Fatbin:
    """Read the fatbin whose header stands in ``head``."""
    _magic, version, header_size, size = _FATBIN.unpack_from(head)
    if version != 1 or header_size < _FATBIN.size:
        defects.append(Defect(offset, f"fatbin of version {version}, header of {header_size}"))
        return Fatbin(offset, offset + _FATBIN.size, ())
    end = offset + header_size + size
    if end > limit:
        defects.append(Defect(offset, f"fatbin runs {end - limit} bytes past its section"))
        end = limit
    first = head[header_size:]
    return Fatbin(offset, end, _read_headers(read, offset + header_size, first, end, defects))


def _read_headers(
    read: Callable[[int, int], bytes],
    position: int,
    header: bytes,
    end: int,
    defects: list[Defect],
) -> tuple[tuple[int, bytes], ...]:
    """Read the headers of the entries that lie wholly before ``end``.

    The innermost loop of everything here: two thirds of its time are the reads themselves.
    """
    headers: list[tuple[int, bytes]] = []
    smallest = _ENTRY.size
    while position <= end - smallest:
        header = header or read(smallest, position)
        if len(header) < smallest:
            break
        header_size, payload_size, architecture = _STEP(header)
        size = header_size + payload_size
        if header_size < smallest or size > end - position:
            break
        if _OLDEST <= architecture <= _NEWEST:
            headers.append((position, header))
        else:
            defects.append(Defect(position, f"architecture {architecture}"))
        position += size
        header = b""
    if position < end:
        defects.append(Defect(position, f"{end - position} bytes of a fatbin hold no whole entry"))
    return tuple(headers)


def count(fatbins: Iterable[Fatbin]) -> dict[str, int]:
    """Count the images by their label, as cuobjdump lists them."""
    headers = [header for fatbin in fatbins for _, header in fatbin.headers]
    labels: Counter[str] = Counter()
    for (kind_number, architecture, flags), images in Counter(map(_LISTED, headers)).items():
        labels[_label(kind_number, architecture, flags & _SUFFIXES)] += images
    return dict(sorted(labels.items()))
