"""The database against tables that others keep, typed in with their source (facts only).

Every disagreement is listed with the reason for our side, and the list is exact: a new one fails,
and so does one that has vanished. ``OURS IS WRONG`` marks what is known and waits for its repair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from envforge.capability.load import load
from envforge.capability.lookup import driver_floor
from envforge.capability.models import in_range, parse_range
from envforge.values import version_key

DATABASE = load()
TOOLKITS = {row.version: row for row in DATABASE.toolkits}
RELEASES = {row.version: row for row in DATABASE.releases}
GCCS = ("4.9.4", "5.3.0", "5.4.0", "6.5.0", "7.5.0", "8.4.0", "9.4.0", "10.2.1", "11.1.0", "11.3.0",
        "12.2.0", "13.3.0", "14.2.0", "15.1.0", "16.1.0")  # fmt: skip


def series(version: str, parts: int = 2) -> str:
    """``11.2.2`` -> ``11.2``."""
    return ".".join(version.split(".")[:parts])


def between(version: str, bounds: str) -> bool:
    """Spack's ``10.2:12.3``: both ends included, ``12.3`` means all of 12.3."""
    low, _, high = bounds.partition(":")
    key = version_key(version)
    if low and key < version_key(low):
        return False
    return not high or key[: len(version_key(high))] <= version_key(high)


def assert_exactly(found: Iterable, listed: dict) -> None:
    """The disagreements found are the listed ones, no more and no fewer."""
    found = set(found)
    assert found - set(listed) == set(), "new disagreement"
    assert set(listed) - found == set(), "no disagreement any more: strike it off the list"
    assert all(listed.values())


# Spack: repos/spack_repo/builtin/build_systems/cuda.py, commit 1e8cf059 (2026-07-01), "CUDA version
# vs Architecture": which toolkits compile for a capability.
SPACK_ARCHITECTURES = {
    "1.0": ":6.0", "1.1": ":6.5", "1.2": "2.1:6.5", "1.3": "2.1:6.5", "2.0": "3.0:8.0",
    "2.1": "3.2:8.0", "3.0": "5.0:10.2", "3.2": "5.0:10.2", "3.5": "5.0:11.8", "3.7": "6.5:11.8",
    "5.0": "6.0:12.9", "5.2": "6.5:12.9", "5.3": "6.5:12.9", "6.0": "8.0:12.9", "6.1": "8.0:12.9",
    "6.2": "8.0:12.9", "7.0": "9.0:12.9", "7.2": "9.0:", "7.5": "10.0:", "8.0": "11.0:",
    "8.6": "11.1:", "8.7": "11.4:", "8.9": "11.8:", "9.0": "12.0:", "10.0": "12.8:",
    "10.1": "12.8:12.9", "10.3": "12.9:", "11.0": "13.0:", "12.0": "12.8:", "12.1": "12.9:",
}  # fmt: skip
XAVIER_FIRST = "NVIDIA's matrix and nixpkgs know Xavier (7.2) from 9.2 on"
XAVIER_LAST = "ptxas --help measured: 12.9 lists sm_72, 13.0 does not; Spack gives no upper bound"
SPACK_ARCHITECTURES_DIFFER = {
    ("7.2", "9.0"): XAVIER_FIRST,
    ("7.2", "9.1"): XAVIER_FIRST,
    **{("7.2", f"13.{minor}"): XAVIER_LAST for minor in range(6)},
    ("9.0", "11.8"): "ptxas 11.8 measured lists sm_90; NVIDIA's matrix and nixpkgs say 11.8 too",
}


def test_spack_knows_the_same_toolkits_for_each_capability():
    found = set()
    for capability, bounds in SPACK_ARCHITECTURES.items():
        ours = parse_range(DATABASE.architectures[capability].cuda)
        found |= {(capability, series(v)) for v in TOOLKITS if between(v, bounds) != (v in ours)}
    assert_exactly(found, SPACK_ARCHITECTURES_DIFFER)
    missing = set(DATABASE.architectures) - set(SPACK_ARCHITECTURES)
    assert missing == {"8.8", "10.7"}, "known from ptxas only"


