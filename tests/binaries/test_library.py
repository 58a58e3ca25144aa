from __future__ import annotations

import pytest
from fatbin_writer import ZSTD, archive, cubin, elf, fatbin, packed, ptx, sass

from envforge.binaries.errors import BinaryError
from envforge.binaries.library import Library, list_code, read_library

TORCH = "_ZN2at6native13reduce_kernelEv"
FLASH = "_ZN13pytorch_flash16flash_fwd_kernelEv"
PLAIN = "_Z15_float_to_bfloat"


@pytest.fixture
def read(tmp_path):
    def write_and_read(data: bytes, name: str = "libtorch_cuda.so") -> Library:
        path = tmp_path / name
        path.write_bytes(data)
        return read_library(path)

    return write_and_read


def roles(library: Library) -> dict[str, int]:
    return {part.role: part.fatbins for part in library.parts}


def torch(*fatbins: bytes) -> bytes:
    return elf((".nv_fatbin", b"".join(fatbins)))


def test_executable_and_relocatable_images_are_kept_apart(read):
    library = read(elf((".nv_fatbin", fatbin(sass(35))), ("__nv_relfatbin", fatbin(sass(50)))))
    assert {section.name: section.entries for section in library.sections} == {
        ".nv_fatbin": {"sm_35": 1},
        "__nv_relfatbin": {"sm_50": 1},
    }


def test_relocatable_images_decide_only_where_there_is_nothing_else(read):
    relocatable = ("__nv_relfatbin", fatbin(sass(50, TORCH)))
    assert [str(code) for code in read(elf(relocatable)).own.carried()] == ["sm_50"]
    both = read(elf((".nv_fatbin", fatbin(sass(35, TORCH))), relocatable))
    assert [str(code) for code in both.own.carried()] == ["sm_35"]


def test_the_members_of_an_archive_are_one_library(read):
    objects = [("a.o", torch(fatbin(sass(35, "_Z1av")))), ("b.o", torch(fatbin(sass(35, "_Z1bv"))))]
    library = read(archive(*objects, ("notes.txt", b"no object")), "libkernels.a")
    assert (library.format, library.counts, roles(library)) == (
        *("archive", {"sm_35": 2}, {"extension": 2}),
    )


@pytest.mark.parametrize(
    ("cubin_", "label"),
    [
        (cubin(35, "_Z1kv"), "sm_35"),
        (cubin(90, "_Z1kv", flags=0x800), "sm_90a"),
        (cubin(120, "_Z1kv", os_abi=0x41), "sm_120"),
        (cubin(120, "_Z1kv", os_abi=0x41, flags=8), "sm_120a"),
    ],
)
def test_a_bare_cubin_is_read_from_its_header(read, cubin_, label):
    assert read(cubin_, "k.cubin").counts == {label: 1}


def test_a_bare_fatbin_is_read_from_its_start(read):
    library = read(fatbin(sass(35, "_Z1kv"), ptx(35, "_Z1kv")), "k.fatbin")
    assert (library.format, library.counts) == ("fatbin", {"compute_35": 1, "sm_35": 1})


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("libtorch_cuda.so", "torch"),
        ("libcaffe2_gpu.so", "torch"),
        ("libtorch_cuda_linalg.so", "linear-algebra"),
        ("libtorch_nvshmem.so", "nvshmem"),
        ("libcudnn_cnn.so.9", "cudnn"),
        ("libcublasLt.so.12", "cublas"),
        ("libcusparseLt.so.0", "cusparselt"),
        ("libnccl.so.2", "nccl"),
        ("libnppc.so.12", "nvidia"),
        ("libtorch.so.1", "torch"),
        ("libtorchvision.so", "extension"),
        ("libcudf.so", "extension"),
        ("_C.cpython-312-x86_64-linux-gnu.so", "extension"),
    ],
)
def test_the_role_of_a_file_is_told_by_its_name(read, name, role):
    assert read(elf((".nv_fatbin", fatbin(sass(70, "_Z1kv")))), name).role == role


@pytest.mark.parametrize(
    ("kernel", "role"),
    [
        (TORCH, "torch"),
        ("_Z37THCudaDoubleTensor_copyLowerSymmetricPdii", "torch"),
        ("_Z21kernelPointwiseApply3I10TensorEQOpIddEdddjLi1ELi1ELi1EEv", "torch"),
        ("_Z48cunn_SpatialClassNLLCriterion_sizeAverage_kernelIdEvPT_S1_", "torch"),
        ("_ZN6caffe215NormalizeKernelEiiiPKfPff", "torch"),
        (FLASH, "attention"),
        ("_Z41fmha_cutlassB_bf16_aligned_64x64_k64_sm80N22PyTorchMemEff", "attention"),
        ("_Z42ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_tP11ncclDevComm", "nccl"),
        ("_ZN4gloo20_Kernel_half_cudaMaxEP6__halfPKS0_i", "gloo"),
        ("maxwell_hcudnn_128x128_relu_interior_nn", "cudnn"),
        ("_Z15scal_kernel_refIffLi0EEv19cublasScalParamsRefIT_T0_E", "cublas"),
        ("volta_gcgemm_32x32_nn", "cublas"),
        ("_ZN8cusparse11do_mask_kerIlEEviiPT_S2_S2_i", "cusparse"),
        ("_ZN12spRadix0016A10kernel1MemIjfL14fftDirection_t1EEv", "cufft"),
        ("_Z24strtri_diag_upper_kernel12magma_diag_tiPKfiPf", "magma"),
        (PLAIN, "other"),
    ],
)
def test_whose_a_fatbin_is_its_kernels_tell(read, kernel, role):
    library = read(torch(fatbin(sass(37, TORCH)), fatbin(sass(35, kernel))))
    assert role in roles(library)


