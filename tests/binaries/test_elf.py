from __future__ import annotations

from struct import pack, pack_into

import pytest
from fatbin_writer import archive, cubin, elf, fatbin, member, ptx, sass
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fatbin import strict

from envforge.binaries.content import content_of
from envforge.binaries.elf import Symbol, identify, read_archive, read_sections
from envforge.binaries.errors import BinaryError
from envforge.binaries.fatbin import Defect

LIBRARY = elf((".text", b"code"), (".nv_fatbin", fatbin(sass(35))), (".data", b"12345678"))
_ROW, _NAMES = 64, 62


def sections(data: bytes, defects: list[Defect] | None = None) -> dict[str, bytes]:
    noted: list[Defect] = [] if defects is None else defects
    found = read_sections(strict(data), 0, len(data), defects=noted)
    return {section.name: data[section.offset : section.end] for section in found}


def row(data: bytes, index: int) -> int:
    """Where the header of a section stands."""
    return int.from_bytes(data[40:48], "little") + index * _ROW


def changed(data: bytes, offset: int, value: bytes) -> bytes:
    out = bytearray(data)
    pack_into(f"{len(value)}s", out, offset, value)
    return bytes(out)


def test_sections_are_found_by_name():
    found = sections(LIBRARY)
    assert found[".nv_fatbin"] == fatbin(sass(35))
    assert found[".text"] == b"code"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (LIBRARY, "elf"),
        (cubin(35, "_Z1kv"), "cubin"),
        (fatbin(), "fatbin"),
        (archive(("a.o", LIBRARY)), "archive"),
    ],
)
def test_formats_are_told_by_their_first_bytes(data, kind):
    assert identify(content_of(data)) == kind


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"MZ" + bytes(100), b"\x7fELF\x01\x01" + bytes(90), bytes(64)]
)
def test_what_is_no_binary_of_ours_is_refused(data):
    with pytest.raises(BinaryError, match="not a CUDA binary"):
        identify(content_of(data))


def test_a_thin_archive_is_refused_with_what_to_do():
    with pytest.raises(BinaryError, match="thin archive") as refusal:
        identify(content_of(b"!<thin>\n"))
    assert refusal.value.hint == "inspect the objects it names"


def test_a_section_without_bytes_in_the_file_is_left_out():
    nobits = changed(LIBRARY, row(LIBRARY, 3) + 4, pack("<I", 8))
    assert ".nv_fatbin" not in sections(nobits)


def test_a_compressed_section_is_noted():
    defects: list[Defect] = []
    assert ".nv_fatbin" not in sections(
        changed(LIBRARY, row(LIBRARY, 3) + 8, pack("<Q", 0x800)), defects
    )
    assert [defect.what for defect in defects] == [".nv_fatbin is compressed"]


def test_a_section_past_the_end_is_cut_and_noted():
    defects: list[Defect] = []
    data = changed(LIBRARY, row(LIBRARY, 3) + 32, pack("<Q", 1 << 62))
    assert sections(data, defects)[".nv_fatbin"].startswith(fatbin(sass(35)))
    assert "bytes past the file" in defects[0].what


def test_numbers_too_large_for_the_header_stand_in_the_first_section():
    data = changed(LIBRARY, row(LIBRARY, 0) + 32, pack("<QI", 5, 1))
    data = changed(data, 60, pack("<HH", 0, 0xFFFF))
    assert sections(data) == sections(LIBRARY)


@pytest.mark.parametrize(
    "data",
    [
        changed(LIBRARY, _NAMES, pack("<H", 9)),
        changed(LIBRARY, 40, pack("<Q", 1 << 63)),
        changed(LIBRARY, 40, pack("<Q", 0)),
        changed(LIBRARY, 58, pack("<H", 63)),
        LIBRARY[:64],
        b"no ELF file",
    ],
)
def test_without_section_headers_nothing_is_found_and_that_is_noted(data):
    defects: list[Defect] = []
    assert sections(data, defects) == {}
    assert len(defects) == 1


def test_members_of_an_archive_have_their_long_names():
    objects = [("axpy.o", LIBRARY), ("a_name_longer_than_sixteen.o", b"odd")]
    data = archive(*objects)
    defects: list[Defect] = []
    found = list(read_archive(content_of(data), defects=defects))
    assert [(name, data[start:end]) for name, start, end in found] == objects
    assert defects == []


def test_names_of_other_archivers_are_read_too():
    bsd = b"!<arch>\n" + member("#1/8", b"long.o\0\0" + LIBRARY) + member("short.o/", b"x")
    found = list(read_archive(content_of(bsd), defects=[]))
    assert [name for name, _start, _end in found] == ["long.o", "short.o"]
    assert bsd[found[0].offset : found[0].end] == LIBRARY


def test_symbol_tables_are_no_members():
    data = b"!<arch>\n" + member("/", b"table") + member("/SYM64/", b"table") + member("a.o/", b"a")
    assert [found.name for found in read_archive(content_of(data), defects=[])] == ["a.o"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"!<arch>\nshort", "the archive is cut off in a member's header"),
        (b"!<arch>\n" + bytes(60), "no header of an archive member"),
        (b"!<arch>\n" + member("a.o/", b"1234")[:-2], "a member runs 2 bytes past the archive"),
    ],
)
def test_a_damaged_archive_is_noted(data, what):
    defects: list[Defect] = []
    list(read_archive(content_of(data), defects=defects))
    assert [defect.what for defect in defects] == [what]


def test_a_library_cut_off_anywhere_is_read_without_failing():
    for size in range(len(LIBRARY)):
        sections(LIBRARY[:size], [])


def test_an_archive_cut_off_anywhere_is_read_without_failing():
    data = archive(("axpy.o", LIBRARY), ("b.o", cubin(50, "_Z1kv")))
    for size in range(8, len(data)):
        defects: list[Defect] = []
        for found in read_archive(content_of(data[:size]), defects=defects):
            assert found.offset <= found.end <= size


MIXED = elf((".nv_fatbin", fatbin(sass(35, "_Z1kv"), ptx(50))), (".text", b"x" * 40))


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(MIXED) - 1), st.integers(0, 255)), max_size=12))
def test_no_change_of_bytes_makes_it_fail_or_read_outside(changes):
    damaged = bytearray(MIXED)
    for offset, value in changes:
        damaged[offset] = value
    for section in read_sections(strict(bytes(damaged)), 0, len(damaged), defects=[]):
        assert 0 <= section.offset < section.end <= len(damaged)


def test_a_symbol_whose_name_is_cut_off_has_none():
    whole = Symbol(b"\0kernel\0", 1, 2, 0, 1, 0)
    assert whole.name == b"kernel"
    assert [whole._replace(strings=b"\0kern").name, whole._replace(start=99).name] == [b"", b""]
