"""Which kernels exist for which architecture: real objects first, then damaged ones."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cuda_tools import Nvrtc, tool
from fatbin_writer import LTO, ZSTD, Image, elf, fatbin, packed, ptx, sass

from envforge.binaries import demangle, names
from envforge.binaries.errors import BinaryError
from envforge.binaries.kernels import Kernel, kernels_of, read_kernels
from envforge.events import Event

CAPTURES = Path(__file__).parent / "captures"
SOURCE = """
__device__ __noinline__ float helper(float x) { return x * x; }
template <typename T> __global__ void scale(T *y, T a) { y[threadIdx.x] *= a; }
template __global__ void scale<float>(float *, float);
template __global__ void scale<double>(double *, double);
namespace at { __global__ void square(float *y) { y[threadIdx.x] = helper(y[threadIdx.x]); } }
extern "C" __global__ void plain(float *y) { *y = 1; }
"""
"""Three kernels of C++ and one of C; a function that is none but has code of its own."""


def codes(kernel: Kernel) -> list[str]:
    return [str(code) for code in kernel.codes]


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """A real fatbin: all four kernels for 3.5 and as PTX, only one of them for 7.0."""
    nvrtc = Nvrtc("nvidia-cuda-nvrtc-cu11==11.8.89")
    folder = tmp_path_factory.mktemp("kernels")
    one = SOURCE.rsplit("\n", 2)[0].replace("template __global__", "// ").replace("namespace", "//")
    images = [
        ("elf", "35", nvrtc.compile(SOURCE, "CUBIN", "-arch=sm_35")),
        ("ptx", "35", nvrtc.compile(SOURCE, "PTX", "-arch=compute_35")),
        ("elf", "70", nvrtc.compile(f'{one}\nextern "C" __global__ void plain() {{}}', "CUBIN", "-arch=sm_70")),
    ]  # fmt: skip
    command = [tool("nvidia-cuda-nvcc==13.0.88", "fatbinary"), "-64"]
    command += ["--compress-all", "--compress-mode=speed", f"--create={folder / 'k.fatbin'}"]
    for number, (kind, architecture, image) in enumerate(images):
        (folder / f"{number}").write_bytes(image)
        command.append(f"--image3=kind={kind},sm={architecture},file={folder / str(number)}")
    subprocess.run(command, check=True)
    return folder / "k.fatbin"


def test_each_kernel_is_listed_with_the_architectures_it_was_compiled_for(several):
    found = read_kernels(several)
    assert [(kernel.readable, codes(kernel)) for kernel in found.kernels] == [
        ("at::square(float*)", ["sm_35", "compute_35"]),
        ("plain", ["sm_35", "sm_70", "compute_35"]),
        ("void scale<double>(double*, double)", ["sm_35", "compute_35"]),
        ("void scale<float>(float*, float)", ["sm_35", "compute_35"]),
    ]
    assert found.unread == 0


def test_a_pattern_is_looked_for_in_both_forms_of_the_name(several):
    by_readable = read_kernels(several, re.compile(r"scale<float>").search)
    by_mangled = read_kernels(several, re.compile(r"^_Z5scaleIf").search)
    assert by_readable == by_mangled
    assert [kernel.name for kernel in by_mangled.kernels] == ["_Z5scaleIfEvPT_S0_"]


@pytest.mark.parametrize(
    "capture", [path for path in sorted(CAPTURES.iterdir()) if path.suffix in (".o", ".so", ".a", ".cubin", ".fatbin")], ids=lambda path: path.name
)  # fmt: skip
def test_the_kernels_of_everything_nvcc_wrote_are_found(capture):
    found = read_kernels(capture)
    labels = set(re.findall(r"(?:sm|compute)_\w+?(?==)", capture.name))
    assert {kernel.readable.split("(")[0] for kernel in found.kernels} == (
        {"axpy"} if labels else set()
    )
    assert {code for kernel in found.kernels for code in codes(kernel)} == labels


def test_progress_is_told_in_bytes_of_the_device_code(several):
    events: list[Event] = []
    read_kernels(several, on_event=events.append)
    (event,) = events
    assert (event.kind, event.done) == ("bytes", several.stat().st_size)
    assert event.done == event.total


def test_an_image_that_cannot_be_unpacked_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "_zstd", lambda: None)
    damaged = packed(sass(35, "_Z1kv"))._replace(payload=b"\xf0" * 40)
    zstd = sass(80)._replace(flags=0x11 | ZSTD, uncompressed_size=300)
    path = tmp_path / "k.fatbin"
    path.write_bytes(fatbin(damaged, zstd, ptx(50, "_Z1kv"), Image(LTO, 90)))
    found = read_kernels(path)
    assert found.unread == 2
    assert [codes(kernel) for kernel in found.kernels] == [["compute_50"]]


def test_a_header_that_asks_for_all_of_the_memory_is_not_believed(tmp_path):
    bomb = packed(sass(35, "_Z1kv"))._replace(uncompressed_size=1 << 45)
    path = tmp_path / "k.fatbin"
    path.write_bytes(fatbin(bomb))
    assert read_kernels(path).unread == 1


def test_a_cubin_cut_off_anywhere_gives_no_kernel_that_is_not_there():
    image = next(CAPTURES.glob("*sm_35=1.cubin")).read_bytes()
    whole = set(kernels_of(image))
    assert whole == {b"_Z4axpyfPKfPfi"}
    for size in range(0, len(image), 7):
        assert set(kernels_of(image[:size])) <= whole


def test_relocatable_images_count_only_where_there_are_no_others(tmp_path):
    path = tmp_path / "_C.so"
    cubin = next(CAPTURES.glob("*sm_35=1.cubin")).read_bytes()
    relocatable = ("__nv_relfatbin", fatbin(Image(2, 50, payload=cubin)))
    path.write_bytes(elf(relocatable))
    assert [codes(kernel) for kernel in read_kernels(path).kernels] == [["sm_50"]]
    path.write_bytes(elf((".nv_fatbin", fatbin(Image(2, 35, payload=cubin))), relocatable))
    assert [codes(kernel) for kernel in read_kernels(path).kernels] == [["sm_35"]]


def test_what_is_no_binary_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing")
    with pytest.raises(BinaryError, match="not a CUDA binary"):
        read_kernels(path)


def test_a_name_that_is_not_mangled_stays_as_it_is(monkeypatch):
    assert demangle.demangle("_Z1kv") == "k()"
    assert demangle.demangle("axpy") == "axpy"
    assert demangle.demangle("_Znonsense") == "_Znonsense"
    monkeypatch.setattr(demangle, "_library", lambda: None)
    assert demangle.demangle("_Z1kv") == "_Z1kv"
