"""The stages of a source build, run for real on a tree in miniature: patches, switches, wheel."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import platformdirs
import psutil
import pytest
from image_parts import Runtime, build_plan
from msgspec.structs import replace

from envforge.binaries.subject import read_subject
from envforge.build import BuildRequest, build, prepare
from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.capability.submodules import SubmoduleTable
from envforge.events import ignore
from envforge.image.engine import Engine
from envforge.image.lock import load_lock
from envforge.resolver import Request
from envforge.sources.store import hash_file

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TREE = Path(__file__).parent / "tree"
PLAN = ["--gpu", "gtx780", "--torch", "1.13.1", "--route", "source", "--platform", "debian-12"]
PLAN += ["--profile", "system-libs", "--ptx", "--no-torchvision"]
WHEEL = "torch-1.13.1-cp311-cp311-linux_x86_64.whl"


def envforge(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return build_plan(folder, PLAN, *arguments)


@pytest.fixture(scope="module", autouse=True)
def clean(engine: Engine) -> Iterator[None]:
    """Leave no image behind that calls a miniature torch."""
    before = set(_torch_images(engine))
    yield
    for tag in set(_torch_images(engine)) - before:
        engine.remove(tag)


def _torch_images(engine: Engine) -> list[str]:
    found = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", "envforge/torch"],
        env={**os.environ, **dict(engine.endpoint.environment)},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.split()


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
    assert (
        "system-fmt, fmt-9-writes-to-iterators, no-foxi, system-pocketfft, profiler-without-kineto"
        in answer.stderr
    )
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
    built: Path, runtime: Runtime
) -> None:
    with runtime(built / "context") as host:
        site = "/usr/local/lib/python3.11/dist-packages/torch"
        assert "not found" not in host.check_output(f"ldd {site}/lib/libtorch_cuda.so")
        for package in ("libsleef3", "libcublas11", "python3-numpy"):
            assert host.package(package).is_installed, package
        for tool in ("g++-11", "nvcc", "cmake", "ninja", "git", "pip3"):
            assert not host.exists(tool), tool
        assert host.check_output("python3 -c 'import torch._C; print(torch.__doc__)'")


def test_after_one_change_the_compilers_cache_gives_the_rest(
    built: Path, tree: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(tree, tmp_path / "tree")
    with (changed / "aten/src/ATen/native/cuda/Add.cu").open("a") as stream:
        stream.write(f"namespace at {{ int added_{uuid.uuid4().hex}; }}\n")
    answer = envforge(tmp_path, "--source", str(changed), "--until", "torch", "--json")
    assert answer.returncode == 0, answer.stderr
    assert _misses(answer) == 1, "only the changed file was compiled"


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


def test_the_image_says_what_it_is_and_what_was_seen_in_it(built: Path, engine: Engine) -> None:
    lock = load_lock(built / "envforge.lock")
    image = engine.image(lock.image)
    assert image is not None
    assert image.id == lock.image_id
    assert image.labels["envforge.plan"] == lock.plan
    assert json.loads(image.labels["envforge.resolution"])["torch"] == "1.13.1"
    assert [row["name"] for row in json.loads(image.labels["envforge.verified"])] == [
        check.name for check in lock.verified
    ]
    assert engine.image(f"{lock.image}-unverified") is None


WAITING = """
def wait_once(mark):
    import time
    if not os.path.exists(mark):
        open(mark, "w").close()
        print("all compiled, now waiting", flush=True)
        time.sleep(3600)


