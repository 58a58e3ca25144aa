"""Which engine: DOCKER_HOST, DOCKER_CONTEXT or the current context, as docker itself chooses."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import docker
import docker.errors
from docker.context import ContextAPI

from envforge.errors import EngineUnavailable
from envforge.image.engine.faults import BROKEN_CONNECTION

DEFAULT_HOST = "unix:///var/run/docker.sock"
WITHOUT = "without an engine: envforge run canary --on local"
_PROBE_TIMEOUT_S = 10


class Endpoint(NamedTuple):
    """An engine's address, and what a docker client needs in its environment to reach it."""

    host: str
    context: str | None
    environment: tuple[tuple[str, str], ...]


def find_endpoint(host: str | None = None) -> Endpoint:
    """Say which engine is meant. Raises EngineUnavailable for a context that is not there."""
    chosen = host or os.environ.get("DOCKER_HOST")
    if chosen:
        return Endpoint(chosen, None, (("DOCKER_HOST", chosen),))
    try:
        context = _read_context(os.environ.get("DOCKER_CONTEXT"))
    except (docker.errors.DockerException, OSError, ValueError) as error:
        raise EngineUnavailable(
            "the current docker context cannot be read", because=(str(error),), hint=_CONTEXT_HINT
        ) from error
    if context is None:
        name = os.environ.get("DOCKER_CONTEXT", "")
        raise EngineUnavailable(f"no docker context is called {name!r}", hint=_CONTEXT_HINT)
    if context.Name == "default":
        return Endpoint(DEFAULT_HOST, None, (("DOCKER_HOST", DEFAULT_HOST),))
    return Endpoint(context.Host, context.Name, (("DOCKER_CONTEXT", context.Name),))


def _read_context(name: str | None) -> Any:
    """Read a docker context, None where it is not there (docker's stubs forget that)."""
    return ContextAPI.get_context(name)


_CONTEXT_HINT = "docker context ls   (then: export DOCKER_CONTEXT=NAME)"


Explain = Callable[[str, BaseException], EngineUnavailable]
"""Address and error -> what was found there and what to type."""


def open_client(endpoint: Endpoint, explain: Explain) -> docker.DockerClient:
    """Open a client whose engine has answered once. Raises what ``explain`` says."""
    client = None
    try:
        _knock(endpoint.host)
        client = _client(endpoint)
        client.ping()
    except BROKEN_CONNECTION as error:
        if client is not None:
            client.close()
        raise explain(endpoint.host, error) from error
    return client


def _knock(host: str) -> None:
    """Connect to a local socket once; docker-py leaks a socket for every refused connection."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(_PROBE_TIMEOUT_S)
            caller.connect(host.removeprefix("unix://"))


def accepts(host: str) -> bool:
    """Tell whether somebody listens on a local socket."""
    try:
        _knock(host)
    except OSError:
        return False
    return True


def _client(endpoint: Endpoint) -> docker.DockerClient:
    if endpoint.context is not None:
        context = _read_context(endpoint.context)
        return docker.DockerClient(base_url=endpoint.host, tls=context.TLSConfig or False)
    # TLS of a remote DOCKER_HOST comes from DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.
    return docker.DockerClient.from_env(environment={**os.environ, "DOCKER_HOST": endpoint.host})


def no_engine(host: str, error: BaseException) -> EngineUnavailable:
    """Say what was found where an engine was expected, and the commands that help."""
    socket_fact, hint = _look_at_socket(host)
    because = [
        *(client_facts() or ("no docker client on PATH",)),
        socket_fact or f"{type(error).__name__}: {error}",
    ]
    return EngineUnavailable(
        f"no container engine answers at {host}",
        because=tuple(because),
        hint=f"{hint}\n{WITHOUT}",
    )


def _look_at_socket(host: str) -> tuple[str, str]:
    """Return what is wrong with a local socket ("" for a remote engine) and what to type."""
    if not host.startswith("unix://"):
        return "", f"docker -H {host} version   (is the engine up, the address right?)"
    path = Path(host.removeprefix("unix://"))
    try:
        found = path.stat()
    except FileNotFoundError:
        return _no_socket(path)
    except OSError as error:
        return f"{path}: {error.strerror}", _ADD_TO_GROUP
    if not stat.S_ISSOCK(found.st_mode):
        return f"{path} is not a socket", "check DOCKER_HOST"
    if os.access(path, os.R_OK | os.W_OK):
        return f"{path} is there but nobody listens: dockerd is not running", _START
    owner = f"{_owner(path)}, this user is uid {os.getuid()}"
    return f"{path}: permission denied (it belongs to {owner})", _ADD_TO_GROUP


def _no_socket(path: Path) -> tuple[str, str]:
    if find_dockerd():
        return f"{path} does not exist: dockerd is installed and not running", _START
    return f"{path} does not exist: no engine is installed or running", _INSTALL


_INSTALL = "add --install-engine (Debian and Ubuntu; as root or with sudo)"
_START = "sudo systemctl start docker, or add --install-engine, which starts it"
_ADD_TO_GROUP = "sudo usermod -aG docker $USER, then log in again (or: newgrp docker)"


def _owner(path: Path) -> str:
    try:
        return f"{path.owner()}:{path.group()}"
    except (KeyError, OSError):
        return "another user"


def find_dockerd() -> str | None:
    """Find the engine's own program, also where a plain user's PATH does not look."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which("dockerd", path=places)


def docker_clients() -> tuple[str, ...]:
    """Return every ``docker`` on PATH and in /usr/bin, in order, each file once."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin"]
    found: dict[Path, str] = {}
    for place in places:
        path = shutil.which("docker", path=place) if place else None
        if path:
            found.setdefault(Path(path).resolve(), path)
    return tuple(found.values())


def client_facts() -> tuple[str, ...]:
    """Return one line for every docker client: its path and version."""
    return tuple(f"{path}: {client_version(path)}" for path in docker_clients())


def client_version(path: str) -> str:
    """Return what ``docker --version`` says, or why it says nothing."""
    try:
        answer = subprocess.run(
            [path, "--version"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run ({error})"
    return answer.stdout.strip() or f"does not run (exit {answer.returncode})"
