"""podman: where its service listens, a service of our own where none does, its own way to create.

Images and containers go through podman's API socket as with docker; what only podman's own part of
that API can do (a card by CDI, its own user namespaces) is asked there.
https://docs.podman.io/en/v4.3/_static/api.html
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from envforge.errors import EngineUnavailable
from envforge.image.engine.endpoint import WITHOUT, Endpoint, accepts
from envforge.image.engine.launch import LABEL, Launch

EVERY_CARD = "nvidia.com/gpu=all"
"""The name under which nvidia-ctk describes all cards (Container Device Interface)."""
PID_COLUMN = "hpid"
"""podman's own name of a process's number on the host; other words need a ``ps`` in the image."""
_LIBPOD = "/v4.0.0/libpod"
_STARTS_WITHIN_S = 20.0
_POLL_S = 0.05
_IDLE_S = 3600
"""A service of ours that nobody could end (kill -9) ends by itself."""


@contextlib.contextmanager
def podman_endpoint(host: str | None = None) -> Iterator[Endpoint]:
    """Find podman's service, or start one for the time of the block.

    ``host``, CONTAINER_HOST, then the user's own socket (root: the machine's). Raises
    EngineUnavailable saying what was found and what to type.
    """
    stated = host or os.environ.get("CONTAINER_HOST")
    if stated:
        yield _endpoint(_refuse_ssh(stated))
        return
    for path in socket_paths():
        if accepts(f"unix://{path}"):
            yield _endpoint(f"unix://{path}")
            return
    with _service() as address:
        yield _endpoint(address)


def _endpoint(host: str) -> Endpoint:
    return Endpoint(host, None, (("CONTAINER_HOST", host),))


def socket_paths() -> tuple[Path, ...]:
    """Name the sockets that systemd gives podman: the user's own, root's on the machine."""
    if os.getuid() == 0:
        return (Path("/run/podman/podman.sock"),)
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return (Path(runtime) / "podman/podman.sock",)


def start_command() -> str:
    """Return what starts podman's service here."""
    if os.getuid() == 0:
        return "systemctl enable --now podman.socket"
    return "systemctl --user enable --now podman.socket"


def _refuse_ssh(host: str) -> str:
    if not host.startswith("ssh://"):
        return host
    user_at, _, path = host.removeprefix("ssh://").partition("/")
    raise EngineUnavailable(
        f"podman over SSH is not spoken: {host}",
        because=("envforge talks to a socket of this machine or to tcp://",),
        hint=f"forward it: ssh -nNT -L /tmp/podman.sock:/{path} ssh://{user_at}\n"
        "then: export CONTAINER_HOST=unix:///tmp/podman.sock",
    )


def no_podman(host: str, error: BaseException) -> EngineUnavailable:
    """Say what was found where podman's service was expected, and the commands that help."""
    program = shutil.which("podman")
    because = [f"{program} is installed" if program else "no podman on PATH"]
    path = Path(host.removeprefix("unix://"))
    if not host.startswith("unix://"):
        because.append(f"{type(error).__name__}: {error}")
        hint = f"podman --url {host} version   (is the service up, the address right?)"
    elif not path.exists():
        because.append(f"{path} does not exist: no service is running")
        hint = f"{start_command()}   (or: podman system service --time=0 {host})"
    elif os.access(path, os.R_OK | os.W_OK):
        because.append(f"{path} is there but nobody listens")
        hint = f"{start_command()}   (or: podman system service --time=0 {host})"
    else:
        because.append(f"{path}: permission denied")
        hint = f"a user's own podman needs no rights: unset CONTAINER_HOST; {start_command()}"
    return EngineUnavailable(
        f"no podman answers at {host}", because=tuple(because), hint=f"{hint}\n{WITHOUT}"
    )