def test_a_name_that_tells_may_stand_behind_many_that_do_not(read):
    many = [f"_ZN6thrust8cuda_cub{number}kernel_agentEv" for number in range(150)]
    library = read(torch(fatbin(packed(sass(35, *many, TORCH)))))
    assert roles(library) == {"torch": 1}


def test_unnamed_kernels_with_all_of_torchs_architectures_are_torchs(read):
    library = read(
        torch(
            fatbin(sass(50, TORCH), sass(70, TORCH)),
            fatbin(sass(50, PLAIN), sass(70, PLAIN), sass(80, PLAIN)),
            fatbin(sass(50, PLAIN)),
        )
    )
    assert roles(library) == {"torch": 2, "other": 1}


def test_an_extension_owns_all_kernels_but_a_vendors(read):
    own = [fatbin(sass(75, kernel)) for kernel in (TORCH, FLASH, PLAIN)]
    library = read(torch(*own, fatbin(sass(35, "volta_gcgemm_32x32_nn"))), "_C.so")
    assert roles(library) == {"extension": 3, "cublas": 1}


def test_linear_algebra_is_the_most_common_set_of_its_library(read):
    magma = fatbin(sass(37, "_Z12zlascl_upperv"), sass(70, "_Z12zlascl_upperv"))
    cusolver = fatbin(sass(35, "_Z11getrf_panelv"), sass(75, "_Z11getrf_panelv"))
    library = read(torch(magma, magma, cusolver, fatbin(sass(35))), "libtorch_cuda_linalg.so")
    assert roles(library) == {"linear-algebra": 2, "cusolver": 1}
    assert [str(code) for code in library.own.carried()] == ["sm_37", "sm_70"]


def test_a_vendors_library_is_judged_by_the_union(read):
    library = read(torch(fatbin(sass(50, PLAIN)), fatbin(sass(70, PLAIN))), "libcublas.so.11")
    assert [str(code) for code in library.own.carried()] == ["sm_50", "sm_70"]


def test_what_nvcc_makes_of_no_kernel_is_no_code_of_a_vendors(read):
    library = read(torch(fatbin(sass(52)), fatbin(sass(35, "_Z1kv"))), "libnppc.so.11")
    assert (library.counts, roles(library)) == ({"sm_52": 1, "sm_35": 1}, {"nvidia": 1})
    assert read(torch(fatbin(sass(52))), "libcufftw.so.10").parts == ()


def test_names_nobody_can_read_leave_the_most_common_set(read, monkeypatch):
    monkeypatch.setattr("envforge.binaries.names._zstd", lambda: None)
    unreadable = {"flags": 0x11 | ZSTD, "uncompressed_size": 99999}
    usual = fatbin(*(sass(number)._replace(**unreadable) for number in (75, 80)))
    library = read(torch(usual, usual, fatbin(sass(90)._replace(**unreadable))))
    assert roles(library) == {"torch": 2, "other": 1}


def test_listing_alone_looks_at_no_kernel(tmp_path):
    path = tmp_path / "libtorch_cuda.so"
    path.write_bytes(torch(fatbin(sass(35, TORCH), ptx(35, TORCH))))
    library = list_code(path)
    assert (library.counts, library.parts) == ({"compute_35": 1, "sm_35": 1}, ())


def test_versions_of_ptx_are_listed_once(read):
    library = read(
        torch(*(fatbin(ptx(50, TORCH, version=version)) for version in ((7, 8), (6, 0), (7, 8))))
    )
    assert [str(version) for version in library.own.ptx_versions()] == ["6.0", "7.8"]
    assert (library.sass, [str(code) for code in library.ptx]) == ((), ["compute_50"])


def test_defects_are_told_with_their_place(read):
    data = torch(fatbin(sass(35, TORCH)) + b"trailing")
    library = read(data)
    assert [(data[place : place + 8], what) for place, what in library.defects] == [
        (b"trailing", "8 bytes that are no fatbin")
    ]


def test_cask_resources_hold_other_things_beside_fatbins(read):
    cask = fatbin(sass(100, flags=0x100011)) + b"flatbuffer" * 40 + fatbin(sass(120)) + b"end"
    executable = (".nv_fatbin", fatbin(sass(50)))
    library = read(elf(executable, (".cask_resource", cask)), "libcublasLt.so.12")
    assert library.counts == {"sm_50": 1, "sm_100a": 1, "sm_120": 1}
    assert library.defects == ()


def test_a_library_without_device_code_has_no_sections(read):
    library = read(elf((".text", b"code")), "libc10.so")
    assert (library.sections, library.parts, library.own) == ((), (), None)


def test_a_file_that_is_no_binary_is_named(tmp_path):
    path = tmp_path / "setup.py"
    path.write_text("import torch")
    with pytest.raises(BinaryError, match=r"setup\.py: not a CUDA binary"):
        read_library(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BinaryError, match="cannot read") as refusal:
        read_library(tmp_path / "missing.so")
    assert refusal.value.because == ("No such file or directory",)
