"""``--install-engine``: the only way envforge ever installs a system package.

Debian and Ubuntu only, through apt and their own packages; elsewhere the user is told what is
needed. Where systemd does not run (containers, CI) the engine is started as a plain daemon.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from envforge.errors import EngineUnavailable
from envforge.events import Event, OnEvent, ignore
from envforge.image.engine import chosen_kind, connect
from envforge.image.engine.endpoint import DEFAULT_HOST, docker_clients, find_dockerd
from envforge.sources import apt

_ENGINE = ("docker.io", "iptables")
_CLIENTS = ("docker-cli", "docker-buildx")
"""Packages of their own since Debian 13 and Ubuntu 24.04; before, docker.io holds the client."""
_PODMAN = ("podman", "catatonit")
"""podman and its init process, which it only recommends."""
_PODMAN_OF_A_USER = ("uidmap", "slirp4netns", "fuse-overlayfs")
_INIT = Path("/usr/libexec/podman/catatonit")
_KEYRINGS = {"debian": "ubuntu-keyring", "ubuntu": "debian-archive-keyring"}
"""The other distribution's keys; its own are there already."""
_STARTS_WITHIN_S = 60.0
_POLL_S = 0.2
_TAIL_LINES = 15
_GAVE_UP = "failed to start daemon"
_PID_FILE = Path("/var/run/docker.pid")


def install_engine(on_event: OnEvent = ignore, *, kind: str | None = None) -> None:
    """Make sure that an engine answers and mmdebstrap is there; do nothing where both hold.

    ``kind``: as for :func:`connect`. Raises EngineUnavailable: another distribution, no root and no
    sudo, apt failed, or the engine does not start (with the end of its log).
    """
    chosen = chosen_kind(kind)
    answers = _answers(chosen)
    missing = _missing_podman() if chosen == "podman" else _missing_docker(answers=answers)
    missing += _missing_bootstrap()
    if missing:
        _install(tuple(dict.fromkeys(missing)), on_event)
    # Installing may have started it: Debian's packages do, unless a policy forbids. podman needs no
    # daemon: connect starts its service for as long as it is asked.
    if chosen == "docker" and not answers and not _answers(chosen):
        _start(on_event)
    with connect(kind=chosen) as engine:
        # Asked now, so that what cannot build is told before the first build.
        _ = engine.builder
        on_event(Event("done", f"engine {engine.kind} {engine.version} answers"))


def _answers(kind: str) -> bool:
    try:
        connect(kind=kind).close()
    except EngineUnavailable:
        return False
    return True


def _missing_docker(*, answers: bool) -> tuple[str, ...]:
    """Name the packages to install. An engine that is there, of whatever origin, is kept."""
    names: tuple[str, ...] = ()
    if not answers and find_dockerd() is None:
        names += _ENGINE
    if not docker_clients():
        names += _CLIENTS
    return names


def _missing_podman() -> tuple[str, ...]:
    if shutil.which("podman") is None:
        return _PODMAN if os.getuid() == 0 else (*_PODMAN, *_PODMAN_OF_A_USER)
    has_init = _INIT.exists() or shutil.which("catatonit")
    return () if has_init else _PODMAN[1:]


def _missing_bootstrap() -> tuple[str, ...]:
    if shutil.which("mmdebstrap"):
        return ()
    # mmdebstrap as a plain user unshares; newuidmap is in uidmap
    return ("mmdebstrap",) if os.getuid() == 0 else ("mmdebstrap", "uidmap")


def _install(names: Sequence[str], on_event: OnEvent) -> None:
    optional = [_KEYRINGS[distribution()]]
    if _ENGINE[0] in names:
        optional += _CLIENTS  # never beside another vendor's client: their files clash
    become_root = root_prefix()
    on_event(Event("step", "apt-get update"))
    _run_as_root([*become_root, "apt-get", "update"], on_event)
    wanted = [name for name in (*names, *optional) if name in _REQUIRED or _known(name)]
    wanted = list(dict.fromkeys(wanted))
    on_event(Event("step", f"apt-get install {' '.join(wanted)}"))
    _run_as_root(
        [*become_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes",
         "--no-install-recommends", *wanted],
        on_event,
    )  # fmt: skip


_REQUIRED = frozenset({*_ENGINE, *_PODMAN, "mmdebstrap"})


