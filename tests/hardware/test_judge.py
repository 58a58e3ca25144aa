"""The machine against the card. Expected answers: the sources that limits.yaml names, dmesg reports."""

from __future__ import annotations

import pytest

from envforge.capability.database import Database
from envforge.capability.load import load
from envforge.capability.lookup import first_branch
from envforge.hardware.cards import DetectedGpu
from envforge.hardware.host import Host
from envforge.hardware.judge import judge_card, judge_host
from envforge.values import version_key

UNBOUND = DetectedGpu("sysfs", "0000:01:00.0")
BOUND = UNBOUND._replace(driver_bound="nvidia")


@pytest.fixture(scope="module")
def database() -> Database:
    return load()


def host(driver: str | None = None, kernel: str = "6.1.0-40-amd64", **facts: str) -> Host:
    layer = "sysfs" if driver else None
    return Host(driver, kernel, "2.36", "debian-12", driver_detected_by=layer)._replace(**facts)


def keys(database: Database, card: DetectedGpu, capability: str, machine: Host) -> list[str]:
    architecture = database.architectures[capability]
    return [row.key for row in judge_card(card, architecture, machine, database)]


# "The 535.129.03 NVIDIA driver will ignore this GPU": siderolabs/talos#8764 (GT 710);
# "The 595.71.05 NVIDIA driver will ignore this GPU": NixOS/nixos-hardware#1880 (GTX 1050)
@pytest.mark.parametrize(
    ("driver", "capability", "last"),
    [
        ("535.129.03", "3.5", "470"),
        ("595.71.05", "6.1", "580"),
        ("470.256.02", "2.1", "390"),
        ("390.157", "1.3", "340"),
        ("610.57.04", "7.0", "580"),
    ],
)
def test_a_driver_after_the_last_branch_of_a_card_does_not_serve_it(
    database: Database, driver: str, capability: str, last: str
) -> None:
    architecture = database.architectures[capability]
    machine = host(driver, kernel="5.4.0-200-generic")
    (finding,) = judge_card(UNBOUND, architecture, machine, database)
    assert finding.key == "driver-too-new"
    assert finding.card == "0000:01:00.0"
    assert finding.facts["last_branch"] == last
    assert finding.facts["source"]


@pytest.mark.parametrize(
    ("driver", "capability"),
    [("470.256.02", "3.5"), ("580.159.04", "6.1"), ("390.157", "2.1"), ("610.57.04", "7.5")],
)
def test_the_last_branch_itself_serves_the_card(
    database: Database, driver: str, capability: str
) -> None:
    assert keys(database, UNBOUND, capability, host(driver)) == []


def test_a_driver_from_before_the_card_does_not_serve_it(database: Database) -> None:
    assert keys(database, UNBOUND, "7.5", host("390.157")) == ["driver-too-old"]
    assert keys(database, UNBOUND, "12.0", host("550.163.01")) == ["driver-too-old"]


# RTX 2080 came with 410, RTX 3080 with 455, H100 with 520 (release notes of these branches)
@pytest.mark.parametrize(
    ("capability", "branch"), [("7.5", "410"), ("8.6", "455"), ("9.0", "520"), ("12.0", "570")]
)
def test_the_first_branch_is_that_of_the_first_toolkit(
    database: Database, capability: str, branch: str
) -> None:
    first = first_branch(database.architectures[capability], database.drivers)
    assert first is not None
    assert first.branch == branch


def test_a_card_that_the_module_holds_is_served_whatever_the_table_says(
    database: Database,
) -> None:
    assert keys(database, BOUND, "3.5", host("535.129.03")) == []
    assert keys(database, BOUND, "12.0", host("550.163.01")) == []


def test_a_driver_that_is_only_supposed_is_judged_by_the_table(database: Database) -> None:
    supposed = host("535.129.03", driver_detected_by="ENVFORGE_DRIVER")
    assert keys(database, BOUND, "3.5", supposed) == ["driver-too-new"]


