"""Real output of three generations of nvcc; each file's name is the expected answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from envforge.binaries import library, names
from envforge.binaries.content import content_of, open_content
from envforge.binaries.errors import BinaryError
from envforge.binaries.fatbin import Fatbins
from envforge.binaries.library import read_library
from envforge.binaries.verdict import verdict
from envforge.values import ComputeCapability

CAPTURES = sorted(
    path for path in (Path(__file__).parent / "captures").iterdir() if path.name != "README.md"
)


@pytest.fixture(params=CAPTURES, ids=lambda path: path.name)
def capture(request) -> Path:
    return request.param


def expected(path: Path) -> dict[str, int]:
    return {label: int(number) for label, number in re.findall(r",(\w+)=(\d+)", path.name)}


def test_the_listing_is_what_the_name_says(capture):
    found = read_library(capture)
    assert found.counts == expected(capture)
    assert found.defects == ()
    kind = {".o": "elf", ".so": "elf", ".a": "archive"}.get(capture.suffix, capture.suffix[1:])
    assert found.format == kind
    assert {section.name for section in found.sections} == (
        {"__nv_relfatbin"}
        if ",rdc," in capture.name
        else {".nv_fatbin"}
        if kind in ("elf", "archive")
        else {kind}
    )


def test_the_kernel_is_found_in_every_image_that_can_be_unpacked(capture):
    with open_content(capture) as content:
        sections = library.find_fatbins(content, capture.name).sections.values()
        images = [
            entry
            for fatbins in sections
            for fatbin in fatbins
            for entry in fatbin.entries
            if entry.code is not None and (entry.compression != "zstd" or names._zstd() is not None)
        ]
        found = [names.kernels(names.beginning(content, image, 1 << 16)) for image in images]
    empty = 2 if capture.suffix == ".so" else 0  # nvcc links empty images into a library
    assert found.count([]) == empty
    assert {kernel for kernels in found for kernel in kernels} <= {b"_Z4axpyfPKfPfi"}


def test_an_unpacked_image_has_the_size_its_header_says(capture):
    with open_content(capture) as content:
        for fatbins in library.find_fatbins(content, capture.name).sections.values():
            for entry in (entry for fatbin in fatbins for entry in fatbin.entries):
                if entry.compression == "lz4":
                    whole = names.beginning(content, entry, 1 << 20)
                    assert len(whole) == entry.image_size


@pytest.mark.parametrize("card", ["3.5", "3.7", "5.0", "7.5", "8.6", "9.0", "10.3", "12.0"])
def test_a_card_runs_what_the_two_rules_say(capture, card):
    """The answer by hand: any image of the same major version, or any PTX not newer."""
    major, minor = (int(part) for part in card.split("."))
    answers = set()
    for label in expected(capture):
        kind, number, suffix = re.fullmatch(r"(\w+)_(\d+)([af]?)", label).groups()
        own_major, own_minor = divmod(int(number), 10)
        fits = own_major == major and own_minor <= minor
        if suffix == "a":
            fits = (own_major, own_minor) == (major, minor)
        elif kind == "compute":
            fits = (own_major, own_minor) <= (major, minor)
        if fits and kind in ("sm", "compute"):
            answers.add({"sm": "native", "compute": "ptx-jit"}[kind])
    found = verdict(read_library(capture), ComputeCapability.parse(card))
    best = "native" if "native" in answers else "ptx-jit" if answers else "none"
    assert found.support == best


def test_cut_off_at_every_header_it_is_read_without_failing(capture, tmp_path):
    data = capture.read_bytes()
    path = tmp_path / capture.name
    places = {0, 4, 8, 16, 40, 63, 64, len(data) - 1}
    for fatbin in Fatbins().walk(content_of(data)):
        places |= {fatbin.offset + step for step in (1, 8, 15, 16)}
        for entry in fatbin.entries:
            places |= {entry.offset + step for step in (0, 1, 31, 63, 64)}
            places |= {entry.payload[0] - 1, entry.payload[0], entry.payload[1] - 1}
    for size in sorted(places):
        path.write_bytes(data[:size])
        try:
            read_library(path)
        except BinaryError:
            continue


def test_garbage_between_sections_is_not_taken_for_code(capture):
    found = Fatbins().walk(content_of(b"\0" * 3 + capture.read_bytes()))
    assert len(found) == 0  # nothing is aligned any more