def distribution(root: Path = Path("/")) -> str:
    """Say which of the known distributions this is. Raises EngineUnavailable for any other."""
    release = apt.load_os_release(root)
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    found = next((name for name in names if name in ("debian", "ubuntu")), None)
    if found is None or shutil.which("apt-get") is None:
        raise EngineUnavailable(
            f"--install-engine knows Debian and Ubuntu, not {release.get('PRETTY_NAME', 'this')}",
            because=("needed: Docker 20.10 or podman 4, or newer, and mmdebstrap",),
            hint="install them by this system's own means, start docker, and run it again",
        )
    return found


def root_prefix() -> tuple[str, ...]:
    """Return the words that make a command run as root. EngineUnavailable without any way."""
    if os.getuid() == 0:
        return ()
    if shutil.which("sudo"):
        return ("sudo",) if sys.stdin.isatty() else ("sudo", "--non-interactive")
    raise EngineUnavailable(
        "--install-engine needs root",
        because=(f"this is uid {os.getuid()}, and there is no sudo",),
        hint="run it as root once:  envforge build ... --install-engine",
    )


def _known(package: str) -> bool:
    """Tell whether apt could install it; ``apt-cache show`` also knows names only referred to."""
    answer = subprocess.run(
        ["apt-cache", "policy", package],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    return "Candidate: " in answer.stdout and "Candidate: (none)" not in answer.stdout


def _run_as_root(argv: Sequence[str], on_event: OnEvent) -> None:
    """Run a system command. It stays in this terminal's session: sudo may ask for a password."""
    said: list[str] = []
    with subprocess.Popen(
        list(argv),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            said.append(line.rstrip())
            on_event(Event("log", line.rstrip()))
    if process.returncode != 0:
        raise EngineUnavailable(
            f"{' '.join(argv)} failed (exit {process.returncode})",
            because=tuple(said[-_TAIL_LINES:]),
            hint="run the command by hand to see why; then run envforge again",
        )


def _start(on_event: OnEvent) -> None:
    on_event(Event("step", "starting the engine"))
    if Path("/run/systemd/system").is_dir():
        _run_as_root([*root_prefix(), "systemctl", "start", "docker"], on_event)
        await_answer(None)
        return
    log = platformdirs.user_state_path("envforge", ensure_exists=True) / "dockerd.log"
    start_daemon([], log)
    await_answer(log)


def start_daemon(arguments: Sequence[str], log: Path) -> None:
    """Start dockerd so that it outlives this process; its output replaces ``log``.

    Raises EngineUnavailable where there is no dockerd.
    """
    dockerd = find_dockerd()
    if dockerd is None:
        raise EngineUnavailable(
            "dockerd is not installed", hint="sudo apt-get install docker.io iptables"
        )
    become_root = root_prefix()
    _remove_stale_pid(become_root)
    with log.open("wb") as target:
        # setsid --fork: the daemon is nobody's child and no signal of this terminal reaches it.
        subprocess.run(
            [*become_root, "setsid", "--fork", dockerd, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.STDOUT,
            check=False,
        )


def _remove_stale_pid(become_root: Sequence[str]) -> None:
    """Remove the pid file of a dockerd that was killed: its number may be another process's now."""
    try:
        pid = _PID_FILE.read_text(encoding="ascii").strip()
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        name = ""
    except OSError:
        return
    if name != "dockerd" and _PID_FILE.exists():
        subprocess.run([*become_root, "rm", "-f", str(_PID_FILE)], check=False)


def await_answer(log: Path | None) -> None:
    """Wait until the engine answers.

    Raises EngineUnavailable with the end of ``log`` where it gives up or takes too long.
    """
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        try:
            connect().close()
        except EngineUnavailable as error:
            if any("permission denied" in fact for fact in error.because):
                raise  # it runs; this user may not talk to it, and the error says what to do
            said = _tail(log)
            if time.monotonic() > deadline or any(_GAVE_UP in line for line in said):
                raise _did_not_start(said, log) from error
        else:
            return
        time.sleep(_POLL_S)


def _tail(log: Path | None) -> tuple[str, ...]:
    """Return the end of dockerd's log, less the chatter that buries the one line that counts."""
    if log is None or not log.is_file():
        return ()
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return tuple(line for line in lines if line and "level=info" not in line)[-_TAIL_LINES:]


def _did_not_start(said: tuple[str, ...], log: Path | None) -> EngineUnavailable:
    where = f"the whole log: {log}" if log else "sudo journalctl -u docker --no-pager | tail -40"
    return EngineUnavailable(
        "the container engine was installed and does not start",
        because=said or (f"nothing answers at {os.environ.get('DOCKER_HOST', DEFAULT_HOST)}",),
        hint=f"{where}; without an engine: envforge run canary --on local",
    )
