"""The stages of a source build, run for real on a tree in miniature: patches, switches, wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import platformdirs
import pytest
import testinfra

from envforge.binaries.subject import read_subject
from envforge.image.engine import Build, Engine, Launch
from envforge.image.lock import load_lock
from envforge.sources.store import hash_file

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TREE = Path(__file__).parent / "tree"
PLAN = ["--gpu", "gtx780", "--torch", "1.13.1", "--route", "source", "--platform", "debian-12"]
PLAN += ["--profile", "system-libs", "--ptx"]
WHEEL = "torch-1.13.1-cp311-cp311-linux_x86_64.whl"


def envforge(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "envforge", "build", *PLAN, *arguments],
        cwd=folder,
        env={**os.environ, "MAX_JOBS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(TREE, tmp_path_factory.mktemp("source") / "tree")


@pytest.fixture(scope="module")
def built(engine: Engine, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the miniature was built up to its wheel."""
    folder = tmp_path_factory.mktemp("built")
    answer = envforge(
        folder, "--source", str(tree), "--until", "torch", "--wheel", "out", "-o", "context"
    )
    assert answer.returncode == 0, answer.stderr
    assert "system-fmt, no-foxi, system-pocketfft, profiler-without-kineto" in answer.stderr
    return folder


def test_the_wheel_carries_the_cards_code_and_is_locked_by_hash(built: Path) -> None:
    lock = load_lock(built / "envforge.lock")
    seen = {check.name: check.seen for check in lock.verified}
    assert set(seen) == {"python", "nvcc", "host-compiler", "kernel", "wheel"}
    assert seen["wheel"] == "sm_35 compute_35 in all of libtorch_cuda.so"
    assert lock.wheels == {WHEEL: hash_file(built / "out" / WHEEL)}
    found = read_subject(built / "out" / WHEEL)
    (library,) = [each for each in found.libraries if each.path.endswith("libtorch_cuda.so")]
    assert dict(library.counts) == {"sm_35": 2, "compute_35": 2}


def test_the_runtime_stage_brings_what_the_libraries_link_and_no_compiler(
    built: Path, engine: Engine, tmp_path: Path
) -> None:
    build = Build(
        built / "context",
        "envforge-test/miniature",
        target="runtime",
        build_args={"MAX_JOBS": "2"},
    )
    engine.build(build, log=tmp_path / "log.txt")
    try:
        with engine.run(Launch(build.tag, ["sleep", "infinity"], user="1000:1000")) as container:
            host = testinfra.get_host(f"docker://{container.id}")
            site = "/usr/local/lib/python3.11/dist-packages/torch"
            assert "not found" not in host.check_output(f"ldd {site}/lib/libtorch_cuda.so")
            for package in ("libsleef3", "libcublas11", "python3-numpy"):
                assert host.package(package).is_installed, package
            for tool in ("g++-11", "nvcc", "cmake", "ninja", "git", "pip3"):
                assert not host.exists(tool), tool
            assert host.check_output("python3 -c 'import torch._C; print(torch.__doc__)'")
    finally:
        engine.remove(build.tag)


def test_after_one_change_the_compilers_cache_gives_the_rest(
    built: Path, tree: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(tree, tmp_path / "tree")
    with (changed / "aten/src/ATen/native/cuda/Add.cu").open("a") as stream:
        stream.write(f"namespace at {{ int added_{uuid.uuid4().hex}; }}\n")
    answer = envforge(tmp_path, "--source", str(changed), "--until", "torch", "--json")
    assert answer.returncode == 0, answer.stderr
    plan = json.loads(answer.stdout)["plan"]
    log = max(_logs().glob(f"build-{plan[:12]}-*.txt")).read_text()
    misses = re.search(r" Misses: +(\d+) / (\d+)", log)
    assert misses, log
    assert (misses[1], int(misses[2]) >= 3) == ("1", True), "only the changed file was compiled"


def _logs() -> Path:
    return platformdirs.user_cache_path("envforge") / "logs"


def test_a_patch_that_does_not_fit_the_tree_ends_with_exit_5_and_its_place(
    engine: Engine, tree: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tree, tmp_path / "tree")
    (other / "torch/csrc/profiler/kineto_shim.h").write_text("#pragma once\n")
    answer = envforge(tmp_path, "--source", str(other), "--until", "torch")
    assert answer.returncode == 5, answer.stderr
    assert "a patch does not fit the source tree" in answer.stderr
    assert "profiler-without-kineto: torch/csrc/profiler/kineto_shim.h: " in answer.stderr
    assert not (tmp_path / "envforge.lock").exists()


def test_a_library_without_the_plans_code_ends_with_exit_7_and_its_name(
    engine: Engine, tree: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tree, tmp_path / "tree")
    cmake = other / "cmake/Dependencies.cmake"
    text = cmake.read_text()
    assert "if(_ptx)" in text
    cmake.write_text(text.replace("if(_ptx)", "if(OFF)"))
    answer = envforge(tmp_path, "--source", str(other), "--until", "torch")
    assert answer.returncode == 7, answer.stderr
    assert "not every library carries sm_35 compute_35" in answer.stderr
    assert "torch/lib/libtorch_cuda.so" in answer.stderr
    assert "lacks compute_35" in answer.stderr
    assert not (tmp_path / "envforge.lock").exists()


def test_a_file_that_does_not_compile_fails_before_the_rest(
    engine: Engine, tree: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tree, tmp_path / "tree")
    (other / "aten/src/ATen/native/cuda/Lerp.cu").write_text("this is no CUDA\n")
    answer = envforge(tmp_path, "--source", str(other), "--until", "torch")
    assert answer.returncode == 7, answer.stderr
    assert "--cmake-only" in answer.stderr, "the step that compiles one file of each kind"
    assert "FAILED: CMakeFiles/torch_cuda.dir/aten/src/ATen/native/cuda/Lerp.cu.o" in answer.stderr
