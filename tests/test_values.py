from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envforge.values import (
    ComputeCapability,
    DeviceCode,
    VersionRange,
    best_support,
    version_key,
)

capabilities = st.builds(ComputeCapability, st.integers(1, 19), st.integers(0, 9))


# CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility", and its section on
# feature-set targets for the suffixes.
@pytest.mark.parametrize(
    ("code", "card", "expected"),
    [
        ("sm_35", "3.5", "native"),
        ("sm_35", "3.7", "native"),
        ("sm_37", "3.5", "none"),
        ("sm_30", "3.5", "native"),
        ("sm_35", "5.0", "none"),
        ("sm_60", "6.1", "native"),
        ("sm_80", "8.9", "native"),
        ("sm_80", "9.0", "none"),
        ("compute_50", "3.5", "none"),
        ("compute_35", "9.0", "ptx-jit"),
        ("compute_75", "7.5", "ptx-jit"),
        ("sm_90a", "9.0", "native"),
        ("sm_90a", "10.0", "none"),
        ("compute_90a", "10.0", "none"),
        ("sm_100f", "10.3", "native"),
        ("compute_100f", "12.0", "none"),
    ],
)
def test_device_code_runs_where_the_programming_guide_says(code, card, expected):
    assert DeviceCode.parse(code).support_on(ComputeCapability.parse(card)) == expected


def test_sass_is_preferred_to_ptx():
    codes = [DeviceCode.parse("compute_50"), DeviceCode.parse("sm_60")]
    assert best_support(codes, ComputeCapability(6, 1)) == "native"
    assert best_support(codes, ComputeCapability(7, 0)) == "ptx-jit"
    assert best_support(codes, ComputeCapability(3, 5)) == "none"


@given(capabilities)
def test_a_capability_survives_every_way_of_writing_it(capability):
    assert ComputeCapability.parse(str(capability)) == capability
    assert ComputeCapability.from_number(capability.number) == capability
    assert DeviceCode.parse(f"sm_{capability.number}").capability == capability


@given(capabilities, capabilities)
def test_sass_never_crosses_a_major_version(built_for, card):
    code = DeviceCode("sm", built_for)
    if built_for.major != card.major:
        assert code.support_on(card) == "none"


def test_a_range_is_half_open_so_that_10_2_89_is_a_10_2():
    assert "10.2.89" in VersionRange.parse(">=10.1,<10.3")
    assert "10.3" not in VersionRange.parse(">=10.1,<10.3")
    assert "1.10" in VersionRange.parse(">=1.9,<2")


@pytest.mark.parametrize("text", ["<=10.2", "==1.0", "1.0", "", ">1", "~=1.0"])
def test_bounds_that_mean_less_than_they_seem_are_refused(text):
    with pytest.raises(ValueError, match=r"range|integers"):
        VersionRange.parse(text)


@pytest.mark.parametrize("text", ["sm_5", "sm35", "3.5", "compute_", "sm_350000", "sm_90x"])
def test_what_is_not_device_code_is_refused(text):
    with pytest.raises(ValueError, match="not device code"):
        DeviceCode.parse(text)


def test_versions_compare_as_numbers():
    assert version_key("1.10") > version_key("1.9.1")
    with pytest.raises(ValueError, match="dotted integers"):
        version_key("1.0.1; rm -rf /")