# nixpkgs: pkgs/development/cuda-modules/_cuda/db/bootstrap/cuda.nix at 55d5788b: first toolkit where
# it is later than nixpkgs' own oldest (11.2), and last.
NIX_FIRST = {"8.7": "11.4", "8.9": "11.8", "9.0": "11.8", "10.0": "12.7", "10.1": "12.7",
             "10.3": "12.9", "11.0": "13.0", "12.0": "12.8", "12.1": "12.9"}  # fmt: skip
NIX_LAST = {"3.5": "11.8", "3.7": "11.8", "5.0": "12.9", "5.2": "12.9", "6.0": "12.9",
            "6.1": "12.9", "7.0": "12.9", "7.2": "12.2", "10.1": "12.9"}  # fmt: skip
NIX_DIFFERS = {
    ("7.2", minor): "ptxas --help measured: 12.9 still lists sm_72; nixpkgs thinks of cuda_compat"
    for minor in ("12.3", "12.4", "12.5", "12.6", "12.8", "12.9")
}


def test_nixpkgs_knows_the_same_first_and_last_toolkits():
    found = set()
    for capability in NIX_FIRST.keys() | NIX_LAST.keys():
        ours = parse_range(DATABASE.architectures[capability].cuda)
        first, last = NIX_FIRST.get(capability, ""), NIX_LAST.get(capability, "")
        for version in TOOLKITS:
            told = first or version_key(version) >= ours.lower  # not below nixpkgs' own oldest
            if told and between(version, f"{first}:{last}") != (version in ours):
                found.add((capability, series(version)))
    assert_exactly(found, NIX_DIFFERS)


# Spack, same file: gcc that conflicts with CUDA on Linux x86_64, as (gcc, CUDA).
SPACK_GCC = [
    (":4", "11.0:"), (":5", "11.4:"), ("10:", ":11.0"), ("11:", ":11.4.0"), ("11.2:", ":11.5"),
    ("12:", ":11.8"), ("13:", ":12.3"), ("14:", ":12.6"), ("15:", ":12.9"), ("16:", ":13.3"),
    ("10:10", ":11.4.0"), ("5:", ":7.5"), ("6:", ":8"), ("7:", ":9.1"), ("8:", ":10.0.130"),
    ("9:", ":10.2.89"),
]  # fmt: skip
GCC_10 = (
    "host_config.h of 11.1 to 11.4.0 takes gcc 10 (torch cpp_extension too) and Debian 11 builds"
    " its 11.2.2 with it; Spack follows one comment on the gist"
)
SPACK_GCC_DIFFERS = {
    ("8.0.44", "5.4.0"): "the header of 8.0.44 rejects gcc above 5.3 (StackOverflow 43685471)",
    **{(version, "10.2.1"): GCC_10
       for version in ("11.1.0", "11.1.1", "11.2.0", "11.2.1", "11.2.2", "11.3.0", "11.3.1",
                       "11.4.0")},
}  # fmt: skip


def gcc_differences(accepts: Callable[[str, str], bool | None]) -> set[tuple[str, str]]:
    """(toolkit, gcc) where ours and ``accepts`` differ; None: the table does not say."""
    found = set()
    for version, row in TOOLKITS.items():
        for gcc in GCCS:
            theirs = accepts(version, gcc)
            if theirs is not None and theirs != in_range(gcc, row.gcc):
                found.add((version, gcc))
    return found


def test_spack_accepts_the_same_host_compilers():
    def accepts(version: str, gcc: str) -> bool | None:
        if version_key(version) >= (13, 4):
            return None  # newer than the recipe
        return not any(between(gcc, ours) and between(version, cuda) for ours, cuda in SPACK_GCC)

    assert_exactly(gcc_differences(accepts), SPACK_GCC_DIFFERS)


