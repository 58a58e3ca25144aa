"""A place to have faults in: a cache and a folder of its own, and an engine on a small disk.

Whatever a fault leaves can be listed there, for nobody else works in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from image_parts import Disk, PrivateEngine, private_engine, small_disk

from envforge.build import BuildRequest, Prepared, prepare
from envforge.capability.load import load
from envforge.events import ignore
from envforge.image.engine import Engine, Launch
from envforge.image.inputs import link
from envforge.resolver import Request
from envforge.sources.fetch import fetch_wheel
from envforge.sources.store import Store, default_root

PLAN = ("--cpu", "--torch", "1.0.1")
"""Three wheels on Debian 11: nothing is compiled."""
DISK_MIB = 8000
CACHE = re.compile(
    r"image envforge/base:"
    r"|cache/envforge/(contexts|logs)/"
    r"|cache/envforge/store/(sha256|locks|partial)/"
    r"|cache/envforge/database-\w+\.msgpack$"
)
"""What may stay after a fault: each of it makes the next build shorter, or tells of this one."""
PLACES = ("cache", "work", "tmp", "state")


class Place(NamedTuple):
    """A cache, a temporary and a working directory that one test's builds have for themselves."""

    root: Path
    host: str
    """Of the engine."""
    plan: tuple[str, ...]
    """What is built unless a test says otherwise."""

    @property
    def store(self) -> Store:
        return Store(self.root / "cache/envforge/store")

    @property
    def folder(self) -> Path:
        return self.root / "work"

    @property
    def lock(self) -> Path:
        return self.folder / "envforge.lock"

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "DOCKER_HOST": self.host,
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "TMPDIR": str(self.root / "tmp"),
            **more,
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "envforge", "build", *(arguments or self.plan)],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self, *arguments: str, **environment: str) -> Ended:
        return ended(self.start(*arguments, **environment))

    def docker(self, *arguments: str) -> list[str]:
        """Ask a docker client of the engine."""
        return subprocess.run(
            ["docker", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()

    def newest_log(self) -> str:
        logs = (self.root / "cache/envforge/logs").glob("build-*.txt")
        return max(logs, key=lambda log: log.stat().st_mtime).read_text()

    def things(self, mark: str = "") -> frozenset[str]:
        """List all there is: containers, images, volumes, files.

        ``mark``: on an engine that others use, too, only images with it in their name, and
        containers of those.
        """
        containers = self.docker("ps", "--all", "--format", "{{.Names}} of {{.Image}}")
        images = self.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
        rows = [f"container {row}" for row in containers if mark in row]
        rows += [f"image {row}" for row in images if mark in row]
        if not mark:
            rows += [f"volume {row}" for row in self.docker("volume", "ls", "--quiet")]
        for place in PLACES:
            found = (self.root / place).rglob("*")
            rows += [str(path.relative_to(self.root)) for path in found if not path.is_dir()]
        return frozenset(rows)


def make_place(root: Path, host: str, plan: tuple[str, ...]) -> Place:
    # mmdebstrap unpacks in TMPDIR as another user.
    root.chmod(0o755)
    for place in PLACES:
        (root / place).mkdir()
    return Place(root, host, plan)


def end_builds() -> None:
    """End what a failed test leaves running, as Ctrl-C does: with all it began."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.cmdline()[1:4] == ["-m", "envforge", "build"]:
                child.send_signal(signal.SIGINT)
                child.wait(60)


class Ended(NamedTuple):
    """How a build ended, and all it said."""

    code: int
    stdout: str
    stderr: str


def ended(process: subprocess.Popen[str], heard: str = "") -> Ended:
    stdout, stderr = process.communicate(timeout=800)
    return Ended(process.returncode, stdout, heard + stderr)


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Read what a build tells until ``text`` is in a line; return it."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(f"never said {text!r}: {said}")


def only_cache(before: frozenset[str], after: frozenset[str]) -> list[str]:
    """List what a fault left; it must be cache, every piece of it."""
    left = sorted(after - before)
    assert [thing for thing in left if not CACHE.match(thing)] == []
    return left


class Bench(NamedTuple):
    """A place with an engine that nobody else uses, on a disk that can be filled."""

    place: Place
    engine: PrivateEngine
    disk: Disk
    prepared: Prepared


@contextlib.contextmanager
def open_bench(engine: Engine, image: str) -> Iterator[Bench]:
    """Open a bench; ``engine`` lends it the network of a container of ``image``."""
    prepared = prepare(load(), BuildRequest(Request(card=None, torch="1.0.1", route="cpu")))
    with contextlib.ExitStack() as stack:
        # A socket's path is short: not below pytest's own folder.
        scratch = tempfile.TemporaryDirectory(prefix="envforge-", ignore_cleanup_errors=True)
        root = Path(stack.enter_context(scratch))
        lender = stack.enter_context(engine.run(Launch(image, ["sleep", "infinity"])))
        disk = stack.enter_context(small_disk(root, DISK_MIB))
        namespace = f"/proc/{lender.pids()[0]}/ns/net"
        private = stack.enter_context(private_engine(root, namespace, disk.root / "data"))
        place = make_place(root, private.host, PLAN)
        for wheel in prepared.plan.wheels:
            stored = fetch_wheel(wheel, Store(default_root()), ignore)
            link(stored, place.store.path_of(wheel.sha256))
        stack.enter_context(private.start())
        stack.callback(end_builds)
        yield Bench(place, private, disk, prepared)
