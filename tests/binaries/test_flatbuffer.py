from __future__ import annotations

from struct import pack

import pytest
from test_fatbin import strict

from envforge.binaries.flatbuffer import past_flatbuffer

HEAD = pack("<I", 16) + pack("<6H", 12, 20, 4, 8, 12, 16)
"""Offset of the root table, then its description (vtable) of four fields, as in cuBLASLt 12.8."""


def flatbuffer(body: int) -> bytes:
    """A root table whose first field points to a table at the end, behind ``body`` bytes."""
    data = HEAD + pack("<iIIII", 12, 20 + body, 0x20, 0x7FFFFFFF, 4) + bytes(body)
    return data + pack("<HH", 4, 4) + pack("<i", 4)


@pytest.mark.parametrize("padding", [0, 8, 24])
def test_it_is_stepped_over_up_to_the_table_at_its_end(padding):
    data = bytes(padding) + flatbuffer(100_000)
    assert past_flatbuffer(strict(data + bytes(64)), 0, len(data) + 64) == len(data) - 4


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        bytes(300),
        b"\x50\xed\x55\xba\x01\0\x10\0" + bytes(300),
        pack("<I", 0xFFFFFFF0) + bytes(300),
        HEAD + pack("<iIIII", 12, 4000, 0, 0, 4) + b"\xff" * 9000,
        HEAD + pack("<iIIII", -9999, 16, 0, 0, 4) + bytes(300),
    ],
)
def test_what_only_looks_like_one_is_not_stepped_over(damage):
    assert past_flatbuffer(strict(damage), 0, len(damage)) == 1


def test_cut_off_anywhere_nothing_behind_its_end_is_asked_for():
    data = flatbuffer(200)
    for size in range(len(data)):
        assert 1 <= past_flatbuffer(strict(data[:size]), 0, size) <= max(size, 1)
