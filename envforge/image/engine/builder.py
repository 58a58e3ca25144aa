"""The docker client that can build with BuildKit against this engine, and one build with it.

docker-py only speaks to the classic builder, so builds go through a docker client. A 20.10 client
has BuildKit's protocol inside; a newer one needs the buildx plugin, and a distribution may put a
newer client without it first on PATH. Hence every client is asked.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from envforge.errors import EngineUnavailable
from envforge.events import OnEvent
from envforge.image.engine.build import Build, arguments
from envforge.image.engine.endpoint import Endpoint, client_version, docker_clients
from envforge.image.engine.progress import Progress

_VERSION = re.compile(r"version (\d+)\.")
_FIRST_WITHOUT_OWN_BUILDKIT = 23
_TIMEOUT_S = 30
_ENGINE_GONE = re.compile(
    r"code = Unavailable|error reading from server|error reading preface|unexpected EOF"
    r"|Cannot connect to the Docker daemon|error during connect|connection refused"
    r"|server did not provide an image ID"
)


class BuildKit(NamedTuple):
    """A docker client that builds with BuildKit."""

    path: str
    version: str
    buildx: bool
    endpoint: Endpoint
    start_hint: str = "sudo systemctl start docker"

    def argv(self, build: Build, dockerfile: Path, id_file: Path) -> list[str]:
        """Return the command that builds."""
        load = ["--load"] if self.buildx else []
        shared = arguments(build, dockerfile, id_file)
        return [self.path, "build", "--progress=plain", *load, *shared]

    def environment(self) -> dict[str, str]:
        """Return the environment of the command."""
        return client_environment(self.endpoint)

    def adapt(self, dockerfile: str, context: Path) -> str:  # noqa: ARG002 -- BuildKit needs nothing
        """Return it as it is."""
        return dockerfile

    def progress(self, build: Build, on_event: OnEvent) -> Progress:  # noqa: ARG002
        """Return a reader of BuildKit's plain progress."""
        return Progress(on_event)

    def end_steps(self, pid: int) -> None:
        """Leave it to the engine: it ends what runs when its client has gone."""

    def is_gone(self, progress: Progress) -> bool:
        """Tell a failed build from an engine that died under it."""
        if progress.failed is None and _ENGINE_GONE.search("\n".join(progress.end())):
            return True
        answer = _ask([self.path, "version", "--format", "{{.Server.Version}}"], self.endpoint)
        return answer is None or answer.returncode != 0


def find_builder(endpoint: Endpoint) -> BuildKit:
    """Find the first docker client that can do BuildKit here.

    Raises EngineUnavailable naming every client that was found and why it cannot.
    """
    found = []
    for path in docker_clients():
        version = client_version(path)
        buildx, fault = _judge(path, version, endpoint)
        if not fault:
            return BuildKit(path, version, buildx, endpoint)
        found.append(f"{path}: {version}: {fault}")
    raise EngineUnavailable(
        "no docker client here can build with BuildKit",
        because=tuple(found) or ("no docker client on PATH",),
        hint="sudo apt-get install docker-buildx   (Debian 12 and older: docker.io; "
        "or add --install-engine)",
    )


def _judge(path: str, version: str, endpoint: Endpoint) -> tuple[bool, str]:
    """Tell whether this client needs (and has) buildx, and what is wrong with it."""
    match = _VERSION.search(version)
    if not match:
        return False, "not a docker client"
    reached = _ask([path, "version", "--format", "{{.Server.Version}}"], endpoint)
    if reached is None or reached.returncode != 0:
        return False, f"cannot talk to the engine: {_last_line(reached)}"
    if int(match[1]) < _FIRST_WITHOUT_OWN_BUILDKIT:
        return False, ""
    plugin = _ask([path, "buildx", "version"], endpoint)
    if plugin is None or plugin.returncode != 0:
        return True, "has no buildx plugin"
    return True, ""


def _ask(argv: list[str], endpoint: Endpoint) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
            env=client_environment(endpoint),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _last_line(answer: subprocess.CompletedProcess[str] | None) -> str:
    lines = answer.stderr.strip().splitlines() if answer else []
    return lines[-1] if lines else "no answer"


def client_environment(endpoint: Endpoint) -> dict[str, str]:
    """Return this process's environment, pointed at the engine and at its own builder."""
    pointing = {"DOCKER_HOST", "DOCKER_CONTEXT", "BUILDX_BUILDER", "BUILDKIT_PROGRESS"}
    kept = {key: value for key, value in os.environ.items() if key not in pointing}
    return {
        **kept,
        **dict(endpoint.environment),
        "DOCKER_BUILDKIT": "1",
        # A docker-container builder, if the user made one his default, would keep the image.
        "BUILDX_BUILDER": endpoint.context or "default",
        # An attestation would make of the image an index whose id is another every time.
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        "DOCKER_CLI_HINTS": "false",
    }
