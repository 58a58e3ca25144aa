"""Where device code lies in a file: ELF64 sections, static archives, bare cubins.

Only what locates device code is read, and every offset is checked against the file: libraries of
a gigabyte are opened, damaged ones among them. Layout: the System V ABI, chapter 4
(https://www.sco.com/developers/gabi/latest/contents.html) and ar(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Literal, NamedTuple

from envforge.binaries.errors import BinaryError
from envforge.binaries.fatbin import MAGIC, Buffer, Defect
from envforge.values import ComputeCapability, DeviceCode

Format = Literal["elf", "archive", "cubin", "fatbin"]

ELF_MAGIC = b"\x7fELF"
_ARCHIVE = b"!<arch>\n"
_THIN_ARCHIVE = b"!<thin>\n"

_ELF = Struct("<4sBBBBB7xHHIQQQIHHHHHH")
_SECTION = Struct("<IIQQQQIIQQ")
_ELF64, _LITTLE_ENDIAN = 2, 1
_MACHINE_CUDA = 190
_ABI_BEFORE_CUDA_13 = 0x33
_ARCHITECTURE_SPECIFIC_BEFORE_CUDA_13 = 0x800
_SHT_NOBITS = 8
_SHF_COMPRESSED = 0x800
_SHN_XINDEX = 0xFFFF
_NAME_LIMIT = 4096
_MEMBER = Struct("16s12s6s6s8s10s2s")


class Header(NamedTuple):
    """The fields of an ELF header that matter here."""

    os_abi: int
    machine: int
    flags: int
    section_offset: int
    section_size: int
    section_count: int
    names_index: int


class Section(NamedTuple):
    """A section with bytes in the file; offsets are those of the whole file."""

    name: str
    offset: int
    end: int


class Member(NamedTuple):
    """A file in a static archive."""

    name: str
    offset: int
    end: int


def identify(buffer: Buffer) -> Format:
    """Tell the format by its first bytes; BinaryError if it is none of ours."""
    if buffer[:4] == MAGIC:
        return "fatbin"
    if buffer[:8] == _ARCHIVE:
        return "archive"
    if buffer[:8] == _THIN_ARCHIVE:
        raise BinaryError(
            "a thin archive holds no code of its own", hint="inspect the objects it names"
        )
    header = read_header(buffer, 0, len(buffer))
    if header is None:
        raise BinaryError(
            "not a CUDA binary", because=("it is no ELF file, static archive, cubin or fatbin",)
        )
    return "cubin" if header.machine == _MACHINE_CUDA else "elf"


def read_header(buffer: Buffer, start: int, end: int) -> Header | None:
    """Read the header of the little-endian ELF64 file at ``start``; None if there is none."""
    if end - start < _ELF.size or buffer[start : start + 4] != ELF_MAGIC:
        return None
    fields = _ELF.unpack_from(buffer, start)
    if fields[1:3] != (_ELF64, _LITTLE_ENDIAN):
        return None
    return Header(fields[4], fields[7], fields[12], fields[11], *fields[16:])


def cubin_code(header: Header) -> DeviceCode:
    """Return the architecture of a bare cubin; CUDA 13 moved it by one byte."""
    if header.os_abi == _ABI_BEFORE_CUDA_13:
        number, specific = header.flags, _ARCHITECTURE_SPECIFIC_BEFORE_CUDA_13
    else:
        number, specific = header.flags >> 8, 0
    suffix = "a" if header.flags & specific else ""
    return DeviceCode("sm", ComputeCapability.from_number(number & 0xFF), suffix)


def read_sections(buffer: Buffer, start: int, end: int, *, defects: list[Defect]) -> list[Section]:
    """Return the sections of the ELF file between ``start`` and ``end`` that have bytes in it."""
    header = read_header(buffer, start, end)
    if header is None:
        defects.append(Defect(start, "no little-endian ELF64 header"))
        return []
    rows = _section_rows(buffer, header, start, end)
    names = rows[header.names_index] if header.names_index < len(rows) else None
    if header.names_index == _SHN_XINDEX and rows and rows[0][6] < len(rows):
        names = rows[rows[0][6]]
    if names is None:
        defects.append(Defect(start, "no section names: the file is cut off or stripped of them"))
        return []
    return list(_named(buffer, rows, names, (start, end), defects))


_Row = tuple[int, int, int, int, int, int, int, int, int, int]


def _section_rows(buffer: Buffer, header: Header, start: int, end: int) -> list[_Row]:
    """Return the section headers that lie inside the file."""
    table = start + header.section_offset
    if header.section_size < _SECTION.size or not start < table <= end - _SECTION.size:
        return []
    first = _SECTION.unpack_from(buffer, table)
    # More than 65,279 sections: the count stands in the first section's size.
    count = header.section_count or first[5]
    count = min(count, (end - table) // header.section_size)
    step = header.section_size
    return [_SECTION.unpack_from(buffer, table + index * step) for index in range(count)]


def _named(
    buffer: Buffer, rows: list[_Row], names: _Row, bounds: tuple[int, int], defects: list[Defect]
) -> Iterator[Section]:
    start, end = bounds
    strings, strings_end = start + names[4], min(start + names[4] + names[5], end)
    for row in rows:
        if row[1] == _SHT_NOBITS or not row[5]:
            continue
        name = _string(buffer, strings + row[0], strings_end)
        offset, section_end = start + row[4], start + row[4] + row[5]
        if section_end > end:
            defects.append(Defect(offset, f"section {name} runs {section_end - end} bytes past"))
        if row[2] & _SHF_COMPRESSED:
            defects.append(Defect(offset, f"section {name} is compressed"))
        elif offset < end:
            yield Section(name, offset, min(section_end, end))


def _string(buffer: Buffer, offset: int, end: int) -> str:
    if offset >= end:
        return ""
    text = buffer[offset : min(offset + _NAME_LIMIT, end)]
    return text.split(b"\0", 1)[0].decode("utf-8", "replace")


def read_archive(buffer: Buffer, *, defects: list[Defect]) -> Iterator[Member]:
    """Yield the members of a static archive with their names, GNU and BSD long ones included."""
    position, long_names = len(_ARCHIVE), b""
    while position < len(buffer):
        if len(buffer) - position < _MEMBER.size:
            defects.append(Defect(position, "archive is cut off in a member's header"))
            return
        raw_name, *_rest, raw_size, end_mark = _MEMBER.unpack_from(buffer, position)
        data = position + _MEMBER.size
        if end_mark != b"`\n" or not raw_size.strip().isdigit():
            defects.append(Defect(position, "no archive member header"))
            return
        end = data + int(raw_size)
        if end > len(buffer):
            defects.append(Defect(position, f"member runs {end - len(buffer)} bytes past"))
            end = len(buffer)
        position = end + end % 2
        if raw_name.startswith(b"// "):
            long_names = buffer[data:end]
        elif not raw_name.startswith((b"/ ", b"/SYM64/")):
            yield _member(buffer, raw_name, data, end, long_names)


def _member(buffer: Buffer, raw_name: bytes, data: int, end: int, long_names: bytes) -> Member:
    name = raw_name.rstrip(b" ")
    if name.startswith(b"#1/") and name[3:].isdigit():
        size = min(int(name[3:]), end - data)
        name, data = buffer[data : data + size].rstrip(b"\0"), data + size
    elif name.startswith(b"/") and name[1:].isdigit():
        name = long_names[int(name[1:]) :].split(b"\n", 1)[0]
    return Member(name.removesuffix(b"/").decode("utf-8", "replace"), data, end)
