"""A system small enough to be built in a moment: a shell and a few programs of this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from testinfra.host import Host

from envforge.capability.models import Platform
from envforge.errors import EngineUnavailable
from envforge.events import Event
from envforge.image.engine import Build, Engine, Launch, connect
from envforge.image.engine.endpoint import find_dockerd
from envforge.image.inside import host_in
from envforge.sources.archive import find_archive
from envforge.sources.download import session

PROGRAMS = ("sh", "sleep", "cat", "id", "head", "tail", "ln", "mkdir", "env", "pwd", "df")
TINY = "envforge-test/tiny"
DOCKERFILE = """\
FROM scratch AS tiny
COPY root /
ENV PATH=/bin
"""


def make_context(folder: Path, more: str = "") -> Path:
    """Write a build context: the programs with their libraries, and a Dockerfile with ``more``."""
    root = folder / "root"
    for program in PROGRAMS:
        path = shutil.which(program)
        assert path, f"{program} is missing on this machine"
        copy_into(Path(path), root / "bin" / program)
        found = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", found):
            copy_into(Path(library), root / library.lstrip("/"))
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (folder / "Dockerfile").write_text(DOCKERFILE + more)
    return folder


def copy_into(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source.resolve(), target)


def shell(image: str, script: str, **more: object) -> Launch:
    return Launch(image, ["sh", "-c", script])._replace(**more)  # type: ignore[arg-type]


def build_plan(
    folder: Path, plan: Sequence[str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """``envforge build`` of a plan in ``folder``, with as many jobs as CI has cores."""
    return subprocess.run(
        [sys.executable, "-m", "envforge", "build", *plan, *arguments],
        cwd=folder,
        env={**os.environ, "MAX_JOBS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )


Runtime = Callable[[Path], contextlib.AbstractContextManager[Host]]
"""What builds the runtime stage of a context, and is in a container of it for a while."""


@contextlib.contextmanager
def runtime(engine: Engine, context: Path, log: Path) -> Iterator[Host]:
    """Build a context's last stage and be in a container of it, as its user; both go again."""
    arguments = {"MAX_JOBS": "2"}
    build = Build(context, "envforge-test/runtime", target="runtime", build_args=arguments)
    engine.build(build, log=log)
    try:
        with engine.run(Launch(build.tag, ["sleep", "infinity"], user="1000:1000")) as container:
            yield host_in(container)
    finally:
        engine.remove(build.tag)


def processes_with(mark: str) -> list[int]:
    """Processes of this machine, containers included, whose command line holds ``mark``."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if mark in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid()
    ]


def wait_until(holds: Callable[[], bool], within_s: float = 30.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Heard:
    """An ``on_event`` that remembers, and acts once when a line of output contains ``at``."""

    def __init__(self, at: str = "", action: Callable[[], object] | None = None) -> None:
        self.events: list[Event] = []
        self._at, self._action = at, action

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self._action is not None and event.kind == "log" and self._at in event.text:
            action, self._action = self._action, None
            action()

    def texts(self, kind: str) -> list[str]:
        return [event.text for event in self.events if event.kind == kind]


WRAPPER = """\
#!/bin/sh
exec {network} unshare --mount --pid --fork --kill-child --mount-proc \
  {dockerd} {networking} \
  --data-root={data} --exec-root={folder}/exec --pidfile={folder}/pid \
  --containerd-namespace=envforge-test --containerd-plugins-namespace=envforge-test-plugins \
  --host=unix://{folder}/docker.sock "$@"