# PyTorch: torch/utils/cpp_extension.py, CUDA_GCC_VERSIONS as of 2.13 (upper bound exclusive).
TORCH_GCC = {
    "11.0": ("5", "10"), "11.1": ("5", "11"), "11.2": ("5", "11"), "11.3": ("5", "11"),
    "11.4": ("6", "12"), "11.5": ("6", "12"), "11.6": ("6", "12"), "11.7": ("6", "12"),
    "12.0": ("6", "13"), "12.1": ("6", "13"), "12.2": ("6", "13"), "12.3": ("6", "14"),
    "12.4": ("6", "14"), "12.5": ("6", "14"), "12.6": ("6", "14"), "12.8": ("6", "15"),
    "12.9": ("6", "15"), "13.0": ("6", "16"),
}  # fmt: skip
TORCH_GCC_DIFFERS = {
    ("11.4.0", "11.1.0"): "gcc 11 came with 11.4.1 (Spack, ax3l's gist); PyTorch keeps no updates",
    ("11.4.0", "11.3.0"): "gcc 11 came with 11.4.1 (Spack, ax3l's gist); PyTorch keeps no updates",
    **{(version, "11.3.0"): "nvcc before 11.6 chokes on std_function.h of gcc 11.2 (NVIDIA/nccl 650)"
       for version in ("11.4.1", "11.4.2", "11.4.3", "11.4.4", "11.5.0", "11.5.1", "11.5.2")},
    **{(version, "13.3.0"): "gcc 13 came with 12.4 (nixpkgs and Spack, from NVIDIA's guide)"
       for version in ("12.3.0", "12.3.1", "12.3.2")},
}  # fmt: skip


def test_pytorch_accepts_the_same_host_compilers():
    def accepts(version: str, gcc: str) -> bool | None:
        if series(version) not in TORCH_GCC:
            return None
        low, high = TORCH_GCC[series(version)]
        return version_key(low) <= version_key(gcc) < version_key(high)

    assert_exactly(gcc_differences(accepts), TORCH_GCC_DIFFERS)


# nixpkgs: _cuda/db/bootstrap/nvcc.nix at 19b0db70, smallest and largest major version of gcc.
NIX_GCC = {"11.8": (6, 11), "12.0": (6, 12), "12.1": (6, 12), "12.2": (6, 12), "12.3": (6, 12),
           "12.4": (6, 13), "12.5": (6, 13), "12.6": (6, 13), "12.8": (6, 14),
           "12.9": (6, 14)}  # fmt: skip
# nixpkgs: pkgs/development/compilers/cudatoolkit/versions.toml, what each toolkit is built with.
NIX_PAIRS = {"10.0.130": 7, "10.1.243": 7, "10.2.89": 7, "11.0.3": 9, "11.1.1": 9, "11.2.1": 9,
             "11.3.1": 9, "11.4.2": 10, "11.5.0": 10, "11.6.1": 11, "11.7.0": 11, "11.8.0": 11,
             "12.0.1": 12, "12.1.1": 12}  # fmt: skip


def test_nixpkgs_accepts_the_same_host_compilers():
    def accepts(version: str, gcc: str) -> bool | None:
        if series(version) not in NIX_GCC:
            return None
        low, high = NIX_GCC[series(version)]
        return low <= version_key(gcc)[0] <= high

    assert_exactly(gcc_differences(accepts), {})


@pytest.mark.parametrize(("version", "major"), NIX_PAIRS.items())
def test_every_compiler_nixpkgs_ships_with_a_toolkit_is_accepted(version, major):
    assert in_range(f"{major}.0.0", TOOLKITS[version].gcc)


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


