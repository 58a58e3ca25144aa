"""Each patch of PyTorch's series on the shape its file has at the tags, judged by a compiler,
CMake or an interpreter: what fails without the patch passes with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from envforge.capability.load import load
from envforge.capability.models import in_range
from envforge.errors import MissingPatch
from envforge.patching.series import Patch, apply, load_series, select

GXX, CMAKE = shutil.which("g++"), shutil.which("cmake")
needs_gxx = pytest.mark.skipif(GXX is None, reason="no g++ on the path")
needs_cmake = pytest.mark.skipif(CMAKE is None, reason="no cmake on the path")


def named(id_: str, torch: str) -> Patch:
    """One patch with the edits of one release."""
    patch = next(patch for patch in load_series() if patch.id == id_)
    when = patch.when
    chosen = select(
        (patch,),
        torch=torch,
        cuda="11.4.100" if when.cuda else None,
        python="3.8" if when.python else None,
        capability="3.0" if when.capability else None,
        cudnn="8.7.0" if when.cudnn else None,
        platform=when.platform[0] if when.platform else None,
    )
    return chosen[0]


def write(tree: Path, name: str, text: str) -> Path:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def compiles(path: Path, *flags: str) -> str:
    """Compile without output; empty, or what the compiler says."""
    command = [GXX, "-fsyntax-only", "-std=c++11", "-x", "c++", *flags, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def applied(id_: str, torch: str, tree: Path) -> list[str]:
    """Apply a patch twice: the second time everything stands already."""
    patch = named(id_, torch)
    first = apply((patch,), tree)
    assert all(line.endswith(": already applied") for line in apply((patch,), tree))
    return first


# The header of CUDA 10.1.243, and the two lines of v0.4.1 to v1.0.1 the name stands on.
CUSPARSE_H = """\
enum cusparseStatus_t { CUSPARSE_STATUS_SUCCESS };
extern "C" const char *cusparseGetErrorString(cusparseStatus_t status);
"""
CUSPARSE = """\
#include <string>
#include "cusparse.h"
namespace at { namespace native { namespace sparse { namespace cuda {


std::string cusparseGetErrorString(cusparseStatus_t status) {
  return "";
}

inline void CUSPARSE_CHECK(cusparseStatus_t status) {
  std::string("cusparse runtime error: ") + cusparseGetErrorString(status);
}
}}}}
"""


@needs_gxx
@pytest.mark.parametrize(
    "header", [CUSPARSE_H, "enum cusparseStatus_t { CUSPARSE_STATUS_SUCCESS };"]
)
def test_the_cusparse_call_is_unambiguous_with_new_headers_and_old(header, tmp_path):
    include = write(tmp_path, "cusparse.h", header).parent
    path = write(tmp_path, "aten/src/ATen/native/sparse/cuda/SparseCUDABlas.cu", CUSPARSE)
    assert ("ambiguous" in compiles(path, f"-I{include}")) == (header == CUSPARSE_H)
    applied("rename-cusparse-error-string", "1.0.1", tmp_path)
    assert compiles(path, f"-I{include}") == ""


LOADERS = "import yaml\n\ndef parse(declaration_lines):\n    return yaml.load('\\n'.join(declaration_lines))\n"


@pytest.mark.parametrize("torch", ["0.4.0", "1.0.1", "1.1.0"])
def test_the_generators_load_yaml_with_pyyaml_6(torch, tmp_path):
    """The PyYAML of this environment is 6 or later: envforge itself requires it."""
    names = ["aten/src/ATen/cwrap_parser.py", "tools/cwrap/cwrap.py"]
    paths = [write(tmp_path, name, LOADERS) for name in names]
    for path in paths:
        with pytest.raises(TypeError, match="Loader"):
            loaded(path)
    applied("yaml-load-with-a-loader", torch, tmp_path)
    for path in paths:
        assert loaded(path) == {"name": "add", "arguments": [1]}


def loaded(path: Path) -> object:
    space: dict[str, object] = {}
    exec(compile(path.read_text(), str(path), "exec"), space)  # our own text
    return space["parse"](["name: add", "arguments:", "- 1"])  # type: ignore[operator]


FIND_BLAS = """\
INCLUDE(CheckFortranFunctionExists)
if(CMAKE_Fortran_COMPILER)
  check_fortran_function_exists("sgemm" WORKS)