"""
CUT_OFF = ("unshare --net --", "--iptables=false --ip-masq=false")
"""A network that has nothing in it."""


class PrivateEngine:
    """A dockerd of our own, to be killed: its own network, processes and mounts.

    In the machine's own network it would meddle with the first engine's docker0; and with a
    process namespace one SIGKILL takes containerd and every container along. Its builds reach
    no network, unless it is put into a network namespace that does (``namespace``).
    """

    def __init__(self, folder: Path, namespace: str = "", data: Path | None = None) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self.wrapper = folder / "bin" / "dockerd"
        self.data = data or folder / "data"
        # Beside the first engine's 172.17.0.0/16, which it reaches the network through.
        joined = (f"nsenter --net={namespace}", "--bip=10.249.0.1/24")
        self._network, self._networking = joined if namespace else CUT_OFF
        self._process: subprocess.Popen[bytes] | None = None

    def write_wrapper(self) -> None:
        dockerd = find_dockerd()
        assert dockerd
        self.wrapper.parent.mkdir(exist_ok=True)
        self.wrapper.write_text(
            WRAPPER.format(
                dockerd=dockerd,
                folder=self.folder,
                data=self.data,
                network=self._network,
                networking=self._networking,
            )
        )
        self.wrapper.chmod(0o755)

    def start(self, arguments: Sequence[str] = ()) -> Engine:
        self.write_wrapper()
        self._log.unlink(missing_ok=True)
        engine: list[Engine] = []

        def answers() -> bool:
            if self._process is None or self._process.poll() is not None:
                # As systemd would: dockerd gives up when its containerd takes over 15 seconds.
                self._process = self._launch(arguments)
            with contextlib.suppress(EngineUnavailable):
                engine.append(connect(host=self.host))
            return bool(engine)

        assert wait_until(answers, 90), self._log.read_text()[-2000:]
        return engine[0]

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _launch(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        # In its own namespace every dockerd has number 1: a killed one's file would name this one.
        (self.folder / "pid").unlink(missing_ok=True)
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [str(self.wrapper), *arguments], stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """A process of its network."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: what the out-of-memory killer or a power cut does to an engine."""
        if self._process is not None:
            for child in psutil.Process(self._process.pid).children():
                child.kill()
            self._process.wait()
            self._process = None

    def end_detached(self) -> None:
        """End a daemon that somebody else started through the wrapper."""
        for pid in processes_with(f"--pidfile={self.folder}/pid"):
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()

    def is_listening(self) -> bool:
        with socket.socket(socket.AF_UNIX) as caller:
            return caller.connect_ex(f"{self.folder}/docker.sock") == 0


@contextlib.contextmanager
def private_engine(
    folder: Path, namespace: str = "", data: Path | None = None
) -> Iterator[PrivateEngine]:
    engine = PrivateEngine(folder, namespace, data)
    try:
        yield engine
    finally:
        engine.kill()
        shutil.rmtree(engine.data, ignore_errors=True)


WRITTEN_BYTES = 8 << 20
"""What is written after the allocation, whose own tables take some of the free blocks."""


class Disk(NamedTuple):
    """A file system in a file, small enough to be filled."""

    root: Path

    @property
    def _ballast(self) -> Path:
        return self.root / "ballast"

    def fill(self, leave_mib: int) -> None:
        """Take everything but ``leave_mib``, to the last block where that is 0.

        What is allocated takes no room of the disk below; what is written does.
        """
        left = leave_mib << 20 or WRITTEN_BYTES
        with self._ballast.open("wb", buffering=0) as stream:
            os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(self.root).free - left)
            if not leave_mib:
                stream.seek(0, os.SEEK_END)
                with contextlib.suppress(OSError):
                    while stream.write(bytes(4096)):
                        pass

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[Disk]:
    image, root = folder / "disk.img", folder / "disk"
    root.mkdir()
    with image.open("wb") as stream:
        stream.truncate(size_mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, root], check=True)
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", root], check=True)
        image.unlink()


class ArchiveSite:
    """An archive on 127.0.0.1 that has a real suite's signed Release file and nothing else."""

    def __init__(self, root: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}/debian"
        self._root = root

    def copy_release(self, platform: Platform, *, change: bool = False) -> str:
        """Copy the suite's InRelease from where this host finds it; ``change`` one word of it."""
        address = find_archive(platform).address
        with session() as opened:
            data = opened.get(f"{address}/dists/{platform.suite}/InRelease", timeout=60).content
        path = self._root / "debian/dists" / platform.suite / "InRelease"
        path.parent.mkdir(parents=True)
        path.write_bytes(data.replace(b"Origin: Debian", b"Origin: Nobody") if change else data)
        return self.address


@contextlib.contextmanager
def archive_site(root: Path) -> Iterator[ArchiveSite]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield ArchiveSite(root, server.server_port)
        finally:
            server.shutdown()
            thread.join()


PODMAN_CONF = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "{runtime}"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/tmp"
"""
STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{folder}/root"
runroot = "{folder}/run"
"""


@contextlib.contextmanager
def own_podman(folder: Path) -> Iterator[None]:
    """Point podman at a storage of its own, on a machine without systemd and with low limits."""
    runtime = "crun" if shutil.which("crun") else "runc"
    (folder / "containers.conf").write_text(PODMAN_CONF.format(folder=folder, runtime=runtime))
    (folder / "storage.conf").write_text(STORAGE_CONF.format(folder=folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
        patch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
        patch.setenv("BUILDAH_RUNTIME", runtime)
        patch.delenv("CONTAINER_HOST", raising=False)
        try:
            yield
        finally:
            # Mounts that a working container left would keep the folder.
            subprocess.run(["podman", "rm", "--all", "--force"], check=False, capture_output=True)
            subprocess.run(["podman", "rmi", "--all", "--force"], check=False, capture_output=True)