def test_windows_numbers_of_branch_580_do_not_look_like_a_newer_branch(database: Database) -> None:
    card = DetectedGpu("nvml", "0000:01:00.0", "10de:1b80")
    machine = host("581.57", driver_detected_by="nvml")._replace(wsl=True)
    assert keys(database, card, "6.1", machine) == []


# "not supported by open nvidia.ko": negativo17/nvidia-driver#158 (GT 1030)
@pytest.mark.parametrize(
    ("flavour", "capability", "expected"),
    [
        ("open", "6.1", ["open-module-too-old-card"]),
        ("open", "7.0", ["open-module-too-old-card"]),
        ("open", "7.5", []),
        ("proprietary", "6.1", []),
        ("proprietary", "9.0", []),
        ("proprietary", "12.0", ["proprietary-module-too-new-card"]),
    ],
)
def test_each_flavour_of_the_kernel_module_has_its_own_cards(
    database: Database, flavour: str, capability: str, expected: list[str]
) -> None:
    machine = host("580.159.04", driver_flavour=flavour)
    assert keys(database, UNBOUND, capability, machine) == expected


@pytest.mark.parametrize(
    ("kernel", "capability", "expected"),
    [
        ("6.1.0-40-amd64", "3.5", []),
        ("6.11.11", "3.5", []),
        ("6.12.7_1", "3.5", ["kernel-needs-patched-driver"]),
        ("6.18.35", "3.7", ["kernel-needs-patched-driver"]),
        ("7.1.2-arch1-1", "3.0", ["kernel-too-new-for-driver"]),
        ("5.15.0-91-generic", "2.1", []),
        ("6.2.0", "2.1", ["kernel-needs-patched-driver"]),
        ("6.18.35", "2.1", ["kernel-too-new-for-driver"]),
        ("6.7.0", "1.1", ["kernel-too-new-for-driver"]),
        ("7.1.2", "6.1", []),
        ("unreadable", "3.5", []),
    ],
)
def test_a_legacy_branch_compiles_only_up_to_a_kernel(
    database: Database, kernel: str, capability: str, expected: list[str]
) -> None:
    assert keys(database, UNBOUND, capability, host(kernel=kernel)) == expected


def test_a_module_that_is_loaded_has_compiled(database: Database) -> None:
    assert keys(database, BOUND, "3.5", host("470.256.02", kernel="6.18.35")) == []


@pytest.mark.parametrize(
    ("driver", "toolkit", "expected"),
    [
        ("390.157", "1.17.8", ["toolkit-needs-newer-driver"]),
        ("418.81.06", "1.0.0", ["toolkit-needs-newer-driver"]),
        ("418.81.07", "1.17.8", []),
        ("470.256.02", "1.17.8", []),
        ("390.157", None, []),
        (None, "1.17.8", []),
    ],
)
def test_the_container_toolkit_wants_418_81_07(
    database: Database, driver: str | None, toolkit: str | None, expected: list[str]
) -> None:
    machine = host(driver)._replace(container_toolkit=toolkit)
    assert [row.key for row in judge_host(machine, database)] == expected


def test_a_jetson_is_not_judged_by_desktop_branches(database: Database) -> None:
    board = DetectedGpu("device-tree")
    assert keys(database, board, "5.3", host("32.7.1")) == []
    assert keys(database, board, "8.7", host("540.4.0", kernel="7.2.0")) == []


def test_every_limit_has_an_address_and_is_what_others_said(database: Database) -> None:
    limits = database.limits
    bounds = (limits.open_module_from, limits.proprietary_module_below, limits.container_toolkit)
    for limit in (*limits.kernels, *bounds):
        assert "https://" in limit.source
        assert limit.evidence in ("vendor-docs", "third-party")


def test_kernel_limits_are_of_last_branches_and_in_order(database: Database) -> None:
    last = {row.last_driver_branch for row in database.architectures.values()}
    kernels = database.limits.kernels
    assert {limit.branch for limit in kernels} <= last
    assert all(version_key(row.fails_from) <= version_key(row.patched_through) for row in kernels)
