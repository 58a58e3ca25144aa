from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envforge.capability.load import load
from envforge.capability.lookup import (
    Card,
    conda_risks,
    covers_cudnn,
    driver_floor,
    find_card,
    find_device,
    find_platform,
    memory_of,
    notes_of,
    pip_arguments,
    releases_matching,
    wheel_risks,
)
from envforge.capability.models import in_range
from envforge.capability.names import keys_of, marketing_names
from envforge.documents import parse_yaml
from envforge.errors import AmbiguousName, EnvforgeError, UnknownName, UsageError
from envforge.values import ComputeCapability

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


# The 21 names pci.ids gives to chips of several capabilities (pci.ids 0.0~2026.10.24), with the
# ids that bear them; capability of a chip: NVIDIA, cuda-gpus and cuda-legacy-gpus.
AMBIGUOUS = {
    "GeForce 710M": {"1140": "2.1", "1295": "3.5"},
    "GeForce 810M": {"0fee": "3.0", "1140": "2.1"},
    "GeForce 820M": {"0fed": "3.0", "1140": "2.1"},
    "GeForce G 105M": {"06ec": "1.1", "06f1": "1.1", "0a68": "1.2", "0a69": "1.2"},
    "GeForce G210": {"065f": "1.1", "0a60": "1.2"},
    "GeForce GT 1030": {"0fc5": "3.0", "1d01": "6.1"},
    "GeForce GT 220": {"0633": "1.1", "0a20": "1.2", "0ca5": "1.2", "0cac": "1.2"},
    "GeForce GT 240": {"06ee": "1.1", "0ca3": "1.2"},
    "GeForce GT 330": {"0410": "1.1", "0ca0": "1.2", "0ca7": "1.2"},
    "GeForce GT 640 OEM": {"0fc0": "3.0", "124b": "2.1"},
    "GeForce GT 640M LE": {"0de9": "2.1", "0fce": "3.0", "0fd3": "3.0"},
    "GeForce GT 710": {"104d": "2.1", "1281": "3.5", "1289": "3.5", "128b": "3.5"},
    "GeForce GT 720": {"0fcc": "3.0", "1286": "3.5", "1288": "3.5"},
    "GeForce GT 720M": {"1140": "2.1", "1298": "3.5"},
    "GeForce GT 730": {"0f02": "2.1", "0f06": "2.1", "0fc9": "3.0", "1287": "3.5"},
    "GeForce GT 730M": {"0fe1": "3.0", "1290": "3.5", "1293": "3.5"},
    "GeForce GT 740M": {"0fdf": "3.0", "1292": "3.5", "1294": "3.5"},
    "GeForce GTX 560 Ti OEM": {"1082": "2.0", "1202": "2.1"},
    "GeForce GTX 750 Ti": {"11c7": "3.0", "1380": "5.0", "139d": "5.0"},
    "GeForce GTX 860M": {"119a": "3.0", "1392": "5.0"},
    "ION": {"0874": "1.1", "087d": "1.1", "0a64": "1.2", "0a6f": "1.2"},
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_name_is_asked_back(name):
    with pytest.raises(AmbiguousName) as caught:
        find_card(DATABASE, name)
    assert caught.value.exit_code == 3
    choices = {
        choice["pci_id"][5:]: choice["compute_capability"] for choice in caught.value.choices
    }
    assert AMBIGUOUS[name].items() <= choices.items()
    assert len(set(choices.values())) > 1
    assert "--gpu 10de:" in caught.value.hint


def test_all_21_ambiguous_names_are_tried():
    assert len(AMBIGUOUS) == 21


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


def card(text: str) -> ComputeCapability:
    return ComputeCapability.parse(text)


# Wikipedia, "List of Nvidia graphics processing units".
@pytest.mark.parametrize(
    ("typed", "sizes"),
    [
        ("gtx760", (2048, 4096)),
        ("10de:118e", (1536, 2048, 3072, 4096)),  # GTX 760 OEM: which of them is not said
        ("gtx780", (3072, 6144)),
        ("Tesla K40", (12288,)),
        ("k80", (12288,)),  # two GPUs, each its own card
        ("gtx970", (4096,)),
        ("v100", (16384, 32768)),
        ("10de:1287", (1024, 2048, 4096)),  # GT 730 with GK208
        ("10de:0fc9", ()),  # GT 730 with GK107: no source
        ("10de:1082", (1280, 2560)),  # GTX 560 Ti with GF110
        ("sm_35", ()),
    ],
)
def test_a_card_is_known_by_the_memory_it_was_sold_with(typed, sizes):
    assert memory_of(DATABASE, find_card(DATABASE, typed)) == sizes


def test_a_device_without_a_known_size_has_none():
    assert memory_of(DATABASE, find_device(DATABASE, "10de:2901")) == ()
    assert memory_of(DATABASE, Card("no such card", card("3.5"))) == ()


# Support matrices of cuDNN 7.6.0, 8.0.3, 8.4.0, 8.5.0 and 9.10.2 (docs.nvidia.com).
def test_a_cudnn_that_no_source_speaks_of_is_not_known():
    assert covers_cudnn(DATABASE, "4.0", "7.5.18", card("3.5")) is None
    assert covers_cudnn(DATABASE, "8.7.0.84", "11.8", card("3.5")) is True
    assert covers_cudnn(DATABASE, "8.8.0.121", "11.8", card("3.7")) is False


def wheel(torch: str, variant: str | None = None):
    return next(w for w in DATABASE.wheels if (w.torch, w.variant) == (torch, variant))


# Measured on the wheels: libtorch_cuda_linalg of 2.11.0 to 2.14.1 has neither sm_75 nor PTX, that
# of 2.15.0 in 1 of 33 fatbins; the cuDNN linked into 1.0 to 1.5 has no PTX for newer cards.
@pytest.mark.parametrize(
    ("torch", "capability", "risks"),
    [
        ("2.10.0", "7.5", ()),
        ("2.11.0", "7.5", ("linalg-none",)),
        ("2.14.1", "7.5", ("linalg-none",)),
        ("2.15.0", "7.5", ("linalg-partial",)),
        ("2.15.0", "8.9", ()),
        ("1.12.1", "3.7", ()),  # sm_35 in one half of the fatbins, sm_37 in the other
        ("1.0.1", "8.6", ("cudnn-none",)),
        ("1.0.1", "7.5", ("cuda-9-on-turing",)),
        ("1.3.1", "3.7", ()),
    ],
)
def test_what_may_fail_beside_torchs_own_kernels_is_named(torch, capability, risks):
    assert wheel_risks(DATABASE, wheel(torch), card(capability)) == risks


def test_what_was_not_measured_is_no_risk():
    assert wheel("2.12.0").linalg is None
    assert wheel_risks(DATABASE, wheel("2.12.0"), card("7.5")) == ()


# conda-forge/pytorch-cpu-feedstock: 1.12.1 with CUDA 10.2 pins cudnn 7, 2.4.0 with 11.8 cudnn 8,
# 2.13.0 with 12.9 cudnn 9 without an upper bound.
@pytest.mark.parametrize(
    ("torch", "cuda", "lacking"),
    [("1.12.1", "10.2", ()), ("2.4.0", "11.8", ("3.5",)), ("2.13.0", "12.9", ("3.5", "6.1"))],
)
def test_the_newest_cudnn_a_conda_build_accepts_is_judged(torch, cuda, lacking):
    found = [row for row in DATABASE.conda_builds if (row.torch, row.cuda) == (torch, cuda)]
    for capability in ("3.5", "6.1", "7.5"):
        risks = conda_risks(DATABASE, found[0], card(capability))
        assert risks == (("conda-cudnn-none",) if capability in lacking else ())


def test_a_release_comes_with_its_notes():
    texts = [note.text for note in notes_of(DATABASE, "1.0.1")]
    assert any("cusparseGetErrorString" in text for text in texts)
    assert any("refs/tags/vX" in text for text in texts)
    assert not any("fbjni" in text for text in texts)


# pytorch.org previous versions; spack py-torchvision.
@pytest.mark.parametrize(
    ("torch", "torchvision"), [("1.0.1", "0.2.2"), ("1.13.1", "0.14.1"), ("2.14.0", "0.29.0")]
)
def test_a_release_has_its_torchvision(torch, torchvision):
    release = next(row for row in DATABASE.releases if row.version == torch)
    assert release.torchvision == torchvision


# pytorch.github.io _get_started/previous-versions.md, "Linux and Windows", torch alone.
@pytest.mark.parametrize(
    ("torch", "variant", "typed"),
    [
        (
            "1.2.0",
            "cu92",
            "torch==1.2.0+cu92 -f https://download.pytorch.org/whl/torch_stable.html",
        ),
        (
            "1.7.1",
            "cu110",
            "torch==1.7.1+cu110 -f https://download.pytorch.org/whl/torch_stable.html",
        ),
        (
            "1.9.1",
            "cu111",
            "torch==1.9.1+cu111 -f https://download.pytorch.org/whl/torch_stable.html",
        ),
        (
            "1.10.1",
            "cu111",
            "torch==1.10.1+cu111 -f https://download.pytorch.org/whl/cu111/torch_stable.html",
        ),
        (
            "1.12.1",
            "cu113",
            "torch==1.12.1+cu113 --extra-index-url https://download.pytorch.org/whl/cu113",
        ),
        ("2.3.1", "cu118", "torch==2.3.1 --index-url https://download.pytorch.org/whl/cu118"),
    ],
)
def test_a_variant_is_installed_as_pytorch_told_at_its_time(torch, variant, typed):
    words = " ".join(pip_arguments(DATABASE, torch, variant))
    assert words == typed.replace(" -f ", " --find-links ")


def test_a_variant_before_1_2_comes_from_its_page_and_nowhere_else():
    words = pip_arguments(DATABASE, "1.0.1", "cu100")
    assert words == (
        "--no-index",
        "--no-deps",
        "--find-links",
        "https://download.pytorch.org/whl/cu100/torch_stable.html",
        "torch==1.0.1",
    )


def test_every_release_with_variants_has_one_way_to_install_them():
    for row in DATABASE.wheels:
        if row.variant:
            fitting = [i for i in DATABASE.variant_installs if in_range(row.torch, i.torch)]
            assert len(fitting) == 1, row.torch


# 201 cards as shops and reviewers call them, written down as
# name -> compute capabilities (pci.ids for the chips, NVIDIA's lists for the capabilities).
def test_every_popular_card_is_found_or_asked_back():
    path = Path(__file__).parent / "cases/popular_cards.yaml"
    for row in parse_yaml(path.read_text(encoding="utf-8"), path.name)["cards"]:
        name, *expected = row
        try:
            found = {str(find_card(DATABASE, name).compute_capability)}
        except AmbiguousName as error:
            found = {choice["compute_capability"] for choice in error.choices}
        assert found == set(expected), name