else()
  check_function_exists("malloc" WORKS)
endif()
"""


@needs_cmake
@needs_gxx
def test_find_blas_knows_the_check_it_calls(tmp_path):
    path = write(tmp_path, "cmake/Modules/FindBLAS.cmake", FIND_BLAS)
    write(tmp_path, "CMakeLists.txt", "cmake_minimum_required(VERSION 3.5)\nproject(x C)\ninclude(cmake/Modules/FindBLAS.cmake)\n")  # fmt: skip
    command = [CMAKE, "-S", str(tmp_path), "-B", str(tmp_path / "build")]
    before = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 'Unknown CMake command "check_function_exists"' in before.stderr
    applied("find-blas-includes-its-check", "1.7.1", tmp_path)
    after = subprocess.run(command, capture_output=True, text=True, check=False)
    assert after.returncode == 0, after.stderr
    assert path.read_text().count("INCLUDE(CheckFunctionExists)") == 1


CUDNN_CMAKE = """\
if(CAFFE2_USE_CUDNN)
  # Get cuDNN version
  file(READ ${%s}/cudnn.h CUDNN_HEADER_CONTENTS)
  string(REGEX MATCH "define CUDNN_MAJOR * +([0-9]+)"
               CUDNN_VERSION_MAJOR "${CUDNN_HEADER_CONTENTS}")
  message("major: ${CMAKE_MATCH_1}")
endif()
"""
CUDNN_PY = """\
import os, sys
path = sys.argv[1]
include_file_path = os.path.join(path, 'cudnn.h')
CUDNN_INCLUDE_VERSION = None
with open(include_file_path) as f:
    for line in f:
        if "#define CUDNN_MAJOR" in line:
            CUDNN_INCLUDE_VERSION = int(line.split()[-1])
            break
print(CUDNN_INCLUDE_VERSION)
"""


@needs_cmake
@pytest.mark.parametrize(
    ("torch", "variable"), [("1.0.1", "CUDNN_INCLUDE_DIR"), ("1.5.1", "CUDNN_INCLUDE_PATH")]
)
def test_the_version_of_cudnn_8_is_found(torch, variable, tmp_path):
    write(tmp_path, "include/cudnn.h", '#include "cudnn_version.h"\n')
    include = write(tmp_path, "include/cudnn_version.h", "#define CUDNN_MAJOR 8\n").parent
    path = write(tmp_path, "cmake/public/cuda.cmake", CUDNN_CMAKE % variable)
    command = [CMAKE, "-DCAFFE2_USE_CUDNN=1", f"-D{variable}={include}", "-P", str(path)]
    assert said(*command) == "major:"
    applied_to_both = in_range(torch, "<1.3")
    if applied_to_both:
        script = write(tmp_path, "tools/setup_helpers/cudnn.py", CUDNN_PY)
        assert said(sys.executable, str(script), str(include)) == "None"
    applied("cudnn-8-version-header", torch, tmp_path)
    assert said(*command) == "major: 8"
    if applied_to_both:
        assert said(sys.executable, str(script), str(include)) == "8"


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip()


TYPE = """\
#include <Python.h>
PyTypeObject THPDeviceType = {
  PyVarObject_HEAD_INIT(nullptr, 0)
  "torch.device",                        /* tp_name */
  0,                                     /* tp_basicsize */
  0,                                     /* tp_itemsize */
  0,                                     /* tp_dealloc */
  nullptr,                                     /* tp_print */
  nullptr,                                     /* tp_getattr */
};
"""
TWO_TYPES = TYPE + TYPE.partition("\n")[2].replace("THPDeviceType", "THPOtherType").replace(
    "nullptr,                                     /* tp_print */", "nullptr, /* tp_print */"
)
INCLUDE = sysconfig.get_path("include")


@needs_gxx
@pytest.mark.skipif(not os.path.exists(f"{INCLUDE}/Python.h"), reason="no headers of Python")  # noqa: PTH110
@pytest.mark.parametrize("torch", ["1.1.0", "1.3.1"])
def test_the_types_compile_against_a_python_since_3_8(torch, tmp_path):
    paths = [
        write(tmp_path, edit.file, TYPE if edit.sites == 1 else TWO_TYPES)
        for edit in named("python-3.8-type-slots", torch).edits
    ]
    assert "cannot convert" in compiles(paths[0], f"-I{INCLUDE}")
    applied("python-3.8-type-slots", torch, tmp_path)
    for path in paths:
        assert "tp_print" in path.read_text()
        assert compiles(path, f"-I{INCLUDE}") == ""


def test_files_that_came_later_are_edited_from_their_release_on():
    files = {torch: [e.file for e in named("python-3.8-type-slots", torch).edits] for torch in ("1.1.0", "1.2.0")}  # fmt: skip
    assert set(files["1.2.0"]) - set(files["1.1.0"]) == {
        "torch/csrc/MemoryFormat.cpp",
        "torch/csrc/QScheme.cpp",
    }


CONV3D = """\
#ifndef __CUDA_ARCH__
float __ldg(const float *);
#elif __CUDA_ARCH__ >= 350
float __ldg(const float *);
#endif

