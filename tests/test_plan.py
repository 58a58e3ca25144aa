"""What a plan decides beside the resolution: profile, source tree, cuDNN."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.capability.models import in_range
from envforge.capability.profiles import profiles_of
from envforge.errors import NoFittingCudnn, SourceError, UsageError
from envforge.image.plan import Plan, Wanted, make_plan
from envforge.resolver import Request, resolve
from envforge.sources.git import GitTree

DATABASE = load()


def plan_of(gpu: str, torch: str, wanted: Wanted, **asked: str) -> Plan:
    request = Request(
        card=find_card(DATABASE, gpu), torch=torch, route="source", placed=True, **asked
    )
    return make_plan(DATABASE, resolve(DATABASE, request), wanted)


@pytest.mark.parametrize(
    ("gpu", "torch", "version"),
    [
        ("gtx780", "1.13.1", "8.7.0.84"),  # the last with sm_35: 8.8.0 has none (measured)
        ("k80", "1.13.1", "8.7.0.84"),
        ("gtx970", "1.13.1", "8.9.6.50"),  # 9 came with torch 2.4: 1.13.1 was never built with it
    ],
)
def test_the_newest_cudnn_that_fits_card_and_release_is_taken(gpu, torch, version):
    plan = plan_of(gpu, torch, Wanted(cudnn=">=8"), platform="debian-12")
    assert plan.source is not None
    assert plan.source.cudnn is not None
    assert plan.source.cudnn.version == version
    assert plan.source.switches["USE_CUDNN"] == "1"


def test_without_being_asked_for_there_is_no_cudnn():
    plan = plan_of("gtx780", "1.13.1", Wanted(), platform="debian-12")
    assert plan.source is not None
    assert plan.source.cudnn is None
    assert plan.source.switches["USE_CUDNN"] == "0"


def test_a_cudnn_without_the_cards_code_is_refused_with_the_reason():
    with pytest.raises(NoFittingCudnn) as caught:
        plan_of("gtx780", "1.13.1", Wanted(cudnn="8.9"), platform="debian-12")
    assert caught.value.exit_code == 4
    assert caught.value.what == ("no cuDNN 8.9 in the database fits torch 1.13.1 with CUDA 11.8.0")
    assert caught.value.because == ("cuDNN 8.9.6.50: it has no code for 3.5",)


def test_a_cudnn_newer_than_the_release_ever_had_is_refused():
    with pytest.raises(NoFittingCudnn) as caught:
        plan_of("gtx970", "1.13.1", Wanted(cudnn="9.10"), platform="debian-12")
    assert caught.value.because == (
        "cuDNN 9.10.2.21: torch 1.13.1 was never published with a cuDNN newer than 8",
    )


def test_a_version_that_is_none_is_a_usage_error():
    with pytest.raises(UsageError, match="--cudnn: 'newest' is not a version"):
        plan_of("gtx780", "1.13.1", Wanted(cudnn="newest"), platform="debian-12")


def test_the_first_profile_that_fits_is_the_default():
    plan = plan_of("gtx780", "1.13.1", Wanted(), platform="debian-12")
    assert plan.source is not None
    assert plan.source.profile.name == "system-libs"
    assert plan.source.tree.name == "pytorch_1.13.1+dfsg.orig.tar.xz"


def test_a_profile_that_does_not_fit_is_refused_with_those_that_do():
    with pytest.raises(UsageError) as caught:
        plan_of("gtx760", "1.0.1", Wanted(profile="system-libs"))
    assert caught.value.what == "there is no profile 'system-libs' for torch 1.0.1 on ubuntu-18.04"
    assert caught.value.hint == "there are: full, minimal"


def test_a_tree_from_git_has_its_commit_and_its_recorded_submodules():
    plan = plan_of("gtx760", "1.0.1", Wanted())
    assert plan.source is not None
    tree = plan.source.tree.origin
    assert isinstance(tree, GitTree)
    assert (tree.tag, tree.commit) == ("v1.0.1", "83221655a8237ca80f9673dad06a98d34c43e546")
    assert tree.submodules is not None
    assert len(tree.submodules) == 28  # git ls-tree v1.0.1


def test_only_a_build_from_source_has_a_profile():
    request = Request(card=find_card(DATABASE, "gtx780"), torch="1.0.1", placed=True)
    with pytest.raises(UsageError, match="only a build from source"):
        make_plan(DATABASE, resolve(DATABASE, request), Wanted(profile="full"))


def test_a_release_whose_commit_nobody_recorded_is_refused_by_name():
    releases = tuple(replace(row, commit=None, wheel_commit=None) for row in DATABASE.releases)
    database = replace(DATABASE, releases=releases)
    request = Request(card=find_card(database, "gtx760"), torch="1.0.1", placed=True)
    with pytest.raises(SourceError, match=r"the commit of torch 1\.0\.1 is not in the database"):
        make_plan(database, resolve(database, request))


def test_build_tools_are_of_the_releases_time_and_numpy_stays_with_torch():
    plan = plan_of("gtx760", "1.0.1", Wanted())
    assert plan.source is not None
    tools = {tool.distribution: tool.version for tool in plan.source.tools}
    # upstream of March 2019: CMake 3.13, PyYAML before 6, numpy 1.16
    assert (tools["cmake"], tools["pyyaml"], tools["numpy"]) == ("3.13.3", "5.4", "1.16.2")
    assert [(each.distribution, each.version) for each in plan.source.imports] == [
        ("numpy", "1.16.2")
    ]


def test_a_build_whose_tools_are_not_pinned_is_refused_before_anything_is_fetched():
    """The distribution's cmake, of another time, would be found out about after hours."""
    unpinned = replace(DATABASE.pinned_builds, builds=())
    database = replace(DATABASE, pinned_build_table=msgspec.Raw(msgspec.msgpack.encode(unpinned)))
    request = Request(card=find_card(database, "gtx760"), torch="1.0.1", placed=True)
    with pytest.raises(SourceError) as caught:
        make_plan(database, resolve(database, request))
    assert caught.value.what == (
        "what building torch 1.0.1 on Python 3.6 runs and imports is not pinned in the database yet"
    )
    assert caught.value.hint == (
        "python scripts/pin_build_tools.py 1.0.1:cp36-cp36m  pins them, in a checkout of envforge"
    )