# PyTorch: RELEASE.md, "Release Compatibility Matrix": Python (first, last, experimental ones
# included) and CUDA (stable and experimental) of a release series.
RELEASE_MATRIX = {
    "2.14": ("3.10", "3.15", {"12.6", "13.0", "13.2"}),
    "2.13": ("3.10", "3.15", {"12.6", "13.0", "13.2"}),
    "2.12": ("3.10", "3.14", {"12.6", "13.0", "13.2"}),
    "2.11": ("3.10", "3.14", {"12.6", "12.8", "13.0"}),
    "2.10": ("3.10", "3.14", {"12.6", "12.8", "13.0"}),
    "2.9": ("3.10", "3.14", {"12.6", "12.8", "13.0"}),
    "2.8": ("3.9", "3.13", {"12.6", "12.8", "12.9"}),
    "2.7": ("3.9", "3.13", {"11.8", "12.6", "12.8"}),
    "2.6": ("3.9", "3.13", {"11.8", "12.4", "12.6"}),
    "2.5": ("3.9", "3.13", {"11.8", "12.1", "12.4"}),
    "2.4": ("3.8", "3.12", {"11.8", "12.1", "12.4"}),
    "2.3": ("3.8", "3.12", {"11.8", "12.1"}),
    "2.2": ("3.8", "3.12", {"11.8", "12.1"}),
    "2.1": ("3.8", "3.11", {"11.8", "12.1"}),
    "2.0": ("3.8", "3.11", {"11.7", "11.8"}),
    "1.13": ("3.7", "3.10", {"11.6", "11.7"}),
    "1.12": ("3.7", "3.10", {"11.3", "11.6"}),
}
# The same matrix: cuDNN of a series with a CUDA, where it names one for each.
RELEASE_CUDNN = {
    ("1.12", "11.3"): "8.3.2.44", ("1.12", "11.6"): "8.3.2.44", ("1.13", "11.6"): "8.3.2.44",
    ("1.13", "11.7"): "8.5.0.96", ("2.0", "11.7"): "8.5.0.96", ("2.0", "11.8"): "8.7.0.84",
    ("2.1", "11.8"): "8.7.0.84", ("2.1", "12.1"): "8.9.2.26", ("2.2", "12.1"): "8.9.2.26",
    ("2.3", "12.1"): "8.9.2.26", ("2.4", "12.1"): "9.1.0.70", ("2.5", "12.4"): "9.1.0.70",
    ("2.6", "12.4"): "9.1.0.70", ("2.7", "12.6"): "9.5.1.17", ("2.8", "12.8"): "9.10.2.21",
    ("2.9", "12.8"): "9.10.2.21", ("2.10", "12.8"): "9.10.2.21", ("2.11", "13.0"): "9.17.1.4",
    ("2.12", "13.0"): "9.20.0.48", ("2.13", "13.0"): "9.20.0.48", ("2.14", "13.0"): "9.24.0.43",
}  # fmt: skip
CP311 = "the package index carries cp311 files of 1.13 (measured; pytorch issue 91543)"
CP315 = "the package index carries no cp315 file before 2.15.0 (measured); experimental there"
RELEASE_PYTHONS_DIFFER = {
    "1.13.0": CP311, "1.13.1": CP311, "2.13.0": CP315, "2.14.0": CP315, "2.14.1": CP315,
}  # fmt: skip
CU102 = "the wheel on the package index is CUDA 10.2 (1.12.1 measured)"
RELEASE_CUDA_DIFFERS = {("1.12.0", "10.2"): CU102, ("1.12.1", "10.2"): CU102}


def of_series(name: str) -> list[str]:
    return [version for version in RELEASES if series(version) == name]


def test_the_release_matrix_names_the_same_pythons():
    found = set()
    for name, (first, last, _) in RELEASE_MATRIX.items():
        for version in of_series(name):
            pythons = RELEASES[version].source_build.pythons
            if (pythons[0], pythons[-1]) != (first, last):
                found.add(version)
    assert_exactly(found, RELEASE_PYTHONS_DIFFER)


def wheels_cuda(version: str) -> set[str]:
    return {series(wheel.cuda) for wheel in DATABASE.wheels if wheel.torch == version}


def test_the_release_matrix_names_the_same_cuda_builds():
    found = {
        (version, cuda)
        for name, (_, _, theirs) in RELEASE_MATRIX.items()
        for version in of_series(name)
        for cuda in theirs ^ wheels_cuda(version)
    }
    assert_exactly(found, RELEASE_CUDA_DIFFERS)


