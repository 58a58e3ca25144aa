from __future__ import annotations

import pytest
from fatbin_writer import elf, fatbin, ptx, sass

from envforge.binaries.library import Library, read_library
from envforge.binaries.verdict import find_lacks, verdict
from envforge.values import ComputeCapability, DeviceCode

TORCH = "_ZN2at6native6kernelEv"
CUDNN = "_ZN5cudnn6detail6kernelEv"


@pytest.fixture
def library(tmp_path):
    def make(*fatbins: bytes, name: str = "libtorch_cuda.so") -> Library:
        path = tmp_path / name
        path.write_bytes(elf((".nv_fatbin", b"".join(fatbins))))
        return read_library(path)

    return make


def support(libraries, card: str) -> str:
    return verdict(libraries, ComputeCapability.parse(card)).support


def test_sass_runs_within_its_major_version_and_upwards(library):
    torch = library(fatbin(sass(35, TORCH), sass(60, TORCH)))
    cards = ("3.0", "3.5", "3.7", "5.0", "6.0", "6.1", "7.0")
    assert [support(torch, card) for card in cards] == [
        *("none", "native", "native", "none", "native", "native", "none")
    ]


def test_ptx_is_named_with_the_language_version_a_driver_must_know(library):
    torch = library(fatbin(sass(35, TORCH), ptx(50, TORCH, version=(6, 0))))
    found = verdict(torch, ComputeCapability(8, 0))
    assert (found.support, str(found.ptx_version)) == ("ptx-jit", "6.0")


def test_code_of_a_bundled_library_does_not_make_torch_run(library):
    torch = library(*[fatbin(sass(37, TORCH), sass(50, TORCH))] * 3, *[fatbin(sass(35, CUDNN))] * 9)
    assert torch.counts == {"sm_35": 9, "sm_37": 3, "sm_50": 3}
    assert support(torch, "3.5") == "none"


def test_a_bundled_library_without_code_for_the_card_is_named_as_missing(library):
    torch = library(fatbin(sass(37, TORCH), sass(70, TORCH)), fatbin(sass(37, CUDNN)))
    found = verdict(torch, ComputeCapability(7, 0))
    assert (found.support, found.own) == ("partial", "native")
    assert [(missing.role, missing.support) for missing in found.missing] == [("cudnn", "none")]


def test_a_stray_architecture_in_a_few_fatbins_is_no_support(library):
    usual = fatbin(sass(80, TORCH))
    torch = library(*[usual] * 40, fatbin(sass(80, TORCH), sass(90, TORCH, flags=0x100011)))
    assert support(torch, "9.0") == "none"
    assert [str(code) for code in torch.own.carried()] == ["sm_80"]


def test_an_image_without_kernels_decides_nothing(library):
    torch = library(fatbin(sass(35, TORCH)), fatbin(sass(70)))
    assert support(torch, "3.5") == "native"


def test_half_the_fatbins_of_an_extension_make_it_partial(library):
    extension = library(fatbin(sass(75, "_Z1av")), fatbin(sass(80, "_Z1bv")), name="_C.so")
    assert support(extension, "7.5") == "partial"


def test_linear_algebra_without_the_architecture_makes_torch_partial(library):
    torch = library(fatbin(sass(75, TORCH), sass(80, TORCH)))
    linalg = library(fatbin(sass(80, "_Z12zlascl_upperv")), name="libtorch_cuda_linalg.so")
    assert support([torch, linalg], "8.0") == "native"
    found = verdict([torch, linalg], ComputeCapability(7, 5))
    assert (found.support, [missing.role for missing in found.missing]) == (
        "partial",
        ["linear-algebra"],
    )


