"""Where device code lies in a file: ELF64 sections, static archives.

Only what locates device code is read, and every offset is checked against the file: libraries of
a gigabyte are opened, damaged ones among them. Layout: the System V ABI, chapter 4
(https://www.sco.com/developers/gabi/latest/contents.html) and ar(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Literal, NamedTuple

from envforge.binaries.content import Content
from envforge.binaries.errors import BinaryError
from envforge.binaries.fatbin import MAGIC, Defect

Format = Literal["elf", "archive", "cubin", "fatbin"]

ELF_MAGIC = b"\x7fELF"
_ARCHIVE = b"!<arch>\n"
_FIRST = 16
_THIN_ARCHIVE = b"!<thin>\n"

_ELF = Struct("<4sBBBBB7xHHIQQQIHHHHHH")
_SECTION = Struct("<IIQQQQIIQQ")
_ELF64, _LITTLE_ENDIAN = 2, 1
MACHINE_CUDA = 190
_SHT_NULL, _SHT_SYMTAB, _SHT_NOBITS, _SHT_DYNSYM = 0, 2, 8, 11
_SHF_COMPRESSED = 0x800
_SHN_XINDEX = 0xFFFF
_NAME_LIMIT = 1 << 12
_TABLE_LIMIT = 1 << 24
"""No table of a real library comes near; a damaged one must not fill the memory."""
_SYMBOLS_LIMIT = 1 << 28
"""Of libtorch_cuda.so 1.7.1 the names of the symbols have 36 MB."""
_SYMBOL = Struct("<IBBHQQ")
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
    address: int = 0
    """Where it lies once it is loaded."""


class Member(NamedTuple):
    """A file in a static archive."""

    name: str
    offset: int
    end: int


class Symbol(NamedTuple):
    """One row of a symbol table."""

    strings: bytes
    """The table its name stands in: most names are never asked for."""
    start: int
    kind: int
    """1 data, 2 function, 3 section."""
    other: int
    """Visibility, and a vendor's flags."""
    section: int
    """0: defined in another file."""
    value: int
    """Its address."""

    @property
    def name(self) -> bytes:
        """Its name, mangled; empty where the table is cut off."""
        end = self.strings.find(b"\0", self.start)
        return self.strings[self.start : end] if end >= 0 else b""


def identify(content: Content) -> Format:
    """Tell the format by its first bytes; BinaryError if it is none of ours."""
    start = content.read(min(_FIRST, content.size), 0)
    if start.startswith(MAGIC):
        return "fatbin"
    if start.startswith(_ARCHIVE):
        return "archive"
    if start.startswith(_THIN_ARCHIVE):
        raise BinaryError(
            "a thin archive holds no code of its own", hint="inspect the objects it names"
        )
    header = read_header(content, 0, content.size)
    if header is None:
        raise BinaryError(
            "not a CUDA binary",
            because=(_instead(start),),
            hint="give a library (.so), a wheel, a directory, an image, or an object nvcc made",
        )
    return "cubin" if header.machine == MACHINE_CUDA else "elf"


_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x7fELF\x01", "it is a 32-bit ELF file"),
    (b"\x7fELF\x02\x02", "it is a big-endian ELF file"),
    (b"\x7fELF", "it is an ELF file cut off in its header"),
    (b"MZ", "it is a Windows file (PE), which is not read"),
    *[
        (magic, "it is a macOS file (Mach-O), which has no CUDA code")
        for magic in (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
    ],
    *[
        (magic, "it is packed: unpack it first")
        for magic in (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"7z\xbc\xaf")
    ],
)
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r\f"


def _instead(start: bytes) -> str:
    """Say what a file is that is none of ours, by its first bytes."""
    if not start:
        return "it is empty"
    for magic, words in _OTHERS:
        if start.startswith(magic):
            return words
    if not start.split(b"\0")[0].strip(_TEXT):
        return "it is text"
    return "it is no little-endian ELF64 file, static archive, cubin or fatbin"


def read_header(content: Content, start: int, end: int) -> Header | None:
    """Read the header of the little-endian ELF64 file at ``start``; None if there is none."""
    data = content.read(_ELF.size, start) if end - start >= _ELF.size else b""
    if len(data) < _ELF.size:
        return None
    fields = _ELF.unpack(data)
    if fields[:3] != (ELF_MAGIC, _ELF64, _LITTLE_ENDIAN):
        return None
    return Header(fields[4], fields[7], fields[12], fields[11], *fields[16:])


