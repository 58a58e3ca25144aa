"""What a release is built with: Spack."""

from __future__ import annotations

from elsewhere import CP311, DATABASE, RELEASES, TOOLKITS, assert_exactly, between, series

from envforge.capability.models import in_range, parse_range
from envforge.values import version_key

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
