from __future__ import annotations

from struct import pack, pack_into

import pytest
from fatbin_writer import FAMILY, LTO, SASS, SPECIFIC, Image, fatbin, packed, ptx, sass
from hypothesis import given, settings
from hypothesis import strategies as st

from envforge.binaries.content import Content, content_of
from envforge.binaries.fatbin import Entry, Fatbins

SEVERAL = fatbin(sass(35, "_Z1kv"), packed(sass(50, "_Z1kv")), ptx(50, "_Z1kv"))


def labels(data: bytes) -> dict[str, int]:
    return Fatbins().walk(content_of(data)).count()


def entries(data: bytes) -> list[Entry]:
    return [entry for one in Fatbins().walk(content_of(data)) for entry in one.entries]


def strict(data: bytes) -> Content:
    """Content that does not forgive a read outside of it."""

    def read(size: int, offset: int) -> bytes:
        assert 0 <= offset <= offset + size <= len(data)
        return data[offset : offset + size]

    return Content(read, len(data))


def test_every_kind_and_suffix_is_told_by_the_header_alone():
    images = [
        *(Image(SASS, 35), Image(SASS, 90, 0x11 | SPECIFIC), Image(SASS, 100, 0x11 | FAMILY)),
        *(Image(1, 50), Image(1, 120, 0x11 | SPECIFIC), Image(LTO, 90, 0x10011), Image(64, 80)),
    ]
    assert labels(fatbin(*images)) == dict.fromkeys(
        ("compute_120a", "compute_50", "kind64_80", "lto_90", "sm_100f", "sm_35", "sm_90a"), 1
    )


def test_an_entry_says_what_a_driver_needs_to_know():
    _sass, lz4, text = entries(SEVERAL)
    assert (lz4.kind, str(lz4.code), lz4.compression, lz4.ptx_version) == (
        *("sass", "sm_50", "lz4", None),
    )
    assert (text.kind, str(text.code), str(text.ptx_version)) == ("ptx", "compute_50", "8.0")
    assert lz4.image_size > lz4.payload[1] - lz4.payload[0] > 0


def test_lto_ir_cannot_be_loaded_by_itself():
    (entry,) = entries(fatbin(Image(LTO, 90)))
    assert (entry.kind, entry.code, entry.label) == ("lto-ir", None, "lto_90")


def test_longer_entry_headers_and_empty_fatbins_and_padding_are_usual():
    data = fatbin() + fatbin(Image(SASS, 35, header_size=184)) + bytes(24) + fatbin(Image(SASS, 50))
    found = Fatbins().walk(content_of(data))
    assert [len(fatbin.entries) for fatbin in found] == [0, 1, 1]
    assert found.defects == []


def test_the_range_asked_for_is_kept_to():
    one = fatbin(Image(SASS, 35))
    data = one + fatbin(Image(SASS, 50)) + one
    assert Fatbins().walk(content_of(data), len(one), 2 * len(one)).count() == {"sm_50": 1}


def test_a_fatbin_follows_garbage_if_it_is_aligned():
    found = Fatbins().walk(content_of(b"garbage!" * 9000 + fatbin(Image(SASS, 35)) + b"tail"))
    assert found.count() == {"sm_35": 1}
    assert [defect.what for defect in found.defects] == [
        "72000 bytes that are no fatbin",
        "4 bytes that are no fatbin",
    ]


@pytest.mark.parametrize(
    ("offset", "value", "left", "what"),
    [
        (4, pack("<H", 2), {}, "fatbin of version 2, header of 16"),
        (6, pack("<H", 8), {}, "fatbin of version 1, header of 8"),
        (8, pack("<Q", 1 << 63), {"sm_35": 1}, "fatbin runs 9223372036854775744 bytes past"),
        (20, pack("<I", 63), {}, "64 bytes of a fatbin hold no whole entry"),
        (20, pack("<I", 0xFFFFFFFF), {}, "64 bytes of a fatbin hold no whole entry"),
        (24, pack("<Q", (1 << 64) - 64), {}, "64 bytes of a fatbin hold no whole entry"),
        (44, pack("<I", 4), {}, "architecture 4"),
        (44, pack("<I", 0xFFFFFFFF), {}, "architecture 4294967295"),
    ],
)
def test_a_damaged_header_is_noted_and_stepped_over(offset, value, left, what):
    damaged = bytearray(fatbin(Image(SASS, 35)))
    pack_into(f"{len(value)}s", damaged, offset, value)
    found = Fatbins().walk(strict(bytes(damaged)))
    assert found.count() == left
    assert found.defects[0].what.startswith(what)