def read_sections(
    content: Content, start: int, end: int, *, defects: list[Defect]
) -> list[Section]:
    """Return the sections of the ELF file between ``start`` and ``end`` that have bytes in it."""
    header = read_header(content, start, end)
    rows = [] if header is None else _section_rows(content, header, start, end)
    if header is None or not rows:
        defects.append(Defect(start, "no section headers: the file is cut off or stripped"))
        return []
    # More than 65,279 sections: the index of the names stands in the first section's link.
    index = rows[0][6] if header.names_index == _SHN_XINDEX else header.names_index
    offset, size = rows[index][4:6] if index < len(rows) else (0, 0)
    if not size or start + offset >= end:
        defects.append(Defect(start, "the sections have no names"))
        return []
    names = content.read(min(size, end - start - offset, _TABLE_LIMIT), start + offset)
    return list(_named(rows, names, start, end, defects))


_Row = tuple[int, int, int, int, int, int, int, int, int, int]


def _section_rows(content: Content, header: Header, start: int, end: int) -> list[_Row]:
    """Return the section headers that lie inside the file."""
    table, step = start + header.section_offset, header.section_size
    if step < _SECTION.size or not start < table <= end - _SECTION.size:
        return []
    # More than 65,279 sections: their number stands in the first section's size.
    first = content.read(_SECTION.size, table)
    if len(first) < _SECTION.size:
        return []
    count = header.section_count or _SECTION.unpack(first)[5]
    data = content.read(min(count * step, end - table, _TABLE_LIMIT), table)
    return [
        _SECTION.unpack_from(data, position)
        for position in range(0, len(data) - _SECTION.size + 1, step)
    ]


def _named(
    rows: list[_Row], names: bytes, start: int, end: int, defects: list[Defect]
) -> Iterator[Section]:
    for name_offset, kind, flags, address, offset, size, *_rest in rows:
        if kind in (_SHT_NULL, _SHT_NOBITS) or not size:
            continue
        name = names[name_offset : name_offset + _NAME_LIMIT].split(b"\0", 1)[0]
        title = name.decode("utf-8", "replace")
        place, behind = start + offset, start + offset + size
        if behind > end:
            defects.append(Defect(place, f"{title} runs {behind - end} bytes past the file"))
        if flags & _SHF_COMPRESSED:
            defects.append(Defect(place, f"{title} is compressed"))
        elif place < end:
            yield Section(title, place, min(behind, end), address)


def read_symbols(content: Content, *, dynamic: bool = False) -> Iterator[Symbol]:
    """Yield the symbols of an ELF file: all, or those it shares with others (``dynamic``)."""
    header = read_header(content, 0, content.size)
    rows = [] if header is None else _section_rows(content, header, 0, content.size)
    for row in rows:
        if row[1] == (_SHT_DYNSYM if dynamic else _SHT_SYMTAB) and row[6] < len(rows):
            strings = _bytes_of(content, rows[row[6]])
            for start, kind, other, section, value, _size in _symbol_rows(_bytes_of(content, row)):
                yield Symbol(strings, start, kind & 0xF, other, section, value)


def _bytes_of(content: Content, row: _Row) -> bytes:
    offset, size = row[4:6]
    inside = max(0, min(size, content.size - offset, _SYMBOLS_LIMIT))
    return content.read(inside, offset) if inside else b""


def _symbol_rows(table: bytes) -> Iterator[tuple[int, ...]]:
    return _SYMBOL.iter_unpack(table[: len(table) // _SYMBOL.size * _SYMBOL.size])


def read_archive(content: Content, *, defects: list[Defect]) -> Iterator[Member]:
    """Yield the members of a static archive with their names, GNU and BSD long ones included."""
    position, long_names = len(_ARCHIVE), b""
    while position < content.size:
        header = content.read(min(_MEMBER.size, content.size - position), position)
        if len(header) < _MEMBER.size:
            defects.append(Defect(position, "the archive is cut off in a member's header"))
            return
        raw_name, *_rest, raw_size, end_mark = _MEMBER.unpack(header)
        if end_mark != b"`\n" or not raw_size.strip().isdigit():
            defects.append(Defect(position, "no header of an archive member"))
            return
        data = position + _MEMBER.size
        end = data + int(raw_size)
        if end > content.size:
            past = end - content.size
            defects.append(Defect(position, f"a member runs {past} bytes past the archive"))
            end = content.size
        position = end + end % 2
        if raw_name.startswith(b"// "):
            long_names = content.read(min(end - data, _TABLE_LIMIT), data)
        elif not raw_name.startswith((b"/ ", b"/SYM64/")):
            yield _member(content, raw_name, data, end, long_names)


def _member(content: Content, raw_name: bytes, data: int, end: int, long_names: bytes) -> Member:
    name = raw_name.rstrip(b" ")
    if name.startswith(b"#1/") and name[3:].isdigit():
        size = min(int(name[3:]), end - data)
        name, data = content.read(min(size, _NAME_LIMIT), data).rstrip(b"\0"), data + size
    elif name.startswith(b"/") and name[1:].isdigit():
        name = long_names[int(name[1:]) :].split(b"\n", 1)[0]
    return Member(name.removesuffix(b"/").decode("utf-8", "replace"), data, end)