def test_a_wheel_that_needs_a_newer_glibc_than_the_platforms_is_refused_by_name():
    platforms = tuple(replace(row, glibc="2.16") for row in DATABASE.platforms)
    database = replace(DATABASE, platforms=platforms)
    asked = {"torch": "1.10.2", "platform": "ubuntu-18.04", "placed": True}
    request = Request(card=find_card(database, "gtx760"), **asked)
    with pytest.raises(SourceError) as caught:
        make_plan(database, resolve(database, request))
    assert caught.value.what == (
        "cmake-3.22.2-py2.py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl does not run on"
        " ubuntu-18.04"
    )
    assert caught.value.because == ("it needs glibc 2.17, the platform has 2.16",)


def test_a_tree_of_the_distributions_is_built_with_the_distributions_tools():
    plan = plan_of("gtx780", "1.13.1", Wanted(), platform="debian-12")
    assert plan.source is not None
    assert plan.source.wheels == ()


def test_what_a_wheel_takes_cuda_from_is_no_import_of_a_build_from_source():
    plan = plan_of("gtx780", "1.13.1", Wanted(profile="full"), platform="debian-12")
    assert plan.source is not None
    names = {each.distribution for each in plan.source.imports}
    assert "numpy" in names
    assert not [name for name in names if name.startswith(("nvidia", "triton"))]


def test_every_release_that_can_be_built_has_a_profile_on_every_platform():
    for release in DATABASE.releases:
        for platform in DATABASE.platforms:
            assert profiles_of(DATABASE, release.version, platform.name), release.version


@pytest.mark.parametrize("profile", DATABASE.profiles, ids=lambda p: f"{p.name} {p.torch}")
def test_every_profile_turns_cuda_on_and_knows_how_cudnn_is_asked_for(profile):
    old = "NO_CUDNN" in profile.switches
    assert old == in_range("1.0.1", profile.torch), "NO_* up to 1.0.1, USE_* since 1.1"
    name = "NO_CUDNN" if old else "USE_CUDNN"
    assert profile.switches[name] != profile.with_cudnn[name]
