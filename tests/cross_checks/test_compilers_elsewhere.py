"""Which host compilers a toolkit accepts: Spack, PyTorch and nixpkgs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from elsewhere import TOOLKITS, assert_exactly, between, series

from envforge.capability.models import in_range
from envforge.values import version_key

GCCS = ("4.9.4", "5.3.0", "5.4.0", "6.5.0", "7.5.0", "8.4.0", "9.4.0", "10.2.1", "11.1.0", "11.3.0",
        "12.2.0", "13.3.0", "14.2.0", "15.1.0", "16.1.0")  # fmt: skip


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
