"""Against NVIDIA's own tools: what they write is read, and read as cuobjdump reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from cuda_tools import Nvrtc, tool

from envforge.binaries import library, names
from envforge.binaries.content import open_content
from envforge.binaries.library import read_library

KERNEL = 'extern "C" __global__ void axpy(float a, float *y) { y[threadIdx.x] *= a; }'
ARCHITECTURES = ("35", "37", "50", "52", "60", "61", "70", "72", "75", "80", "86", "87", "90")


@pytest.fixture(scope="session")
def nvrtc() -> Nvrtc:
    return Nvrtc("nvidia-cuda-nvrtc-cu11==11.8.89")


@pytest.fixture(scope="session")
def fatbinary() -> Path:
    return tool("nvidia-cuda-nvcc==13.0.88", "fatbinary")


@pytest.fixture(scope="session")
def cuobjdump() -> Path:
    return tool("nvidia-cuda-cuobjdump==13.2.51", "cuobjdump")


@pytest.fixture(scope="session")
def images(nvrtc, tmp_path_factory) -> Path:
    """A cubin and a PTX file for every architecture CUDA 11.8 knows."""
    folder = tmp_path_factory.mktemp("images")
    for number in ARCHITECTURES:
        for output, kind, target in (("CUBIN", "cubin", "sm"), ("PTX", "ptx", "compute")):
            image = nvrtc.compile(KERNEL, output, f"-arch={target}_{number}")
            (folder / f"{target}_{number}.{kind}").write_bytes(image)
    return folder


@pytest.fixture
def pack(fatbinary, images, tmp_path):
    """Return a function that packs images as nvcc does."""

    def make(*labels: str, mode: str = "none") -> Path:
        out = tmp_path / f"{mode}.fatbin"
        command = [fatbinary, "-64", f"--create={out}", "--compress-all", f"--compress-mode={mode}"]
        for label in labels:
            target, number = label.split("_")
            kind, form = ("elf", "cubin") if target == "sm" else ("ptx", "ptx")
            command.append(f"--image3=kind={kind},sm={number},file={images / label}.{form}")
        subprocess.run(command, check=True)
        return out

    return make


def listed(cuobjdump: Path, path: Path) -> dict[str, int]:
    """Return cuobjdump's listing; it calls PTX ``sm_80.ptx``."""
    found: Counter[str] = Counter()
    for flag in ("-lelf", "-lptx"):
        command = [cuobjdump, "-all", flag, path]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for architecture, kind in re.findall(r"\.sm_(\d+[af]?)\.(cubin|ptx)$", text, re.MULTILINE):
            found[("compute_" if kind == "ptx" else "sm_") + architecture] += 1
    return dict(sorted(found.items()))


def kernel_names(path: Path) -> list[list[bytes]]:
    with open_content(path) as content:
        sections = library.find_fatbins(content, path.name).sections.values()
        entries = [entry for fatbins in sections for fatbin in fatbins for entry in fatbin.entries]
        return [names.kernels(names.beginning(content, entry, 1 << 16)) for entry in entries]


def test_the_cubin_of_every_architecture_is_told(images):
    for number in ARCHITECTURES:
        found = read_library(images / f"sm_{number}.cubin")
        assert (found.counts, found.defects) == ({f"sm_{number}": 1}, ())


@pytest.mark.parametrize("mode", ["none", "speed", "size"])
def test_every_way_of_packing_gives_the_same_listing(pack, mode):
    labels = [f"sm_{number}" for number in ARCHITECTURES] + ["compute_35", "compute_90"]
    found = read_library(pack(*labels, mode=mode))
    assert found.counts == dict.fromkeys(sorted(labels), 1)
    assert found.defects == ()
    assert [str(version) for version in found.own.ptx_versions()] == ["7.8"]


@pytest.mark.parametrize("mode", ["none", "speed", "size"])
def test_the_kernel_is_found_in_every_packed_image(pack, mode):
    if mode == "size" and names._zstd() is None:
        pytest.skip("zstd needs Python 3.14 or backports.zstd")
    found = kernel_names(pack("sm_35", "sm_86", "compute_50", mode=mode))
    assert {kernel for kernels in found for kernel in kernels} == {b"axpy"}
    assert all(found)


@pytest.mark.parametrize("mode", ["none", "speed", "size"])
def test_the_listing_agrees_with_cuobjdump(pack, cuobjdump, mode):
    path = pack("sm_75", "sm_80", "sm_86", "sm_90", "compute_75", "compute_90", mode=mode)
    assert read_library(path).counts == listed(cuobjdump, path) != {}


NVCC_TARGETS = (
    "-gencode arch=compute_75,code=sm_75 -gencode arch=compute_90a,code=sm_90a "
    "-gencode arch=compute_120,code=[sm_120,compute_120]"
)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc of CUDA 13 on the path")
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("-c", "axpy.o"),
        ("-c -G", "debug.o"),
        ("-c -lineinfo", "lines.o"),
        ("-rdc=true -c", "relocatable.o"),
        ("-lib", "libaxpy.a"),
        ("-fatbin", "axpy.fatbin"),
        ("-fatbin --compress-mode=size", "small.fatbin"),
        ("-shared -Xcompiler -fPIC -cudart shared", "libaxpy.so"),
        ("-shared -Xcompiler -fPIC -cudart shared -rdc=true", "librelocatable.so"),
    ],
)
def test_what_nvcc_builds_is_listed_as_cuobjdump_does(tmp_path, cuobjdump, options, name):
    (tmp_path / "axpy.cu").write_text(KERNEL)
    command = ["nvcc", *options.split(), *NVCC_TARGETS.split(), "axpy.cu", "-o", name]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = read_library(tmp_path / name)
    assert found.counts == listed(cuobjdump, tmp_path / name) != {}
    assert found.defects == ()