RELEASE_CUDNN_DIFFERS = {"2.11.0": "the wheel's METADATA asks for 9.19.0.56 (measured)"}


def test_the_release_matrix_names_the_same_cudnn():
    held = {
        (row.torch, series(row.cuda)): row.cudnn.version for row in DATABASE.wheels if row.cudnn
    }
    asked = {key: RELEASE_CUDNN.get((series(key[0]), key[1])) for key in held}
    assert sum(version is not None for version in asked.values()) >= 14
    found = {key[0] for key in held if asked[key] not in (None, held[key])}
    assert_exactly(found, RELEASE_CUDNN_DIFFERS)


def test_the_wheels_requirements_name_the_same_cudnn():
    versions = {
        (row.torch, row.cudnn.project): row.cudnn.version
        for row in DATABASE.wheels
        if row.cudnn and row.variant is None  # the requirements are those of the default wheels
    }
    for row in DATABASE.requirements:
        for package in row.packages:
            if package.project.startswith("nvidia-cudnn"):
                assert package.version == versions[row.torch, package.project], row.torch


# Build strings of PyTorch's own conda channel (pytorch-1.2.0-py3.7_cuda10.0.130_cudnn7.6.2_0), as
# lock files and logs of third parties carry them: same release and CUDA as the wheel, so same cuDNN.
CHANNEL_CUDNN = {
    ("1.0.0", "9.0"): "7.4.1", ("1.0.1", "9.0"): "7.4.2", ("1.1.0", "9.0"): "7.5.1",
    ("1.2.0", "10.0"): "7.6.2", ("1.3.1", "10.1"): "7.6.3", ("1.4.0", "10.1"): "7.6.3",
    ("1.5.0", "10.2"): "7.6.5", ("1.5.1", "10.2"): "7.6.5", ("1.6.0", "10.2"): "7.6.5",
    ("1.7.0", "10.2"): "7.6.5", ("1.7.1", "10.2"): "7.6.5", ("1.8.0", "10.2"): "7.6.5",
    ("1.8.1", "10.2"): "7.6.5", ("1.9.0", "10.2"): "7.6.5", ("1.11.0", "10.2"): "7.6.5",
    ("1.12.1", "10.2"): "7.6.5", ("1.13.1", "11.7"): "8.5.0",
}  # fmt: skip


def test_pytorchs_conda_channel_names_the_same_cudnn():
    checked = 0
    for row in DATABASE.wheels:
        theirs = CHANNEL_CUDNN.get((row.torch, series(row.cuda)))
        if theirs and row.cudnn:
            assert ".".join(row.cudnn.version.split(".")[:3]) == theirs, row.torch
            checked += 1
    assert checked >= 12


# PyTorch: RELEASE.md, "PyTorch CUDA Support Matrix", Linux x86: 2.9 and 2.10 as quoted in pytorch
# issue 172352 and PR 175253 (the lines they take away), 2.11 in the PR, 2.12 to 2.14 in RELEASE.md.
OLD = "5.0 6.0 7.0 7.5 8.0 8.6 9.0"
VOLTA = "7.0 7.5 8.0 8.6 9.0 10.0 12.0"
TURING = "7.5 8.0 8.6 9.0 10.0 12.0"
SUPPORT_MATRIX = {
    "2.9": {"12.6": OLD, "12.8": VOLTA, "13.0": f"{TURING}+PTX"},
    "2.10": {"12.6": OLD, "12.8": VOLTA, "13.0": f"{TURING}+PTX"},
    "2.11": {"12.6": OLD, "12.8": TURING, "13.0": f"{TURING}+PTX"},
    "2.12": {"12.6": OLD, "13.0": f"{TURING}+PTX", "13.2": f"{TURING}+PTX"},
    "2.13": {"12.6": OLD, "13.0": f"{TURING}+PTX", "13.2": f"{TURING}+PTX"},
    "2.14": {"12.6": OLD, "13.0": f"{TURING}+PTX", "13.2": f"{TURING}+PTX"},
}
NO_PTX = "the wheel of the package index carries no PTX (2.11.0 to 2.14.1 measured; PR 175253)"
UNMEASURED = "nobody measured cu132; without PTX is the careful reading, and no card needs it"
SUPPORT_DIFFERS = {
    **{(version, "13.0"): NO_PTX
       for version in ("2.11.0", "2.12.0", "2.12.1", "2.13.0", "2.14.0", "2.14.1")},
    **{(version, "13.2"): UNMEASURED
       for version in ("2.12.0", "2.12.1", "2.13.0", "2.14.0", "2.14.1")},
}  # fmt: skip