@contextlib.contextmanager
def _service() -> Iterator[str]:
    """Run ``podman system service`` on a socket of its own; it is ended with the block.

    Containers do not need it to go on, only to be asked for.
    """
    podman = shutil.which("podman")
    if podman is None:
        raise EngineUnavailable(
            "no podman answers here",
            because=(
                *(f"{path}: nobody listens" for path in socket_paths()),
                "no podman on PATH",
            ),
            hint=f"sudo apt-get install podman   (then: {start_command()})\n"
            f"elsewhere: export CONTAINER_HOST=unix://SOCKET\n{WITHOUT}",
        )
    with tempfile.TemporaryDirectory(prefix="envforge-podman-") as folder:
        address = f"unix://{folder}/podman.sock"
        log = Path(folder) / "log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [podman, "system", "service", f"--time={_IDLE_S}", address],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=folder,  # conmon, its child, leaves a file `oom` where it was started
                start_new_session=True,  # Ctrl-C is ours to answer: it is asked afterwards, too
            )
        try:
            _await(process, address, log)
            yield address
        finally:
            process.terminate()
            process.wait()


def _await(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while not accepts(address):
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise EngineUnavailable(
                "podman is installed and its service does not start",
                because=tuple(said[-5:]) or ("it says nothing",),
                hint=f"podman info   (what is wrong with it?); or: {start_command()}",
            )
        time.sleep(_POLL_S)


def is_podman(version: dict[str, Any]) -> bool:
    """Tell from ``/version`` whether podman answers, also behind a DOCKER_HOST."""
    return any("Podman" in str(part.get("Name")) for part in version.get("Components") or ())


def is_rootless(described: dict[str, Any]) -> bool:
    """Tell from ``/info`` whether it runs as a plain user."""
    return any("rootless" in str(option) for option in described.get("SecurityOptions") or ())


def create(client: docker.DockerClient, launch: Launch, name: str, *, rootless: bool) -> str:
    """Create a container and return its id. Raises docker.errors.APIError in podman's words."""
    api: Any = client.api
    answer: requests.Response = api.post(
        f"{api.base_url}{_LIBPOD}/containers/create",
        json=_specification(launch, name, rootless=rootless),
        timeout=api.timeout,
    )
    if not answer.ok:
        raise docker.errors.APIError(answer.reason, response=answer, explanation=_cause(answer))
    return str(answer.json()["Id"])


def _cause(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError):
        return answer.text


def _specification(launch: Launch, name: str, *, rootless: bool) -> dict[str, Any]:
    specification: dict[str, Any] = {
        "image": launch.image,
        "name": name,
        "command": list(launch.argv),
        "user": launch.user or f"{os.getuid()}:{os.getgid()}",
        "mounts": [
            {
                "type": "bind",
                "source": str(mount.source),
                "destination": mount.target,
                "options": ["rbind", "ro" if mount.read_only else "rw"],
            }
            for mount in launch.mounts
        ],
        "env": dict(launch.env),
        "httpproxy": False,  # the service's own proxies are no business of a container
        "shm_size": launch.shm_size_mib << 20,
        "init": launch.init,
        "labels": {**launch.labels, **LABEL},
        "work_dir": launch.workdir or "",
    }
    if launch.memory_mib is not None:
        limit = launch.memory_mib << 20
        specification["resource_limits"] = {"memory": {"limit": limit, "swap": limit}}
    if launch.network is not None:
        specification["netns"] = {"nsmode": launch.network}
    if launch.gpus:
        specification["devices"] = [{"path": EVERY_CARD}]
    if rootless:
        # The caller keeps his number inside, or he could not write to what is mounted.
        specification["userns"] = {"nsmode": "keep-id"}
    return specification


def explain_refusal(said: str) -> EngineUnavailable | None:
    """Word the refusals that an installation cures; None for any other."""
    if "container-init binary not found" in said or "catatonit" in said:
        return EngineUnavailable(
            "podman cannot start a container with an init process",
            because=(said,),
            hint="sudo apt-get install catatonit",
        )
    if "CDI device" in said:
        return EngineUnavailable(
            "the engine cannot give a container a GPU",
            because=(said,),
            hint="install the NVIDIA driver and nvidia-container-toolkit, then: "
            "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        )
    return None
