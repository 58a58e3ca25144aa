"""Which driver starts a toolkit's programs, and serves a card: NVIDIA."""

from __future__ import annotations

from elsewhere import DATABASE, TOOLKITS, assert_exactly, series

from envforge.capability.lookup import driver_floor
from envforge.values import version_key

# NVIDIA: CUDA Toolkit 13.4 Update 1 release notes, "CUDA Toolkit and Corresponding Driver Versions"
# (Linux x86_64), 13.x from the notes of 13.2 Update 2.
NVIDIA_DRIVERS = {
    "7.5.18": "352.31", "8.0.44": "367.48", "8.0.61": "375.26", "9.0.176": "384.81",
    "9.1.85": "390.46", "9.2.88": "396.26", "9.2.148": "396.37", "10.0.130": "410.48",
    "10.1.105": "418.39", "10.1.243": "418.39", "10.2.89": "440.33", "11.0.2": "450.51.05",
    "11.0.3": "450.51.06", "11.1.0": "455.23", "11.1.1": "455.32", "11.2.0": "460.27.03",
    "11.2.1": "460.32.03", "11.2.2": "460.32.03", "11.3.0": "465.19.01", "11.3.1": "465.19.01",
    "11.4.0": "470.42.01", "11.4.1": "470.57.02", "11.4.2": "470.57.02", "11.4.3": "470.82.01",
    "11.4.4": "470.82.01", "11.5.0": "495.29.05", "11.5.1": "495.29.05", "11.5.2": "495.29.05",
    "11.6.0": "510.39.01", "11.6.1": "510.47.03", "11.6.2": "510.47.03", "11.7.0": "515.43.04",
    "11.7.1": "515.48.07", "11.8.0": "520.61.05", "12.0.0": "525.60.13", "12.0.1": "525.85.12",
    "12.1.0": "530.30.02", "12.1.1": "530.30.02", "12.2.0": "535.54.03", "12.2.1": "535.86.09",
    "12.2.2": "535.104.05", "12.3.0": "545.23.06", "12.3.1": "545.23.08", "12.4.0": "550.54.14",
    "12.4.1": "550.54.15", "12.5.0": "555.42.02", "12.5.1": "555.42.06", "12.6.0": "560.28.03",
    "12.6.1": "560.35.03", "12.6.2": "560.35.03", "12.6.3": "560.35.05", "12.8.0": "570.26",
    "12.8.1": "570.124.06", "12.9.0": "575.51.03", "12.9.1": "575.57.08", "13.0.0": "580.65.06",
    "13.0.1": "580.82.07", "13.0.2": "580.95.05", "13.1.0": "590.44.01", "13.1.1": "590.48.01",
    "13.2.0": "595.45.04", "13.2.1": "595.58.03", "13.2.2": "595.71.05",
}  # fmt: skip
NVIDIA_BRANCHES = {"13.0": "580", "13.1": "590", "13.2": "595", "13.3": "610", "13.4": "615"}
NVIDIA_COMPATIBLE = {"11": "450.80.02", "12": "525", "13": "580"}
NVIDIA_DRIVERS_DIFFER = {
    "12.3.2": "the table ends with Update 1 of 12.3; an update keeps the branch (same notes)",
}


def test_nvidia_names_the_same_driver_for_each_toolkit():
    named = {version: row.driver_min for version, row in TOOLKITS.items() if row.driver_min}
    assert_exactly(dict(named.items() ^ NVIDIA_DRIVERS.items()), NVIDIA_DRIVERS_DIFFER)


def test_nvidia_names_the_same_branch_for_each_toolkit():
    served = {row.branch: row.cuda_max for row in DATABASE.drivers}
    for cuda, branch in NVIDIA_BRANCHES.items():
        assert served[branch] == cuda
    for version, driver in NVIDIA_DRIVERS.items():
        assert served[driver.split(".")[0]] == series(version)


def test_minor_version_compatibility_starts_where_nvidia_says():
    for version, row in TOOLKITS.items():
        assert row.driver_min_compatible == NVIDIA_COMPATIBLE.get(version.split(".")[0]), version


def test_a_program_starts_on_the_lower_of_both_floors():
    found = set()
    for version, driver in NVIDIA_DRIVERS.items():
        compatible = NVIDIA_COMPATIBLE.get(version.split(".")[0], driver)
        lowest = min(driver, compatible, key=version_key)
        if driver_floor(DATABASE, version) != lowest:
            found.add(version)
    assert_exactly(found, {})


# NVIDIA: "CUDA Toolkit, Driver, and Architecture Matrix" and the Unix driver archive's legacy
# branches: the last driver branch of a generation.
NVIDIA_LAST_BRANCH = {"Tesla": "340", "Fermi": "390", "Kepler": "470", "Maxwell": "580",
                      "Pascal": "580", "Volta": "580"}  # fmt: skip


def test_nvidia_names_the_same_last_branch_for_each_generation():
    for row in DATABASE.architectures.values():
        expected = None if row.tegra else NVIDIA_LAST_BRANCH.get(row.name)
        assert row.last_driver_branch == expected, row.compute_capability