def spelled(architectures: str) -> set[str]:
    """``7.5 12.0+PTX`` -> ``sm_75``, ``sm_120``, ``compute_120``."""
    codes = set()
    for word in architectures.split():
        number = word.removesuffix("+PTX").replace(".", "")
        codes.add(f"sm_{number}")
        codes |= {f"compute_{number}"} if word.endswith("+PTX") else set()
    return codes


def test_the_support_matrix_names_the_same_architectures():
    found = set()
    for name, builds in SUPPORT_MATRIX.items():
        for version in of_series(name):
            for wheel in DATABASE.wheels:
                if wheel.torch == version and set(wheel.codes) != spelled(builds[wheel.cuda]):
                    found.add((version, wheel.cuda))
                    assert spelled(builds[wheel.cuda]) - set(wheel.codes) == {"compute_120"}
    assert_exactly(found, SUPPORT_DIFFERS)


# cog: pkg/config/torch_compatibility.json at 173033b4, read from the wheels' own index: CUDA builds.
COG = {
    "1.11.0": "10.2 11.3", "1.12.0": "10.2 11.3 11.6", "1.12.1": "10.2 11.3 11.6",
    "1.13.0": "11.6 11.7", "1.13.1": "11.6 11.7", "2.0.0": "11.7 11.8", "2.0.1": "11.7 11.8",
    "2.1.0": "11.8 12.1", "2.1.1": "11.8 12.1", "2.1.2": "11.8 12.1", "2.2.0": "11.8 12.1",
    "2.2.1": "11.8 12.1", "2.2.2": "11.8 12.1", "2.3.0": "11.8 12.1", "2.3.1": "11.8 12.1",
    "2.4.0": "11.8 12.1 12.4", "2.4.1": "11.8 12.1 12.4", "2.5.0": "11.8 12.1 12.4",
    "2.5.1": "11.8 12.1 12.4", "2.6.0": "11.8 12.4 12.6", "2.7.0": "11.8 12.6 12.8",
    "2.7.1": "11.8 12.6 12.8", "2.8.0": "12.6 12.8 12.9", "2.9.0": "12.6 12.8 13.0",
    "2.9.1": "12.6 12.8 13.0", "2.10.0": "12.6 12.8 13.0", "2.11.0": "12.6 12.8 13.0",
    "2.12.1": "12.6 12.9 13.0 13.2",
}  # fmt: skip
COG_DIFFERS = {
    ("1.11.0", "11.5"): "pytorch/builder release/1.11 publishes cu115",
    ("2.12.1", "12.9"): "RELEASE.md does not name it and nobody measured its architectures",
}


def test_cog_finds_the_same_cuda_builds_on_the_index():
    found = {
        (version, cuda)
        for version, theirs in COG.items()
        for cuda in set(theirs.split()) ^ wheels_cuda(version)
    }
    assert_exactly(found, COG_DIFFERS)