def test_a_damaged_fatbin_does_not_hide_the_next_one():
    damaged = bytearray(fatbin(Image(SASS, 35)))
    damaged[4] = 7
    assert labels(bytes(damaged) + fatbin(Image(SASS, 50))) == {"sm_50": 1}


def test_cut_off_anywhere_it_gives_what_is_whole():
    whole = entries(SEVERAL)
    for size in range(len(SEVERAL)):
        fatbins = Fatbins().walk(strict(SEVERAL[:size]))
        found = [entry for fatbin in fatbins for entry in fatbin.entries]
        assert found == whole[: len(found)]
        assert all(entry.payload[1] <= size for entry in found)
        assert fatbins.defects or size == 0


def test_a_file_that_shrinks_under_the_reader_ends_the_walk():
    content = Content(lambda size, offset: SEVERAL[offset : min(offset + size, 100)], len(SEVERAL))
    found = Fatbins().walk(content)
    assert sum(found.count().values()) == 1
    assert found.defects


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(SEVERAL) - 1), st.integers(0, 255)), max_size=12))
def test_no_change_of_bytes_makes_it_fail_or_read_outside(changes):
    damaged = bytearray(SEVERAL)
    for offset, value in changes:
        damaged[offset] = value
    end = 0
    for found in Fatbins().walk(strict(bytes(damaged))):
        assert found.offset >= end
        end = found.end
        for entry in found.entries:
            assert found.offset < entry.offset < entry.payload[1] <= found.end <= len(damaged)


@settings(max_examples=200)
@given(st.binary(max_size=400), st.integers(0, 40))
def test_no_bytes_at_all_make_it_fail(data, start):
    found = Fatbins().walk(strict(data), start)
    assert sum(found.count().values()) <= len(data) // 64


def test_close_headers_share_a_read_and_far_ones_do_not_fetch_what_lies_between():
    small, large = (
        fatbin(Image(SASS, 35, payload=bytes(400))),
        fatbin(Image(SASS, 50, payload=bytes(200_000)), Image(SASS, 60, payload=bytes(200_000))),
    )
    data = large * 5 + small * 300 + large * 5
    reads: list[int] = []

    def read(size: int, offset: int) -> bytes:
        reads.append(size)
        return data[offset : offset + size]

    found = Fatbins().walk(Content(read, len(data)))
    assert found.count() == {"sm_35": 300, "sm_50": 10, "sm_60": 10}
    assert len(reads) < 40
    assert sum(reads) < 2 * len(small * 300)


@pytest.mark.parametrize("size", range(0, 200, 8))
def test_a_header_at_the_edge_of_a_read_is_read_whole(size):
    images = [Image(SASS, 35, payload=bytes(32_500 + size)), Image(1, 50), Image(SASS, 60)]
    data = fatbin() + fatbin(*images) + bytes(8) + fatbin(*images)
    found = Fatbins().walk(strict(data))
    assert [[entry.label for entry in one.entries] for one in found] == [
        *([], ["sm_35", "compute_50", "sm_60"], ["sm_35", "compute_50", "sm_60"])
    ]
    assert found.defects == []


def test_sections_of_one_name_are_counted_together():
    found = Fatbins()
    found.walk(content_of(SEVERAL)).walk(content_of(fatbin(Image(SASS, 35), Image(SASS, 4))))
    assert found.count() == {"compute_50": 1, "sm_35": 2, "sm_50": 1}
    assert [len(one.entries) for one in found] == [3, 1]
    assert [defect.what for defect in found.defects] == ["architecture 4"]