def test_what_a_build_was_asked_for_and_lacks_is_named(library):
    torch = library(
        *[fatbin(sass(35, TORCH), ptx(35, TORCH))] * 2,
        fatbin(sass(35, TORCH)),
        fatbin(sass(60, CUDNN)),
    )
    wanted = [DeviceCode.parse(text) for text in ("sm_35", "sm_37", "compute_35")]
    (lack,) = find_lacks(torch, wanted)
    assert (lack.role, [str(code) for code in lack.codes]) == ("torch", ["sm_37", "compute_35"])
    assert find_lacks(torch, wanted[:1]) == ()


def test_every_library_that_lacks_an_architecture_is_named_with_how_many_fatbins_have_it(library):
    usual = fatbin(sass(35, TORCH), ptx(35, TORCH))
    magma = "_Z24strtri_diag_upper_kernel12magma_diag_tiPKfiPf"
    libraries = [
        library(*[usual] * 3, fatbin(sass(35, TORCH)), fatbin(sass(37, magma)), name="libtorch_cuda.so"),
        library(usual, name="libtorch.so"),
        library(fatbin(sass(37, "_Z12zlascl_upperv")), name="libtorch_cuda_linalg.so"),
        library(fatbin(sass(35, "_Z1kv")), name="_C.so"),
        # Not what a build of torch compiles: NVIDIA's, and what newer cards only are offered.
        library(fatbin(sass(80, CUDNN)), name="libcudnn.so.8"),
        library(fatbin(sass(80)), name="libcusparseLt.so.0"),
        library(fatbin(), name="libtorch_empty.so"),
    ]  # fmt: skip
    wanted = [DeviceCode.parse(text) for text in ("sm_35", "compute_35")]
    found = [
        (lack.path.rsplit("/", 1)[1], lack.role, list(map(str, lack.codes)), lack.having, lack.fatbins)
        for lack in find_lacks(libraries, wanted)
    ]  # fmt: skip
    assert found == [
        ("libtorch_cuda.so", "torch", ["compute_35"], (3,), 4),
        ("libtorch_cuda.so", "magma", ["sm_35", "compute_35"], (0, 0), 1),
        ("libtorch_cuda_linalg.so", "linear-algebra", ["sm_35", "compute_35"], (0, 0), 1),
        ("_C.so", "extension", ["compute_35"], (0,), 1),
    ]
    assert find_lacks([], wanted) == find_lacks(libraries, []) == ()


def test_ptx_is_taken_from_the_newest_architecture_the_card_has(library):
    torch = library(
        fatbin(ptx(35, TORCH, version=(8, 8)), ptx(50, TORCH, version=(6, 0))),
        fatbin(ptx(50, TORCH, version=(6, 3))),
    )
    assert str(verdict(torch, ComputeCapability(8, 0)).ptx_version) == "6.3"
    assert verdict(torch, ComputeCapability(3, 5)).support == "partial"


def test_nothing_at_all_supports_nothing(library):
    found = verdict([], ComputeCapability(8, 0))
    assert (found.support, found.own, found.roles, found.missing) == ("none", "none", (), ())
    assert support(library(fatbin()), "8.0") == "none"


def test_a_package_whose_files_differ_is_partial(library):
    parts = [
        library(fatbin(sass(50, CUDNN)), name="libcudnn_engines_precompiled.so.9"),
        library(fatbin(sass(80, CUDNN)), name="libcudnn_ops.so.9"),
    ]
    found = verdict(parts, ComputeCapability(5, 0))
    assert (found.support, [missing.path[-15:] for missing in found.missing]) == (
        "partial",
        ["libcudnn_ops.so.9"[-15:]],
    )


def test_what_torch_does_without_lowers_no_verdict(library):
    torch = library(
        fatbin(sass(75, TORCH)),
        fatbin(sass(80, "_ZN13pytorch_flash16flash_fwd_kernelEv")),
    )
    sparse = library(fatbin(sass(80, "_Z1kv")), name="libcusparseLt.so.0")
    found = verdict([torch, sparse], ComputeCapability(7, 5))
    assert (found.support, found.missing) == ("native", ())
    assert {role.role: role.support for role in found.roles} == {
        "torch": "native",
        "attention": "none",
        "cusparselt": "none",
    }
