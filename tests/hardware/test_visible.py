"""CUDA_VISIBLE_DEVICES against cards. Expected answers: CUDA's guide, torch, a real driver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envforge.hardware.visible import Candidate, Selection, parse_visible, visible_cards

A, B, C = (f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abc")
TWO = (Candidate(A), Candidate(B))
THREE = (*TWO, Candidate(C))


def flags(cards: tuple[Candidate, ...], value: str, order: str = "PCI_BUS_ID") -> list[bool | None]:
    environ = {"CUDA_VISIBLE_DEVICES": value, "CUDA_DEVICE_ORDER": order}
    return list(visible_cards(cards, environ).flags)


def keys(cards: tuple[Candidate, ...], value: str, order: str = "PCI_BUS_ID") -> list[str]:
    environ = {"CUDA_VISIBLE_DEVICES": value, "CUDA_DEVICE_ORDER": order}
    return [finding.key for finding in visible_cards(cards, environ).findings]


# torch/cuda/__init__.py, _parse_visible_devices, and its tests in test/test_cuda.py
@pytest.mark.parametrize(
    ("value", "entries"),
    [
        ("0,1", ("0", "1")),
        ("1,0", ("1", "0")),
        (" 1 , 2", ("1", "2")),
        ("1gpu2,2ampere", ("1", "2")),
        ("+1", ("1",)),
        ("0, 1, 1", ()),
        ("-1", ()),
        ("", ()),
        ("NoDevFiles", ()),
        ("0,2,-1,1", ("0", "2")),
        ("0,,1", ("0",)),
        ("GPU-9e8d35e3,GPU-a1b2", ("GPU-9e8d35e3", "GPU-a1b2")),
        ("GPU-9E8D35E3 ", ("GPU-9e8d35e3",)),
        (" GPU-9e8d35e3", ()),
        ("GPU-9e8d35e3,0", ("GPU-9e8d35e3",)),
        ("GPU-9e8d35e3,GPU-9e8d35e3", ()),
        ("MIG-12345,MIG-2", ("MIG-12345", "MIG-2")),
    ],
)
def test_the_list_is_read_as_the_driver_reads_it(value: str, entries: tuple[str, ...]) -> None:
    assert parse_visible(value).entries == entries


def test_an_unset_variable_hides_nothing() -> None:
    assert parse_visible(None) == Selection("all")
    assert visible_cards(THREE, {}).flags == (True, True, True)


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "3", "GPU-dddd"])
def test_a_list_without_one_good_entry_hides_every_card(value: str) -> None:
    assert flags(THREE, value) == [False, False, False]
    assert keys(THREE, value) == ["visible-none"]


def test_an_entry_that_is_repeated_hides_every_card() -> None:
    assert flags(THREE, "0,0") == [False, False, False]
    assert keys(THREE, "0,0") == ["visible-repeated"]


def test_two_short_forms_of_one_uuid_are_a_repetition() -> None:
    assert flags(TWO, "GPU-aa,GPU-aaaa") == [False, False]
    assert keys(TWO, "GPU-aa,GPU-aaaa") == ["visible-repeated"]


@pytest.mark.parametrize(
    ("value", "expected", "ignored"),
    [
        ("0,2,-1,1", [True, False, True], "-1,1"),  # the guide's own example
        ("1,7,0", [False, True, False], "7,0"),
        ("GPU-bbbb,GPU-dddd,GPU-aaaa", [False, True, False], "GPU-dddd,GPU-aaaa"),
        ("GPU-bbbb,0", [False, True, False], "0"),
    ],
)
def test_the_list_ends_at_its_first_bad_entry(
    value: str, expected: list[bool], ignored: str
) -> None:
    assert flags(THREE, value) == expected
    environ = {"CUDA_VISIBLE_DEVICES": value, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    (finding,) = visible_cards(THREE, environ).findings
    assert (finding.key, finding.facts["ignored"]) == ("visible-ignored", ignored)


@pytest.mark.parametrize("order", ["", "FASTEST_FIRST", "pci_bus_id"])
def test_an_index_means_no_known_card_unless_the_order_is_that_of_the_bus(order: str) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": order}
    view = visible_cards(TWO, environ)
    assert view.flags == (None, None)
    (finding,) = view.findings
    assert finding.key == "visible-order-unknown"
    assert (finding.facts["selected"], finding.facts["cards"]) == ("1", "2")


def test_indices_of_all_cards_need_no_order() -> None:
    assert flags(TWO, "1,0", order="FASTEST_FIRST") == [True, True]
    assert keys(TWO, "1,0", order="FASTEST_FIRST") == []


def test_the_only_card_has_index_0_in_every_order() -> None:
    assert flags(TWO[:1], "0", order="FASTEST_FIRST") == [True]


def test_an_index_is_of_no_use_where_a_card_is_cut_into_instances() -> None:
    cards = (Candidate(A, mig=True), Candidate(B))
    assert flags(cards, "1") == [None, None]
    assert keys(cards, "1") == ["visible-order-unknown"]


def test_a_short_uuid_that_fits_two_cards_is_a_bad_entry() -> None:
    twins = (Candidate("GPU-aaaa0000"), Candidate("GPU-aaaa1111"))
    assert flags(twins, "GPU-aaaa") == [False, False]


def test_a_uuid_is_not_guessed_while_a_card_has_none() -> None:
    cards = (Candidate(A), Candidate(None))
    assert flags(cards, "GPU-aaaa") == [None, None]
    assert flags(cards, "GPU-bbbb") == [False, None]
    assert keys(cards, "GPU-bbbb") == ["visible-unmapped"]
    assert flags(cards, A) == [True, False]


def test_an_instance_named_by_its_card_is_mapped_to_it() -> None:
    cards = (Candidate(A, mig=True), Candidate(B, mig=True))
    assert flags(cards, f"MIG-{B}/1/0") == [False, True]
    assert flags((Candidate(None, mig=True), *cards[:1]), f"MIG-{B}/1/0") == [None, False]


def test_an_instance_of_a_card_that_is_not_cut_is_no_card() -> None:
    value = f"MIG-{A}/1/0"
    assert flags((Candidate(A, mig=False), Candidate(B, mig=False)), value) == [False, False]
    assert keys((Candidate(A, mig=False),), value) == ["visible-none"]
    assert flags((Candidate(A, mig=None),), value) == [None]


def test_an_instance_uuid_is_mapped_only_where_one_card_is_cut() -> None:
    value = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"
    assert flags((Candidate(A, mig=True), Candidate(B, mig=False)), value) == [True, False]
    both = (Candidate(A, mig=True), Candidate(B, mig=True))
    assert flags(both, value) == [None, None]
    assert keys(both, value) == ["visible-unmapped"]


def test_only_the_first_instance_is_enumerated() -> None:
    cards = (Candidate(A, mig=True),)
    assert keys(cards, f"MIG-{A}/1/0,MIG-{A}/2/0") == ["visible-ignored"]


# docs/verification/2026-11-22-h200-detection.md: what cuDeviceGetCount and cuDeviceGetPCIBusId of
# driver 580.159.04 said on a machine with two cards, CUDA_DEVICE_ORDER=PCI_BUS_ID
MEASURED = {
    "": [],
    "0": [0],
    "1": [1],
    "-1": [],
    "0,0": [],
    "0,-1": [0],
    "1,0": [0, 1],
    "NoDevFiles": [],
    "1gpu": [1],
    "0gpu2,1x": [0, 1],
    " 0": [0],
    " 1 , 0": [0, 1],
    "0,,1": [0],
    "+0": [0],
    "7": [],
    "0,7,1": [0],
    "1,7,0": [1],
    A: [0],
    B: [1],
    A[:12]: [0],
    A[:5]: [0],
    "GPU-": [],
    "GPU-ffffffff": [],
    f"{A},{A}": [],
    f"{A},{A[:12]}": [],
    f"{A},0": [0],
    f"0,{B}": [0],
    f"{B},GPU-ffffffff,{A}": [1],
    f"MIG-{A}/1/0": [],
    A.upper(): [0],
    f" {A}": [],
    f"{A} ": [0],
}


@pytest.mark.parametrize("value", MEASURED)
def test_a_real_driver_was_seen_to_read_the_list_so(value: str) -> None:
    cards = (Candidate(A, mig=False), Candidate(B, mig=False))
    assert [n for n, flag in enumerate(flags(cards, value)) if flag] == MEASURED[value]


CARDS = st.lists(
    st.builds(Candidate, st.none() | st.sampled_from([A, B, C]), st.none() | st.booleans()),
    max_size=4,
)
WORDS = st.sampled_from(
    ["0", "1", "-1", "GPU-", "GPU-aaaa", A, "MIG-", f"MIG-{A}/0/0", "", " ", "x"]
)
VALUES = st.text(max_size=12) | st.lists(WORDS, max_size=5).map(",".join)


@given(cards=CARDS, value=VALUES, order=st.sampled_from([None, "PCI_BUS_ID", "FASTEST_FIRST"]))
def test_any_value_gives_one_flag_per_card(
    cards: list[Candidate], value: str, order: str | None
) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": value}
    environ |= {"CUDA_DEVICE_ORDER": order} if order else {}
    view = visible_cards(cards, environ)
    assert len(view.flags) == len(cards)
    if cards and True not in view.flags and None not in view.flags:
        assert view.findings  # nobody's cards are hidden without a word
