from __future__ import annotations

from random import Random

import pytest
from fatbin_writer import SASS, ZSTD, Image, cubin, fatbin, lz4, packed, ptx, sass
from hypothesis import given, settings
from hypothesis import strategies as st

from envforge.binaries import names
from envforge.binaries.content import content_of
from envforge.binaries.fatbin import Entry, Fatbins

KERNELS = [f"_ZN2at6native{number}kernelEv" for number in range(40)]


def first_entry(data: bytes) -> Entry:
    return next(iter(Fatbins().walk(content_of(data)))).entries[0]


@pytest.mark.parametrize("image", [sass(35, *KERNELS), packed(sass(35, *KERNELS))])
def test_kernel_names_are_read_from_the_beginning_of_an_image(image):
    data = fatbin(image)
    start = names.beginning(content_of(data), first_entry(data), 256)
    assert len(start) == 256
    assert names.kernels(start)[:2] == [kernel.encode() for kernel in KERNELS[:2]]


def test_kernel_names_of_ptx_are_read_too():
    data = fatbin(packed(ptx(50, "_Z4axpyfPKfPfi", "scale$1")))
    start = names.beginning(content_of(data), first_entry(data), 4096)
    assert names.kernels(start) == [b"_Z4axpyfPKfPfi", b"scale$1"]


def test_no_more_is_given_than_the_image_has():
    image = cubin(35, "_Z1kv")
    data = fatbin(packed(sass(35, "_Z1kv")))
    assert names.beginning(content_of(data), first_entry(data), 1 << 20) == image


def test_a_zstd_image_this_python_cannot_unpack_has_no_names(monkeypatch):
    monkeypatch.setattr(names, "_zstd", lambda: None)
    data = fatbin(sass(90)._replace(flags=ZSTD, uncompressed_size=999))
    assert names.beginning(content_of(data), first_entry(data), 100) == b""


needs_zstd = pytest.mark.skipif(
    names._zstd() is None, reason="Python before 3.14 without backports.zstd"
)


@needs_zstd
def test_the_beginning_of_a_large_zstd_image_is_read():
    image = cubin(90, *KERNELS) + Random(1).randbytes(1 << 19)
    packed_image = Image(SASS, 90, ZSTD, names._zstd().compress(image), (1, 7), len(image))
    data = fatbin(packed_image)
    assert names.beginning(content_of(data), first_entry(data), 1024) == image[:1024]


@needs_zstd
def test_a_damaged_zstd_image_has_no_names():
    data = fatbin(sass(90)._replace(flags=ZSTD, uncompressed_size=999))
    assert names.beginning(content_of(data), first_entry(data), 100) == b""


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([b"a", b"abc", b"\0" * 40, b"kernel", b"x" * 300])).map(b"".join),
    st.integers(0, 400),
)
def test_lz4_gives_back_the_beginning_of_what_was_packed(data, limit):
    assert names.unpack_lz4(lz4(data), limit) == data[:limit]


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 5000))
def test_no_bytes_make_lz4_fail_or_give_more_than_asked(data, limit):
    assert len(names.unpack_lz4(data, limit)) <= limit


def test_a_cut_off_block_gives_what_was_there():
    data = b"".join(f"kernel {number} ".encode() for number in range(50))
    block = lz4(data)
    for size in range(len(block)):
        assert data.startswith(names.unpack_lz4(block[:size], len(data)))
