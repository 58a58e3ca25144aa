from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envforge.capability.load import load
from envforge.capability.lookup import driver_floor, find_card, find_platform, releases_matching
from envforge.capability.names import keys_of, marketing_names
from envforge.errors import AmbiguousName, EnvforgeError, UnknownName, UsageError

DATABASE = load()


# Compute capabilities: NVIDIA, developer.nvidia.com/cuda-gpus and cuda-legacy-gpus.
@pytest.mark.parametrize(
    ("typed", "capability"),
    [
        ("gtx760", "3.0"),
        ("GeForce GTX 760", "3.0"),
        ("gtx780", "3.5"),
        ("Tesla K40", "3.5"),
        ("k40", "3.5"),
        ("k80", "3.7"),
        ("gtx970", "5.2"),
        ("gtx1060", "6.1"),
        ("gtx1080", "6.1"),
        ("GTX 1080 Ti", "6.1"),
        ("p100", "6.0"),
        ("v100", "7.0"),
        ("Tesla T4", "7.5"),
        ("rtx3090", "8.6"),
        ("h200", "9.0"),
        ("10de:1187", "3.0"),
        ("10DE:1140", "2.1"),
        ("sm_35", "3.5"),
        ("3.5", "3.5"),
        ("compute_61", "6.1"),
    ],
)
def test_a_card_is_found_by_what_people_type(typed, capability):
    assert str(find_card(DATABASE, typed).compute_capability) == capability


def test_a_single_device_is_named_with_its_id_and_chip():
    card = find_card(DATABASE, "gtx760")
    assert (card.name, card.pci_id, card.chip) == ("GeForce GTX 760", "10de:1187", "GK104")


# The 21 names pci.ids gives to chips of several capabilities (pci.ids 0.0~2026.10.24).
AMBIGUOUS = [
    "GeForce 710M", "GeForce 810M", "GeForce 820M", "GeForce G 105M", "GeForce G210",
    "GeForce GT 1030", "GeForce GT 220", "GeForce GT 720M", "GeForce GT 730",
    "GeForce GTX 750 Ti",
]  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_name_is_asked_back(name):
    with pytest.raises(AmbiguousName) as caught:
        find_card(DATABASE, name)
    assert caught.value.exit_code == 3
    assert len({choice["compute_capability"] for choice in caught.value.choices}) > 1
    assert "--gpu 10de:" in caught.value.hint


def test_gt_720m_is_asked_back_with_both_chips():
    with pytest.raises(AmbiguousName) as caught:
        find_card(DATABASE, "gt720m")
    chips = {choice["chip"]: choice["compute_capability"] for choice in caught.value.choices}
    assert chips == {"GF117": "2.1", "GK208": "3.5"}


def test_an_unknown_card_is_answered_with_near_matches():
    with pytest.raises(UnknownName) as caught:
        find_card(DATABASE, "gtx761")
    assert caught.value.what == "unknown card: 'gtx761'"
    assert "gtx760" in caught.value.near


@pytest.mark.parametrize("typed", ["", " ", "; rm -rf /", "$(id)", "10de:zzzz", "sm_99", "\x00"])
def test_nonsense_is_an_unknown_card(typed):
    with pytest.raises(UnknownName):
        find_card(DATABASE, typed)


@given(st.text(max_size=30))
def test_any_text_is_a_card_or_a_documented_error(text):
    try:
        find_card(DATABASE, text)
    except EnvforgeError as error:
        assert error.exit_code == 3


@given(st.text(max_size=30))
def test_any_text_is_a_release_request_or_a_documented_error(text):
    try:
        releases_matching(DATABASE, text)
    except EnvforgeError as error:
        assert error.exit_code in (2, 3)


def test_a_plain_version_means_itself_and_what_it_begins():
    assert [r.version for r in releases_matching(DATABASE, "2.7")] == ["2.7.1", "2.7.0"]
    assert [r.version for r in releases_matching(DATABASE, "1.0.1")] == ["1.0.1"]


def test_a_specifier_is_read_as_pip_reads_it():
    versions = [r.version for r in releases_matching(DATABASE, ">=1.8,<1.9")]
    assert versions == ["1.8.2", "1.8.1", "1.8.0"]


def test_a_release_that_is_not_in_the_database_is_refused_by_name():
    with pytest.raises(UnknownName) as caught:
        releases_matching(DATABASE, "2.16.0")
    assert caught.value.what == "unknown torch release: '2.16.0'"
    assert "newest known: 2.15.0" in caught.value.hint


@pytest.mark.parametrize("typed", ["1.0.1; rm -rf /", "1.0.1`id`", "latest", "=1.0", "1.0\n2.0"])
def test_what_is_not_a_version_is_refused_at_the_door(typed):
    with pytest.raises(UsageError, match="is not a version"):
        releases_matching(DATABASE, typed)


def test_an_unknown_platform_is_answered_with_the_known_ones():
    with pytest.raises(UnknownName) as caught:
        find_platform(DATABASE, "debian-99")
    assert "debian-12" in caught.value.hint


def test_names_inside_the_brackets_are_spelled_out():
    names = marketing_names("GF117M [GeForce 610M/710M / GT 620M/720M]")
    assert names == ["GeForce 610M", "GeForce 710M", "GeForce GT 620M", "GeForce GT 720M"]
    assert {"gt720m", "geforcegt720m"} <= keys_of("GeForce GT 720M")


# NVIDIA's CUDA release notes, table of driver versions: 11.x runs from 450.80.02 through
# minor-version compatibility.
def test_minor_version_compatibility_lowers_the_driver_floor():
    assert driver_floor(DATABASE, "11.8") == "450.80.02"
    assert driver_floor(DATABASE, "10.1.243") == "418.39"
    assert driver_floor(DATABASE, "99.0") is None