namespace caffe2 {

float load(const float *input, int offset) {
  return __ldg(input + offset) * __ldg(input);
}
} // namespace caffe2
"""


@needs_gxx
def test_the_convolution_of_1_2_0_compiles_below_3_5_and_is_the_same_above(tmp_path):
    path = write(tmp_path, "caffe2/operators/channelwise_conv3d_op_cudnn.cu", CONV3D)
    assert "__ldg" in compiles(path, "-D__CUDA_ARCH__=300")
    applied("conv3d-without-ldg", "1.2.0", tmp_path)
    assert compiles(path, "-D__CUDA_ARCH__=300") == ""
    assert compiles(path, "-D__CUDA_ARCH__=350") == ""
    assert compiles(path) == ""


FUSER = """\
        if (is_bool) {
          env.s("access", format("t${formal}.data[t${formal}_offset]", env));
        } else {
          env.s("access", format("__ldg(&t${formal}.data[t${formal}_offset])", env));
        }
"""
TENSOREXPR = """\
  if (is_buf_store_target) {
    os() << *v->base_handle() << "[" << *v->%(index)s << "]";
    return;
  }
  os() << "__ldg(" << *v->base_handle() << " + " << *v->%(index)s << ")";
"""


@pytest.mark.parametrize(
    ("torch", "files"),
    [
        ("1.1.0", {"torch/csrc/jit/fuser/codegen.cpp": FUSER}),
        ("1.4.1", {"torch/csrc/jit/fuser/codegen.cpp": FUSER}),
        ("1.5.1", {"torch/csrc/jit/codegen/fuser/codegen.cpp": FUSER, "torch/csrc/jit/tensorexpr/cuda_codegen.cpp": TENSOREXPR % {"index": "index()"}}),
        ("1.10.0", {"torch/csrc/jit/codegen/fuser/codegen.cpp": FUSER, "torch/csrc/jit/tensorexpr/cuda_codegen.cpp": TENSOREXPR % {"index": "flat_index()"}}),
    ],
)  # fmt: skip
def test_no_fuser_writes_ldg_for_a_card_below_3_5(torch, files, tmp_path):
    paths = [write(tmp_path, name, text) for name, text in files.items()]
    applied("fuser-without-ldg", torch, tmp_path)
    for path in paths:
        assert '"__ldg(' not in path.read_text()


def test_a_card_of_3_5_keeps_its_ldg():
    chosen = select(load_series(), torch="1.2.0", cuda="10.1.243", capability="3.5")
    assert not {"conv3d-without-ldg", "fuser-without-ldg"} & {patch.id for patch in chosen}


@needs_gxx
def test_thrusts_host_vector_is_included_by_name(tmp_path):
    write(tmp_path, "thrust/host_vector.h", "namespace thrust { struct host_vector {}; }\n")
    write(tmp_path, "thrust/device_vector.h", "namespace thrust { struct device_vector {}; }\n")
    text = "#include <thrust/device_vector.h>\nthrust::host_vector on_host;\n"
    path = write(tmp_path, "caffe2/utils/math_gpu.cu", text)
    assert "host_vector" in compiles(path, f"-I{tmp_path}")
    applied("thrust-host-vector", "1.9.1", tmp_path)
    assert compiles(path, f"-I{tmp_path}") == ""


ETHTOOL = """\
typedef unsigned __u32;
struct ethtool_link_settings { __u32 cmd; __u32 speed; signed char link_mode_masks_nwords; __u32 link_mode_masks[%s]; };
int getInterfaceSpeedGLinkSettings() {
  constexpr auto link_mode_data_nwords = 3 * 127;
  struct {
    struct ethtool_link_settings req;
    __u32 link_mode_data[link_mode_data_nwords];
  } ecmd;
  ecmd.req.cmd = 1;
  static_assert(sizeof(ecmd) == sizeof(ethtool_link_settings) + 4 * link_mode_data_nwords, "room");
  return ecmd.req.link_mode_masks_nwords;
}
"""


@needs_gxx
@pytest.mark.parametrize(("length", "headers"), [("0", "5.19"), ("", "6.0.3")])
def test_gloos_room_for_link_modes_stays_with_old_kernel_headers_and_new(length, headers, tmp_path):
    path = write(tmp_path, "third_party/gloo/gloo/common/linux.cc", ETHTOOL % length)
    assert ("flexible array member" in compiles(path)) == (headers == "6.0.3")
    applied("gloo-linux-6-headers", "1.7.1", tmp_path)
    assert compiles(path) == ""


def test_gloo_is_left_alone_where_nothing_distributed_is_built():
    switches = {"USE_DISTRIBUTED": "0", "USE_CUDA": "1"}
    chosen = select(load_series(), torch="1.13.1", platform="debian-12", switches=switches)
    assert "gloo-linux-6-headers" not in [patch.id for patch in chosen]


CONVOLUTIONS = (
    "pytorch pull request 38680 (v1.6.0), caffe2/operators/conv_op_cudnn.cc and its neighbours"
)


def test_a_plan_that_needs_a_patch_nobody_carries_ends_with_exit_4_and_says_where_it_is():
    with pytest.raises(MissingPatch) as caught:
        select(load_series(), torch="1.4.0", cuda="10.1.243", cudnn="8.7.0")
    assert caught.value.exit_code == 4
    assert caught.value.what == (
        "torch 1.4.0 needs a patch in this plan that envforge knows and does not carry"
    )
    assert caught.value.because == (
        "cudnn-8-caffe2-convolutions: Caffe2's convolutions call functions that cuDNN 8 no longer has.",
        f"described in: {CONVOLUTIONS}",
    )


def test_the_same_release_without_caffe2_takes_the_patch_of_the_header():
    switches = {"BUILD_CAFFE2_OPS": "0"}
    chosen = select(load_series(), torch="1.4.0", cudnn="8.7.0", switches=switches)
    assert [patch.id for patch in chosen] == [
        "find-blas-includes-its-check",
        "cudnn-8-version-header",
    ]


def test_every_release_a_patch_is_for_has_an_edit_of_it():
    for patch in load_series():
        for release in load().releases:
            if in_range(release.version, patch.when.torch) and not patch.missing:
                fitting = [
                    e for e in patch.edits if e.torch is None or in_range(release.version, e.torch)
                ]
                assert fitting, (patch.id, release.version)


def test_what_upstream_mended_is_not_patched_from_that_release_on():
    for patch in load_series():
        if patch.upstream is not None and patch.id != "find-blas-includes-its-check":
            assert not in_range(patch.upstream.release, patch.when.torch), patch.id


def lifted_rules() -> dict[str, set[str]]:
    """What the database says of the patches: patch -> rules that it lifts."""
    found: dict[str, set[str]] = {}
    for release in load().releases:
        for patch in release.source_build.patched_pythons.values():
            found.setdefault(patch, set()).add(f"torch-{release.version}-python")
    return found


def test_database_and_series_agree_on_what_a_patch_lifts():
    assert lifted_rules() == {p.id: set(p.lifts) for p in load_series() if p.lifts}


def test_a_lifted_python_is_one_the_patch_is_selected_for():
    for release in load().releases:
        for python, id_ in release.source_build.patched_pythons.items():
            chosen = select(load_series(), torch=release.version, python=python)
            assert id_ in [patch.id for patch in chosen], (release.version, python)
            assert python not in release.source_build.pythons
