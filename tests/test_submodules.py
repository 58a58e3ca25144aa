from __future__ import annotations

import pytest

from envforge.capability.load import load
from envforge.capability.submodules import submodules_of
from envforge.values import version_key

RECORDED = [
    "0.4.0",
    "0.4.1",
    "1.0.0",
    "1.0.1",
    "1.1.0",
    "1.2.0",
    "1.3.0",
    "1.3.1",
    "1.4.0",
    "1.4.1",
    "1.5.0",
    "1.5.1",
    "1.6.0",
    "1.7.0",
    "1.7.1",
    "1.8.0",
    "1.8.1",
    "1.8.2",
    "1.9.0",
    "1.9.1",
    "1.10.0",
]


def of(torch: str):
    return {row.path: row for row in submodules_of(load(), torch) or ()}


# Counted in the tags' own trees (git ls-tree -r, mode 160000).
@pytest.mark.parametrize(
    ("torch", "count"),
    [("0.4.1", 27), ("1.0.0", 28), ("1.0.1", 28), ("1.4.0", 30), ("1.7.1", 33), ("1.10.0", 37)],
)
def test_a_recorded_release_has_every_submodule_of_its_tag(torch, count):
    assert len(of(torch)) == count


def test_exactly_the_21_recorded_releases_have_submodules():
    table = load().submodules
    found = {torch for pin in table.pins for torch in pin.torch}
    assert sorted(found, key=version_key) == RECORDED
    assert found <= {release.version for release in load().releases}


def test_the_commits_of_1_0_1_are_those_of_its_tag():
    rows = of("1.0.1")
    assert rows["third_party/cub"].commit == "285aeebaa34b0e8a7670867a2e66c1a52d998d6a"
    assert rows["third_party/fbgemm"].commit == "79333308f5e2fc242727879dcd3de3536b6ffc39"
    assert rows["third_party/fbgemm"].urls == ("https://github.com/pytorch/fbgemm",)


def test_a_release_that_is_not_recorded_gives_none_not_nothing():
    assert submodules_of(load(), "1.13.1") is None


def test_a_vanished_submodule_names_its_mirror_after_its_own_address():
    row = of("0.4.1")["third_party/nervanagpu"]
    assert row.urls == (
        "https://github.com/NervanaSystems/nervanagpu.git",
        "https://github.com/VisionSystemsInc/nervanagpu",
    )
    assert row.unused


def test_every_vanished_row_is_one_of_a_pin():
    table = load().submodules
    pinned = {(pin.path, pin.commit) for pin in table.pins}
    assert {(row.path, row.commit) for row in table.vanished} <= pinned


def test_no_release_pins_one_path_twice():
    for torch in RECORDED:
        rows = submodules_of(load(), torch)
        assert len({row.path for row in rows}) == len(rows), torch
