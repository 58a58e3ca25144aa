"""Whose kernels a file or a fatbin holds.

The union of architectures in a library is the wrong answer: torch 1.3.1 to 1.12.1 carry sm_35 in
the cuDNN, cuBLAS and cuFFT linked into them, while torch's own kernels begin at sm_37. So a fatbin
is judged by the names of its kernels. The patterns were measured on published wheels: on torch
1.0.1 they mark 268 of 848 fatbins as torch's own, all of one architecture set, and none of
NVIDIA's; see docs/verification/2026-11-22-binaries.md.
"""

from __future__ import annotations

import re
from typing import Literal

Role = Literal[
    "torch",
    "linear-algebra",
    "extension",
    "cudnn",
    "cublas",
    "cufft",
    "cusparse",
    "cusolver",
    "curand",
    "magma",
    "nccl",
    "gloo",
    "attention",
    "cusparselt",
    "nvshmem",
    "nvidia",
    "other",
]

OPTIONAL: frozenset[Role] = frozenset({"attention", "cusparselt", "nvshmem", "nvidia", "other"})
"""Roles that do not lower a verdict: torch itself offers them on newer cards only and does
without (attention, cuSPARSELt), or nothing says what they are for."""

VENDOR: frozenset[Role] = frozenset(
    {
        "cudnn",
        "cublas",
        "cufft",
        "cusparse",
        "cusolver",
        "curand",
        "nccl",
        "nvidia",
        "cusparselt",
        "nvshmem",
    }
)
"""NVIDIA's libraries keep a kernel in the fatbin of one architecture and its twin in another, so
they are judged by the union; everybody else's fatbin holds all architectures of one source file."""

_FILES: tuple[tuple[str, Role], ...] = (
    (r"libtorch_cuda_linalg", "linear-algebra"),
    (r"libtorch_nvshmem|libnvshmem", "nvshmem"),
    (r"lib(?:torch(?:_\w+)?|caffe2\w*|c10\w*|ATen\w*|THC\w*)[-.]", "torch"),
    (r"libcudnn", "cudnn"),
    (r"libcublas|libnvblas", "cublas"),
    (r"libcufft", "cufft"),
    (r"libcusparseLt", "cusparselt"),
    (r"libcusparse", "cusparse"),
    (r"libcusolver", "cusolver"),
    (r"libcurand", "curand"),
    (r"libmagma", "magma"),
    (r"libnccl", "nccl"),
    (r"lib(?:cudart|cudadevrt|cupti|cufile|npp\w*|nvrtc|nvJitLink|nvjpeg|nvToolsExt)", "nvidia"),
)

_KERNELS: tuple[tuple[bytes, Role], ...] = (
    # Compiled with torch and like torch's own, but torch runs without it: hence before torch.
    (rb"pytorch_f(?:lash|mha)|PyTorchMemEffAttention|fmha_cutlass|FMHA_kernel", "attention"),
    # The namespaces at, c10, caffe2, torch.
    (rb"N2at|2at6native|at_cuda_detail|N3c10|N4c10d|N6caffe2|N5torch", "torch"),
    # Before 1.2 most of torch's kernels stood outside any namespace: TH's own.
    (rb"THC[A-Z_]|THNN|cunn_|kernelPointwiseApply|kernelReduce|TensorInfoI|OffsetInfoI", "torch"),
    (rb"ncclKernel|ncclDev|ncclFunction", "nccl"),
    (rb"N4gloo", "gloo"),
    (rb"cudnn|batchnorm_\w*semiPersist|convolveNd_|nchwToNhwcKernel|nhwcToNchwKernel", "cudnn"),
    (rb"cusolver|pegasus|syevj|ormtr", "cusolver"),
    (rb"cusparse|csrMm_|sortI32_by_key|convert_C\w\wToC\w\w_", "cusparse"),
    (rb"cublas|fermiPlus[SDCZ]gemm|gemm_largek|gemmk1_kernel", "cublas"),
    (rb"(?:volta|maxwell)_\w*gemm|[sdcz](?:gemm|syrk|trmm)_sm35_ldg", "cublas"),
    (rb"fftDirection_t|[ds]p(?:Radix|Vector)|RADIX_M|vectorRadix|cufft|callback_t", "cufft"),
    (rb"gen_sequenced|gen_quasi|MT19937_kernel", "curand"),
    (rb"magma_|smallsq_|_kernel_[LU]_sum", "magma"),
    (rb"[sdcz](?:lascl|laset|lacpy|laswp|getf2|potf2)_", "magma"),
)

_FILE_PATTERNS = [(re.compile(pattern), role) for pattern, role in _FILES]
_KERNEL_PATTERNS = [(re.compile(pattern), role) for pattern, role in _KERNELS]


def role_of_file(name: str) -> Role:
    """Say whose library a file is, by its name; what nobody ships is an extension."""
    return next((role for pattern, role in _FILE_PATTERNS if pattern.match(name)), "extension")


def role_of_kernels(kernels: list[bytes]) -> Role | None:
    """Say whose kernels these are; None where no name tells."""
    text = b" ".join(kernels)
    return next((role for pattern, role in _KERNEL_PATTERNS if pattern.search(text)), None)
