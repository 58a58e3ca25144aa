from __future__ import annotations

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename

from envforge.capability.build_tools import PinnedBuild, build_tools_of, find_pinned_build
from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.capability.models import in_range
from envforge.resolver import Request
from envforge.resolver.candidates import candidates, searches
from envforge.resolver.ground import Terrain

DATABASE = load()
BUILDS = DATABASE.pinned_builds.builds


def bounds(torch: str, python: str) -> dict[str, str | None]:
    return {tool.name: tool.versions for tool in build_tools_of(DATABASE, torch, python)}


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
    for release in DATABASE.releases:
        for python in ("2.7", "3.6", "3.11"):
            names = [tool.name for tool in build_tools_of(DATABASE, release.version, python)]
            assert len(names) == len(set(names)), (release.version, python)


def python_of(tag: str) -> str:
    digits = tag.split("-", maxsplit=1)[0].removeprefix("cp")
    return f"{digits[0]}.{digits[1:]}"


def versions_of(names: tuple[str, ...]) -> dict[str, str]:
    parsed = [parse_wheel_filename(name) for name in names]
    return {project: ".".join(map(str, version.release)) for project, version, _, _ in parsed}


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: f"{build.torch}-{build.tag}")
def test_the_pinned_files_are_the_tools_within_their_bounds(build: PinnedBuild):
    found = versions_of(build.tools)
    assert len(found) == len(build.tools), "no project twice"
    for tool in build_tools_of(DATABASE, build.torch, python_of(build.tag)):
        name = canonicalize_name(tool.name)
        assert (name in found) != (name in build.distribution), name
        if name in found and tool.versions:
            assert in_range(found[name], tool.versions), (name, found[name])
        if tool.at_run_time:
            assert versions_of(build.imports)[name] == found[name], "as it was compiled against"


@pytest.mark.parametrize("origin", ["distribution", "source"])
@pytest.mark.parametrize("gpu", ["sm_30", "sm_35", "sm_37", "sm_50", "sm_61", "sm_75", "sm_120"])
def test_whatever_can_be_asked_for_from_source_is_pinned(gpu, origin):
    """Not only the best answer: with another platform or Python asked for, another one is."""
    request = Request(card=find_card(DATABASE, gpu), route="source", placed=True)
    pairs = {
        (found.resolution.torch, tag_of(found.resolution))
        for search in searches(Terrain(DATABASE), request)
        for found in candidates(search, "source", origin)
        if not found.broken
    }
    assert pairs
    assert [pair for pair in sorted(pairs) if find_pinned_build(DATABASE, *pair) is None] == []


def tag_of(resolution) -> str:
    if resolution.python_origin == "source":
        rows = DATABASE.pythons.versions
    else:
        rows = next(p for p in DATABASE.platforms if p.name == resolution.platform).pythons
    return next(row.wheel_tag for row in rows if row.version == resolution.python)


def test_no_build_is_pinned_twice_and_no_file_for_nothing():
    assert len({(build.torch, build.tag) for build in BUILDS}) == len(BUILDS)
    named = {name for build in BUILDS for name in (*build.tools, *build.imports)}
    wheels = [wheel.name for wheel in DATABASE.pinned_builds.wheels]
    assert len(wheels) == len(set(wheels))
    assert set(wheels) == named


def test_what_no_wheel_ever_was_of_is_a_package_of_every_platform_with_that_python():
    """PyYAML has none for Python 3.5."""
    without = {build.tag: build.distribution for build in BUILDS if build.distribution}
    assert without == {"cp35-cp35m": ("pyyaml",)}
    for platform in DATABASE.platforms:
        for python in platform.pythons:
            if python.wheel_tag in without:
                assert "python3-yaml" in python.devel_packages, platform.name
    built = {row.wheel_tag for row in DATABASE.pythons.versions}
    assert not built & set(without), "a Python that is built has no packages of a distribution"


def test_every_import_of_a_build_is_without_the_cuda_of_the_published_wheel():
    for build in BUILDS:
        assert "numpy" in versions_of(build.imports), build
        assert not [n for n in build.imports if n.startswith(("nvidia", "cuda", "triton"))], build


# pip's own answers (docs/verification/2026-11-28-source.md).
@pytest.mark.parametrize(
    ("platform", "replaced"),
    [
        ("ubuntu-16.04", True),
        ("ubuntu-18.04", True),
        ("ubuntu-20.04", True),
        ("debian-9", True),
        ("debian-10", True),
        ("debian-11", False),
        ("debian-12", False),
        ("ubuntu-22.04", False),
    ],
)
def test_a_pip_that_does_not_know_every_tag_is_replaced(platform, replaced):
    row = next(row for row in DATABASE.platforms if row.name == platform)
    assert in_range(row.pip, DATABASE.build_tools.pip.versions) != replaced


@pytest.mark.parametrize(
    ("name", "glibc"),
    [
        ("six-1.12.0-py2.py3-none-any.whl", None),
        ("torch-1.0.1-cp36-cp36m-linux_x86_64.whl", None),
        ("cmake-3.13.3-cp36-cp36m-manylinux1_x86_64.whl", "2.5"),
        ("numpy-1.19.5-cp36-cp36m-manylinux2010_x86_64.whl", "2.12"),
        ("numpy-2.5.1-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", "2.27"),
        ("ninja-1.13.0-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", "2.17"),
    ],
)
def test_the_name_of_a_wheel_says_which_glibc_it_needs(name, glibc):
    assert DATABASE.build_tools.glibc_of(name) == glibc
