"""A Python that Debian 12 has not, really built from Debian's own archive of its sources."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import testinfra
from image_parts import Runtime, build_plan

from envforge.image.engine import Engine, Launch
from envforge.image.lock import Lock, load_lock
from envforge.sources.store import hash_file

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PLAN = ["--gpu", "gtx780", "--torch", "1.13.1", "--route", "source", "--platform", "debian-12"]
PLAN += ["--python", "3.9"]
PYTHON = "/opt/python/bin/python3.9"
WHEEL = "torch-1.13.1-cp39-cp39-linux_x86_64.whl"


@pytest.fixture
def built(engine: Engine, tmp_path: Path) -> Iterator[Callable[..., Lock]]:
    """What builds in the test's folder and returns the lock; its image goes with the test."""
    locks: list[Lock] = []

    def build(*arguments: str) -> Lock:
        answer = build_plan(tmp_path, PLAN, *arguments)
        assert answer.returncode == 0, answer.stderr
        locks.append(load_lock(tmp_path / "envforge.lock"))
        return locks[-1]

    yield build
    for lock in locks:
        engine.remove(lock.image)


def test_the_toolchain_has_the_python_that_was_asked_for(
    engine: Engine, built: Callable[..., Lock]
) -> None:
    lock = built("--until", "toolchain")
    seen = {check.name: check.seen for check in lock.verified}
    assert seen["python"] == f"{PYTHON} 3.9.2"
    assert lock.python == PYTHON
    assert lock.resolution.python_origin == "source"
    with engine.run(Launch(lock.image, ["sleep", "infinity"], network="none")) as container:
        host = testinfra.get_host(f"docker://{container.id}")
        found = host.check_output(
            f"{PYTHON} -c 'import bz2, ctypes, lzma, readline, sqlite3, ssl, sysconfig, zlib;"
            ' print(sysconfig.get_config_var("SOABI"))\''
        )
        assert found == "cpython-39-x86_64-linux-gnu"


def test_what_is_built_is_for_that_python_and_the_runtime_brings_it(
    runtime: Runtime, built: Callable[..., Lock], tmp_path: Path
) -> None:
    tree = shutil.copytree(Path(__file__).parent / "tree", tmp_path / "tree")
    wanted = ["--source", str(tree), "--until", "torch", "--wheel", "out", "-o", "context"]
    lock = built(*wanted)
    assert lock.wheels == {WHEEL: hash_file(tmp_path / "out" / WHEEL)}
    with runtime(tmp_path / "context") as host:
        found = host.check_output(
            f"{PYTHON} -c 'import ctypes, numpy, sqlite3, ssl, torch._C;"
            " print(numpy.__version__, numpy.__file__)'"
        )
        assert found == f"1.24.1 {site('numpy/__init__.py')}"
        assert host.package("libssl3").is_installed
        assert not host.exists("python3")
        assert not host.file("/usr/local/lib/libpython3.9.so.1.0").exists


def site(name: str) -> str:
    return f"/opt/python/lib/python3.9/site-packages/{name}"
