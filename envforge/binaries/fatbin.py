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
from collections.abc import Iterator
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
_HEADER_SIZE = _FATBIN.size
_ENTRY = Struct("<H2xIQI4xHHI8xQ8xQ")
_SMALLEST = _ENTRY.size
_START = Struct("<QQ").unpack_from
"""A fatbin's header with all that never differs as one number, and the bytes that follow."""
_USUAL = int.from_bytes(_FATBIN.pack(MAGIC, 1, _HEADER_SIZE, 0)[:8], "little")
_STEP = Struct("<4xIQ").unpack_from
"""Header size and payload size: what the walk itself needs."""
_LISTED = Struct("<H26xI8xI").unpack_from
"""Kind, architecture and flags: what an image is counted by."""
_ALIGNMENT = 8
_SMALL_CHUNK, _CHUNK = 1 << 8, 1 << 16
_NARROW, _WIDE = 1 << 8, 1 << 15
"""Bytes to read at a time where images are large, and where they are small: half of cuBLASLt's
headers stand within 2 KB of the one before. See docs/verification/2026-11-28-inspect-speed.md."""
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
    entries: tuple[Entry, ...]


class Fatbins:
    """The fatbins of a section, in the order of the file.

    Kept as their headers, and taken apart when somebody asks: most images are only ever counted,
    and an object for each costs more than reading it.
    """

    def __init__(self, defects: list[Defect] | None = None) -> None:
        self.defects: list[Defect] = [] if defects is None else defects
        """What a walk had to step over."""
        self.bounds: list[tuple[int, int, int, int]] = []
        """Of each fatbin: where it begins, where its first image does, where it ends, and how many
        images stand before it."""
        self.headers: list[bytes] = []
        """Of each image: the 64 bytes that every header has."""
        self._listed: Counter[tuple[int, int, int]] = Counter()
        """How many images have this kind, architecture and flags: some twenty different ones."""

    def __len__(self) -> int:
        return len(self.bounds)

    def __iter__(self) -> Iterator[Fatbin]:
        for offset, end, entries in self._taken_apart(0):
            possible = (entry for entry in entries if _is_possible(entry.architecture))
            yield Fatbin(offset, end, tuple(possible))

    def count(self) -> dict[str, int]:
        """Count the images by their label, as cuobjdump lists them."""
        labels: Counter[str] = Counter()
        for (kind_number, architecture, flags), images in self._listed.items():
            if _is_possible(architecture):
                labels[_label(kind_number, architecture, flags & _SUFFIXES)] += images
        return dict(sorted(labels.items()))

    def walk(
        self, content: Content, start: int = 0, end: int | None = None, *, mixed: bool = False
    ) -> Fatbins:
        """Add the fatbins between ``start`` and ``end``, empty ones included; return itself.

        What is damaged is noted and stepped over; other data between fatbins is usual where they
        are ``mixed`` with it, and a defect elsewhere.
        """
        fatbins, images = len(self.bounds), len(self.headers)
        _Walk(self, content, start, content.size if end is None else end, mixed=mixed).run()
        listed = Counter(map(_LISTED, self.headers[images:]))
        self._listed.update(listed)
        if not all(_is_possible(architecture) for _, architecture, _ in listed):
            self._note_impossible(fatbins)
        return self

    def add_cubin(self, code: DeviceCode, size: int) -> None:
        """Add a cubin that stands alone, with no header in front of it."""
        flags = {"a": _ARCHITECTURE_SPECIFIC, "f": _FAMILY_SPECIFIC}.get(code.suffix, 0)
        header = _ENTRY.pack(2, 0, size, 0, 0, 0, code.capability.number, flags, 0)
        self.bounds.append((0, 0, size, len(self.headers)))
        self.headers.append(header)
        self._listed[_LISTED(header)] += 1

    def _note_impossible(self, fatbins: int) -> None:
        """Note what is for no architecture there is, in all but the first ``fatbins``."""
        for _offset, _end, entries in self._taken_apart(fatbins):
            for entry in entries:
                if not _is_possible(entry.architecture):
                    self.defects.append(Defect(entry.offset, f"architecture {entry.architecture}"))

    def _taken_apart(self, fatbins: int) -> Iterator[tuple[int, int, Iterator[Entry]]]:
        bounds = self.bounds[fatbins:]
        firsts = [*(bound[-1] for bound in bounds), len(self.headers)]
        for (offset, place, end, first), last in zip(bounds, firsts[1:], strict=True):
            yield offset, end, _entries(place, self.headers[first:last])


