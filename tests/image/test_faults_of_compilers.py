"""Faults of a build from source, each staged for real on the tree in miniature.

The table of all faults, with the tests of those that are staged elsewhere: docs/faults.md.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fault_parts import Ended, Place, end_builds, make_place, only_cache
from image_parts import processes_with

from envforge.image.engine import Engine
from envforge.image.lock import load_lock

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TREE = Path(__file__).parent / "tree"
PLAN = ("--gpu", "gtx780", "--torch", "1.13.1", "--route", "source", "--platform", "debian-12")
PLAN += ("--profile", "system-libs", "--ptx", "--no-torchvision", "--until", "torch")
HELD_MIB = 300

COMPILER = f"""\
#!/usr/bin/python3
# A cc1plus with more to do: it holds {HELD_MIB} MiB for a while, then it is the real one.
import os
import subprocess
import sys
import time

if "-E" not in sys.argv:
    held = b"x" * ({HELD_MIB} << 20)
    time.sleep(4)
real = subprocess.check_output([os.environ["CXX"], "-print-prog-name=cc1plus"]).decode().strip()
os.execv(real, [real] + sys.argv[1:])
"""
WAITING = """
def wait_for_the_limit():
    subprocess.check_call(["sh", "-c", "until grep -q {group} /proc/$PPID/cgroup; do sleep 0.2; done"])


"""
TWO_FILES = """
add_library(heavy SHARED heavy1.cpp heavy2.cpp)
target_compile_options(heavy PRIVATE -B${PROJECT_SOURCE_DIR}/compiler/)
install(TARGETS heavy LIBRARY DESTINATION lib)
"""


class MemoryGroup:
    """A control group: what is in it has so much memory together, and above it the kernel kills."""

    def __init__(self) -> None:
        self.name = f"envforge-test-{uuid.uuid4().hex}"
        root, self._limit = Path("/sys/fs/cgroup"), "memory.max"
        if not (root / "cgroup.controllers").exists():
            root, self._limit = root / "memory", "memory.limit_in_bytes"
        self.path = root / self.name
        self.path.mkdir()

    def limit(self, mebibytes: int) -> None:
        (self.path / self._limit).write_text(str(mebibytes << 20))

    def take(self) -> None:
        """Take in every process whose child waits for that, with all it will start."""
        for pid in processes_with(f"until grep -q {self.name}"):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                (self.path / "cgroup.procs").write_text(str(psutil.Process(pid).ppid()))


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    made = MemoryGroup()
    yield made
    deadline = time.monotonic() + 30
    while (made.path / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    made.path.rmdir()


@pytest.fixture
def place(engine: Engine) -> Iterator[Place]:
    """A cache and a folder of our own; the engine is the one that others use."""
    with tempfile.TemporaryDirectory(prefix="envforge-", ignore_cleanup_errors=True) as folder:
        yield make_place(Path(folder), engine.endpoint.host, PLAN)
        end_builds()


@pytest.fixture
def tree(place: Place) -> Path:
    return shutil.copytree(TREE, place.root / "tree")


@pytest.fixture
def hungry(tree: Path, group: MemoryGroup) -> Path:
    """The tree with two files whose compilers take much, and a build that waits for its group."""
    compiler = tree / "compiler/cc1plus"
    compiler.parent.mkdir()
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    for name in ("heavy1", "heavy2"):
        (tree / f"{name}.cpp").write_text(f"int {name}_{uuid.uuid4().hex};\n")
    with (tree / "CMakeLists.txt").open("a") as stream:
        stream.write(TWO_FILES)
    setup = tree / "setup.py"
    text = setup.read_text().replace("\ncompile_all()\n", "\nwait_for_the_limit()\ncompile_all()\n")
    waiting = WAITING.format(group=group.name)
    setup.write_text(text.replace("def configure():", waiting + "def configure():", 1))
    assert "\nwait_for_the_limit()\ncompile_all()\n" in setup.read_text()
    return tree


def build_within(group: MemoryGroup, place: Place, tree: Path, jobs: int) -> Ended:
    process = place.start(*PLAN, "--source", str(tree), "--jobs", str(jobs))
    while True:
        try:
            stdout, stderr = process.communicate(timeout=0.5)
        except subprocess.TimeoutExpired:
            group.take()
        else:
            return Ended(process.returncode, stdout, stderr)


def plan_of(answer: Ended) -> str:
    """Return the digest that images of the plan have in their names."""
    return answer.stderr.split("  plan      ", 1)[1].split("\n", 1)[0]


def forget(place: Place, answer: Ended) -> None:
    """Leave no image behind that calls a miniature torch."""
    for thing in place.things(plan_of(answer)):
        if thing.startswith("image "):
            place.docker("rmi", thing.removeprefix("image "))


def test_compilers_that_met_the_memorys_end_go_on_half_as_many(
    place: Place, hungry: Path, group: MemoryGroup
) -> None:
    group.limit(int(1.6 * HELD_MIB))
    answer = build_within(group, place, hungry, jobs=2)
    try:
        assert answer.code == 0, answer.stderr
        said = "!! the memory ended under 2 compilers at once: going on with 1\n"
        assert said in answer.stderr
        log = place.newest_log()
        assert "fatal error: Killed signal terminated program cc1plus" in log
        assert log.count("--build-arg=MAX_JOBS=2 ") == 1
        assert load_lock(place.lock).wheels
    finally:
        forget(place, answer)


def test_one_compiler_that_met_the_memorys_end_is_exit_7_and_goes_on_with_more(
    place: Place, hungry: Path, group: MemoryGroup
) -> None:
    group.limit(int(0.6 * HELD_MIB))
    answer = build_within(group, place, hungry, jobs=1)
    try:
        assert answer.code == 7, answer.stderr
        assert (
            "error: out-of-memory: the memory of the engine's machine ended: the build failed in "
            "step torch " in answer.stderr
        )
        assert "fatal error: Killed signal terminated program cc1plus" in answer.stderr
        assert "hint: give the engine's machine more memory, or swap; then run" in answer.stderr
        only_cache(frozenset(), place.things(plan_of(answer)))
        group.limit(4 * HELD_MIB)
        again = build_within(group, place, hungry, jobs=1)
        assert again.code == 0, again.stderr
    finally:
        forget(place, answer)


def test_a_patch_that_does_not_fit_the_tree_is_exit_5_and_the_right_tree_is_enough(
    place: Place, tree: Path
) -> None:
    patched = tree / "torch/csrc/profiler/kineto_shim.h"
    right = patched.read_text()
    patched.write_text("#pragma once\n")
    answer = place.build(*PLAN, "--source", str(tree))
    assert answer.code == 5, answer.stderr
    assert "error: patch-does-not-fit: a patch does not fit the source tree" in answer.stderr
    assert "  profiler-without-kineto: torch/csrc/profiler/kineto_shim.h: " in answer.stderr
    only_cache(frozenset(), place.things(plan_of(answer)))
    patched.write_text(right)
    again = place.build(*PLAN, "--source", str(tree))
    try:
        assert again.code == 0, again.stderr
    finally:
        forget(place, again)