# Spack: repos/spack_repo/builtin/packages/py_torch/package.py, commit 1e8cf059: CUDA that a release
# is built with. From 2.4 on it has no upper bound: ours, the newest variant published, is kept.
SPACK_TORCH_CUDA = {
    "2.12:2.12": "12.6:", "2.9:2.11": "12:", "2.4:2.8": "11:", "2.0:2.3": "11:12.3",
    "1.11:1.13": "10.2:12.3", "1.10:1.10": "10.2:11.4", "1.7.1:1.9": "9.2:11.4",
}  # fmt: skip
CMAKE_12_1 = "cmake/public/cuda.cmake of 2.12.1 rejects only CUDA below 12.1 (measured)"
SPACK_TORCH_CUDA_DIFFERS = {
    (version, f"12.{minor}"): CMAKE_12_1
    for version in ("2.12.0", "2.12.1")
    for minor in range(1, 6)
}
SPACK_TORCH_CUDA_DIFFERS |= {
    (version, f"12.{minor}"): "what CUDA 12 breaks was repaired for 2.0 (pytorch issue 91122)"
    for version in ("1.11.0", "1.12.0", "1.12.1", "1.13.0", "1.13.1")
    for minor in range(4)
}


def test_spack_builds_a_release_with_the_same_toolkits():
    found = set()
    for span, bounds in SPACK_TORCH_CUDA.items():
        for version in filter(lambda name, span=span: between(name, span), RELEASES):
            ours = parse_range(RELEASES[version].source_build.cuda)
            for toolkit in TOOLKITS:
                open_end = bounds.endswith(":") and version_key(toolkit) >= ours.upper
                if not open_end and between(toolkit, bounds) != (toolkit in ours):
                    found.add((version, series(toolkit)))
    assert_exactly(found, SPACK_TORCH_CUDA_DIFFERS)


# Spack, the same recipe, "Based on PyPI wheel availability": first and last Python.
SPACK_TORCH_PYTHON = {
    "2.9:2.12": ("3.10", "3.14"), "2.5:2.8": ("3.9", "3.13"), "2.2:2.4": ("3.8", "3.12"),
    "2.0:2.1": ("3.8", "3.11"), "1.11:1.13": (None, "3.10"), "1.7.1:1.10": (None, "3.9"),
}  # fmt: skip
SPACK_TORCH_PYTHON_DIFFERS = {
    "1.13.0": CP311,
    "1.13.1": CP311,
}


def test_spack_builds_a_release_for_the_same_pythons():
    found = set()
    for span, (first, last) in SPACK_TORCH_PYTHON.items():
        for version in filter(lambda name, span=span: between(name, span), RELEASES):
            pythons = RELEASES[version].source_build.pythons or (None,)
            if (first or pythons[0], last) != (pythons[0], pythons[-1]):
                found.add(version)
    assert_exactly(found, SPACK_TORCH_PYTHON_DIFFERS)


# Spack, the same recipe: gcc to 9.3 conflicts with 2.2 and newer (C++17).
SPACK_TORCH_GCC_DIFFERS = dict.fromkeys(
    ("2.1.0", "2.1.1", "2.1.2"),
    "the README in the wheel's METADATA asks for C++17 and gcc 9.4 from 2.1 on (measured)",
)


def test_spack_builds_a_release_with_the_same_compilers():
    found = set()
    for version in filter(lambda name: between(name, "1.7.1:2.12"), RELEASES):
        bounds = RELEASES[version].source_build.gcc
        ours = bounds is None or in_range("9.3.0", bounds)
        if ours != (version_key(version) < (2, 2)):
            found.add(version)
    assert_exactly(found, SPACK_TORCH_GCC_DIFFERS)


# Spack: repos/spack_repo/builtin/packages/cuda/package.py, commit 1e8cf059: glibc 2.42 conflicts
# with CUDA to 13.0.
def test_spack_knows_the_clash_of_cuda_and_glibc():
    rule = next(rule for rule in DATABASE.rules if rule.id == "cuda-headers-glibc-2.41")
    clashing = [version for version in TOOLKITS if in_range(version, rule.when["cuda"])]
    assert set(clashing) == {version for version in TOOLKITS if between(version, ":13.0")}
    first = parse_range(rule.require["glibc"]).upper
    # Spack starts one release later; Ubuntu 25.04 and Debian 13 have 2.41 and break with CUDA 12.8
    # and 12.9 (NVIDIA/cuda-samples issue 378, 1CatAI/1Cat-vLLM issue 215)
    assert first == (2, 41)