def _entries(place: int, headers: list[bytes]) -> Iterator[Entry]:
    for header in headers:
        entry = Entry(place, *_ENTRY.unpack(header))
        yield entry
        place += entry.header_size + entry.payload_size


def _is_possible(architecture: int) -> bool:
    return _OLDEST <= architecture <= _NEWEST


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


class _Walk:
    """One walk from header to header between two offsets of a file.

    ``limit`` is where the fatbin ends that ``position`` is in, and ``position`` between two.
    """

    def __init__(
        self, found: Fatbins, content: Content, start: int, end: int, *, mixed: bool
    ) -> None:
        self.found, self.content, self.mixed = found, content, mixed
        self.start, self.end = start, min(end, content.size)

    def run(self) -> None:
        position = limit = self.start
        while position < limit or self.end - position >= _HEADER_SIZE:
            position, limit = self._take_usual(position, limit)
            if position < limit:
                rest = limit - position
                self._note(position, f"{rest} bytes of a fatbin hold no whole entry")
                position = limit
            elif self.end - position >= _HEADER_SIZE:
                position, limit = self._take_unusual(position)
        if not self.mixed:
            self._check_padding(position, self.end)

    def _take_usual(self, position: int, limit: int) -> tuple[int, int]:
        """Take headers up to one that is cut off or not as usual; return where that stands.

        The innermost loop of everything here; a third of its time are the reads.
        """
        read, end = self.content.read, self.end
        bounds, headers = self.found.bounds, self.found.headers
        window, base, behind, last = b"", 0, -_WIDE, -1
        while True:
            if position > last:
                size = _WIDE if position - behind < _WIDE else _NARROW
                window, base = read(min(size, end - position), position), position
                behind = base + len(window)
                last = behind - _SMALLEST
                if position > last:
                    return position, limit
            at = position - base
            if position == limit:
                start, size = _START(window, at)
                if size and not start:  # eight zeros in front of something: padding
                    position = limit = position + _ALIGNMENT
                    continue
                first = position + _HEADER_SIZE
                if start != _USUAL or first + size > end:
                    return position, limit
                limit = first + size
                bounds.append((position, first, limit, len(headers)))
                position = first
                continue
            header_size, payload_size = _STEP(window, at)
            following = position + header_size + payload_size
            if header_size < _SMALLEST or following > limit:
                return position, limit
            headers.append(window[at : at + _SMALLEST])
            position = following

    def _take_unusual(self, position: int) -> tuple[int, int]:
        """Take a fatbin's header that is not as usual, or go to the next fatbin there is."""
        head = self.content.read(_HEADER_SIZE, position)
        if len(head) < _HEADER_SIZE or not head.startswith(MAGIC):
            found = self._search(position)
            return found, found
        _magic, version, header_size, size = _FATBIN.unpack(head)
        if version != 1 or header_size < _HEADER_SIZE:
            self._note(position, f"fatbin of version {version}, header of {header_size}")
            header_size, size = _HEADER_SIZE, 0
        limit = position + header_size + size
        if limit > self.end:
            self._note(position, f"fatbin runs {limit - self.end} bytes past its section")
            limit = self.end
        first = min(position + header_size, limit)
        self.found.bounds.append((position, first, limit, len(self.found.headers)))
        return first, limit

    def _search(self, position: int) -> int:
        """Return where the next fatbin stands, the end if nowhere; note what is not padding."""
        behind = past_flatbuffer(self.content, position, self.end) if self.mixed else position + 1
        found = _find_fatbin(self.content, self.start, behind, self.end)
        if not self.mixed:
            self._check_padding(position, found)
        return found

    def _check_padding(self, position: int, end: int) -> None:
        """Note a gap between fatbins that is anything but zeros."""
        for start in range(position, end, _CHUNK):
            if self.content.read(min(_CHUNK, end - start), start).strip(b"\0"):
                self._note(position, f"{end - position} bytes that are no fatbin")
                return

    def _note(self, position: int, what: str) -> None:
        self.found.defects.append(Defect(position, what))


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