"""


def test_a_killed_build_goes_on_from_the_compilers_cache(
    engine: Engine, tree: Path, tmp_path: Path
) -> None:
    """Envforge and its client die in mid-build; nothing is compiled a second time."""
    changed = shutil.copytree(tree, tmp_path / "tree")
    mark = uuid.uuid4().hex
    with (changed / "aten/src/ATen/native/cuda/Add.cu").open("a") as stream:
        stream.write(f"namespace at {{ int fresh_{mark}; }}\n")
    setup, end = changed / "setup.py", "compile_all()\nsetup("
    assert end in setup.read_text()
    text = setup.read_text().replace(end, f"compile_all()\nwait_once('/ccache/{mark}')\nsetup(")
    setup.write_text(text.replace("def configure():", WAITING + "def configure():", 1))
    before = set(_logs().glob("build-*.txt"))
    process = subprocess.Popen(
        [sys.executable, "-m", "envforge", "build", *PLAN, "--source", str(changed)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not _says("all compiled, now waiting", set(_logs().glob("build-*.txt")) - before):
        assert process.poll() is None
        time.sleep(0.5)
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    answer = envforge(tmp_path, "--source", str(changed), "--until", "torch", "--json")
    assert answer.returncode == 0, answer.stderr
    assert _misses(answer) == 0


def _says(text: str, logs: set[Path]) -> bool:
    return any(text in log.read_text(errors="replace") for log in logs)


def _misses(answer: subprocess.CompletedProcess[str]) -> int:
    """Count what the compilers' cache did not have, of all its calls in the newest build."""
    plan = json.loads(answer.stdout)["plan"]
    log = max(_logs().glob(f"build-{plan[:12]}-*.txt")).read_text()
    misses = re.search(r" Misses: +(\d+) / (\d+)", log)
    assert misses, log
    assert int(misses[2]) >= 3, "every file goes through the cache"
    return int(misses[1])


SUBMODULES = {
    "third_party/fmt": {
        "CMakeLists.txt": "add_library(fmt-header-only INTERFACE)\n"
        "target_include_directories(fmt-header-only INTERFACE include)\n"
        "add_library(fmt::fmt-header-only ALIAS fmt-header-only)\n",
        "include/fmt/format.h": "#pragma once\n#include <string>\nnamespace fmt {\n"
        "inline std::string format(const char* text, const char*) { return text; }\n}\n",
    },
    "third_party/foxi": {"CMakeLists.txt": "add_library(foxi_loader INTERFACE)\n"},
    "third_party/pocketfft": {"pocketfft_hdronly.h": "#pragma once\n"},
    "third_party/kineto": {
        "libkineto/include/ActivityType.h": "#pragma once\n"
        "namespace libkineto { enum class ActivityType { CPU_OP }; }\n"
    },
}
GENERATED = "torch/csrc/jit/serialization/mobile_bytecode_generated.h"


def git(folder: Path, *arguments: str) -> str:
    who = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "protocol.file.allow=always",
    ]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit(folder: Path, files: dict[str, str]) -> str:
    """Make a repository of ``folder`` with these files beside what lies there."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "all")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature under git, what it needs in submodules, tagged like a release."""
    root = tmp_path_factory.mktemp("git")
    shutil.copytree(TREE, root / "pytorch")
    shutil.rmtree(root / "pytorch/third_party")
    commit(root / "pytorch", {GENERATED: "#pragma once\n"})
    for path, files in SUBMODULES.items():
        home = root / Path(path).name
        home.mkdir()
        commit(home, files)
        git(root / "pytorch", "submodule", "add", "--quiet", str(home), path)
    git(root / "pytorch", "commit", "--quiet", "--message", "submodules")
    git(root / "pytorch", "tag", "v1.13.1")
    return root / "pytorch"


def test_a_tree_from_git_is_built_at_its_commit_with_its_submodules(
    engine: Engine, repository: Path, tmp_path: Path
) -> None:
    head = git(repository, "rev-parse", "HEAD")
    database = load()
    releases = tuple(
        replace(release, commit=head) if release.version == "1.13.1" else release
        for release in database.releases
    )
    unknown = SubmoduleTable(vanished=(), pins=(), source="a test", evidence="measured")
    database = replace(
        database,
        releases=releases,
        repository=replace(database.repository, url=str(repository)),
        submodule_table=msgspec.Raw(msgspec.msgpack.encode(unknown)),
    )
    request = Request(
        card=find_card(database, "gtx780"), torch="1.13.1", route="source", platform="debian-12"
    )
    lock = tmp_path / "envforge.lock"
    wanted = BuildRequest(
        request, until="torch", profile="minimal", torchvision=False, lock=lock, jobs=2
    )
    outcome = build(prepare(database, wanted), wanted, ignore)
    assert outcome.lock.inputs["inputs/source.tar"] == f"git:{head}"
    commits = {row.split()[1]: row.split()[0] for row in outcome.lock.tree}
    assert set(commits) == {".", *SUBMODULES}
    assert commits["."] == head
    assert commits["third_party/fmt"] == git(repository.parent / "fmt", "rev-parse", "HEAD")
    assert next(check.seen for check in outcome.lock.verified if check.name == "wheel") == (
        "sm_35 in all of libtorch_cuda.so"
    )
