"""The maintainer's measurement of a wheel, on a small wheel with real machine code in it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
from cuda_tools import Nvrtc
from fatbin_writer import PTX, SASS, Image, elf, fatbin

from envforge.capability.models import Linalg, Measurement, WheelCudnn, WheelFile
from envforge.capability.tables import DATA, read_table

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "scripts"))

import measure_wheels

TORCH = "namespace at { namespace native { __global__ void fill(float *y) { *y = 1; } } }"
PLAIN = 'extern "C" __global__ void strtri(float *y) { *y = 2; }'
EMPTY = "__device__ int nothing() { return 0; }"
METADATA = """\
Metadata-Version: 2.1
Name: torch
Version: 9.9.9
Requires-Dist: filelock
Requires-Dist: nvidia-cudnn-cu11 (==8.5.0.96) ; platform_system == "Linux"
Requires-Dist: cuda-toolkit[nvrtc,cublas]==11.8.0
Requires-Dist: opt-einsum (>=3.3) ; extra == 'opt-einsum'
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    nvrtc = Nvrtc("nvidia-cuda-nvrtc-cu11==11.8.89")

    def images(source: str, *codes: str) -> bytes:
        made = []
        for code in codes:
            kind, number = code.split("_")
            output = "CUBIN" if kind == "sm" else "PTX"
            payload = nvrtc.compile(source, output, f"-arch={code}")
            made.append(Image(SASS if kind == "sm" else PTX, int(number), payload=payload))
        return fatbin(*made)

    usual = ("sm_35", "sm_70", "compute_70")
    cuda = images(TORCH, *usual) * 2 + images(TORCH, *usual, "sm_90") + images(PLAIN, "sm_80")
    strings = b"\0GLIBC_2.4\0GLIBC_2.17\0GLIBCXX_3.4.9\0GLIBCXX_3.4.19\0"
    path = tmp_path_factory.mktemp("wheel") / "torch-9.9.9-cp310-cp310-manylinux1_x86_64.whl"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("torch/version.py", "cuda: Optional[str] = '11.8'\nhip = None\n")
        out.writestr("torch-9.9.9.dist-info/METADATA", METADATA)
        libraries = {
            # A source without kernels makes an image, too: it must not count as code.
            "libtorch_cuda.so": [(".nv_fatbin", cuda + images(EMPTY, "sm_37"))],
            "libtorch_cuda_linalg.so": [
                (".nv_fatbin", images(PLAIN, "sm_70") + images(EMPTY, "sm_35"))
            ],
            "libtorch_python.so": [(".rodata", b"x\0sm_35 sm_70 compute_70\0")],
            "libgomp-1a2b3c4d.so.1": [(".dynstr", strings)],
        }
        for name, sections in libraries.items():
            out.writestr(f"torch/lib/{name}", elf(*sections))
    return path


def test_a_wheel_is_measured_into_the_words_of_the_database(wheel):
    file = WheelFile(tag="cp310-cp310", name=wheel.name, sha256="0" * 64, size_bytes=1)
    row = measure_wheels.row_of("9.9.9", file, (file,), measure_wheels.read_facts(wheel))
    assert (row.cuda, row.codes, row.glibc_min) == (
        *("11.8", ("sm_35", "sm_70", "compute_70"), "2.17"),
    )
    assert row.cudnn == WheelCudnn(
        version="8.5.0.96", project="nvidia-cudnn-cu11", source="METADATA of the wheel (measured)"
    )
    assert row.linalg == Linalg(fatbins=2, codes={"sm_35": 1, "sm_70": 1})
    assert row.measured == Measurement(
        file=wheel.name,
        fatbins=3,
        fatbins_alike=2,
        rare_codes=("sm_90",),
        library_codes=("sm_35", "sm_70", "sm_80", "sm_90"),
        libraries=("libtorch_cuda.so",),
        arch_list="sm_35 sm_70 compute_70",
        glibcxx_min="3.4.19",
        requires=("nvidia-cudnn-cu11==8.5.0.96", "cuda-toolkit[cublas,nvrtc]==11.8.0"),
    )
    assert row.source == f"measured from the PyPI wheel, sha256 {'0' * 64}"


def test_nothing_that_was_unpacked_is_left(wheel):
    measure_wheels.read_facts(wheel)
    assert list(wheel.parent.iterdir()) == [wheel]


def test_a_new_row_stands_before_the_older_releases():
    wheels = read_table(DATA / "wheels.yaml")
    new = wheels[0].__class__(
        torch="2.0.9", cuda="11.7", codes=("sm_35",), evidence="measured", source="here"
    )
    rows = measure_wheels.inserted(wheels, None, new)
    place = rows.index(new)
    assert (rows[place - 1].torch, rows[place + 1].torch) == ("2.1.0", "2.0.1")
    assert measure_wheels.inserted(wheels, wheels[3], new)[3] == new
    assert list(measure_wheels.differences(None, new)) == ["torch 2.0.9: a new row"]


def test_the_file_that_was_measured_before_is_measured_again():
    wheels = read_table(DATA / "wheels.yaml")
    row = measure_wheels.find_row(wheels, "1.0.1")
    chosen = measure_wheels.choose(row.files, row, "")
    assert chosen.name == row.measured.file
    assert measure_wheels.choose(row.files, row, "cp27-cp27mu").tag == "cp27-cp27mu"
    assert measure_wheels.choose(row.files, None, "").tag == "cp35-cp35m"
    with pytest.raises(SystemExit, match="there are cp27-cp27m, "):
        measure_wheels.choose(row.files, row, "cp99-cp99")


@pytest.mark.parametrize(("number", "version"), [(7402, "7.4.2"), (8500, "8.5.0"), (8302, "8.3.2")])
def test_the_number_a_linked_cudnn_gives_is_spelled_as_a_version(number, version):
    assert measure_wheels.spelled(number) == version
