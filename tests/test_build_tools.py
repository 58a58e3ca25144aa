from __future__ import annotations

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from envforge.capability.build_tools import build_tools_of, pinned_tools_of
from envforge.capability.load import load
from envforge.capability.models import in_range

# The releases of issue 5's builds, with the Python of the platform each is built on by default.
PINNED = [
    ("1.0.1", "cp36-cp36m"),
    ("1.2.0", "cp36-cp36m"),
    ("1.4.0", "cp38-cp38"),
    ("1.7.1", "cp39-cp39"),
    ("1.8.1", "cp38-cp38"),
    ("1.10.2", "cp36-cp36m"),
    ("1.12.1", "cp38-cp38"),
    ("1.13.1", "cp311-cp311"),
    ("2.0.1", "cp311-cp311"),
    ("2.6.0", "cp311-cp311"),
    ("2.6.0", "cp313-cp313"),
    ("2.8.0", "cp311-cp311"),
    ("2.10.0", "cp311-cp311"),
]


def bounds(torch: str, python: str) -> dict[str, str | None]:
    return {tool.name: tool.versions for tool in build_tools_of(load(), torch, python)}


# spack py-torch and the tags' own CMakeLists.txt; CMake 4 came after 2.6.0.
@pytest.mark.parametrize(
    ("torch", "cmake"),
    [
        ("1.0.1", ">=3.5,<4"),
        ("1.10.2", ">=3.10,<4"),
        ("1.13.1", ">=3.13,<4"),
        ("2.6.0", ">=3.18,<4"),
        ("2.8.0", ">=3.27"),
    ],
)
def test_the_cmake_of_a_release_is_bounded_on_both_sides_where_it_must(torch, cmake):
    assert bounds(torch, "3.6")["cmake"] == cmake


def test_python_2_needs_typing_and_future_and_python_3_does_not():
    assert {"typing", "future"} <= set(bounds("1.0.1", "2.7"))
    assert not {"typing", "future"} & set(bounds("1.0.1", "3.6"))


def test_dataclasses_are_for_python_3_6_alone():
    assert "dataclasses" in bounds("1.7.1", "3.6")
    assert "dataclasses" not in bounds("1.7.1", "3.7")


def test_no_release_has_two_rows_for_one_tool():
    for release in load().releases:
        for python in ("2.7", "3.6", "3.11"):
            names = [tool.name for tool in build_tools_of(load(), release.version, python)]
            assert len(names) == len(set(names)), (release.version, python)


@pytest.mark.parametrize(("torch", "tag"), PINNED)
def test_the_pinned_files_are_the_tools_within_their_bounds(torch, tag):
    digits = tag.split("-")[0].removeprefix("cp")
    row = pinned_tools_of(load(), torch, tag)
    versions = {canonicalize_name(p.project): p.version for p in row.packages}
    for name, stated in bounds(torch, f"{digits[0]}.{digits[1:]}").items():
        version = versions[canonicalize_name(name)]
        released = ".".join(map(str, Version(version).release))
        assert stated is None or in_range(released, stated), (name, version)


def test_the_named_builds_are_pinned_and_none_twice():
    found = [(row.torch, row.tag) for row in load().build_tools.pinned]
    assert set(PINNED) <= set(found)
    assert len(found) == len(set(found))
    assert pinned_tools_of(load(), "1.0.1", "cp27-cp27mu") is None


def test_all_pinned_builds_keep_their_bounds():
    for row in load().build_tools.pinned:
        test_the_pinned_files_are_the_tools_within_their_bounds(row.torch, row.tag)


def test_every_pinned_file_is_the_wheel_its_row_says():
    for row in load().build_tools.pinned:
        for package in row.packages:
            name, version, _, _ = parse_wheel_filename(package.file.name)
            assert name == canonicalize_name(package.project)
            assert version == Version(package.version)
