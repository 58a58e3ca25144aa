"""The docker client that can build with BuildKit against this engine, and one build with it.

docker-py only speaks to the classic builder, so builds go through a docker client. A 20.10 client
has BuildKit's protocol inside; a newer one needs the buildx plugin, and a distribution may put a
newer client without it first on PATH. Hence every client is asked.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

from envforge.errors import BuildFailed, EngineUnavailable
from envforge.events import OnEvent
from envforge.image.engine.causes import failure
from envforge.image.engine.endpoint import Endpoint, client_version, docker_clients
from envforge.image.engine.progress import Progress
from envforge.sources.child import lines_of, spawn

_VERSION = re.compile(r"version (\d+)\.")
_FIRST_WITHOUT_OWN_BUILDKIT = 23
_TIMEOUT_S = 30
_ENGINE_GONE = re.compile(
    r"code = Unavailable|error reading from server|error reading preface|unexpected EOF"
    r"|Cannot connect to the Docker daemon|error during connect|connection refused"
    r"|server did not provide an image ID"
)
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


class Builder(NamedTuple):
    """A docker client that builds with BuildKit."""

    path: str
    version: str
    buildx: bool


class Build(NamedTuple):
    """What is built: a context folder, and what ``docker build`` takes beside it."""

    context: Path
    tag: str
    dockerfile: str = "Dockerfile"
    target: str | None = None
    build_args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    secrets: Mapping[str, Path] = {}
    """Files for ``RUN --mount=type=secret,id=NAME``: no layer keeps them."""


def find_builder(endpoint: Endpoint) -> Builder:
    """Find the first docker client that can do BuildKit here.

    Raises EngineUnavailable naming every client that was found and why it cannot.
    """
    found = []
    for path in docker_clients():
        version = client_version(path)
        buildx, fault = _judge(path, version, endpoint)
        if not fault:
            return Builder(path, version, buildx)
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


def run_build(
    builder: Builder, endpoint: Endpoint, build: Build, log: Path, on_event: OnEvent
) -> str:
    """Run one build to its end and return the image's id; everything said goes to ``log``.

    Raises BuildFailed with the failing step, the end of its output and the log file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(on_event)
    with tempfile.TemporaryDirectory(prefix="envforge-build-") as scratch:
        id_file = Path(scratch) / "image-id"
        argv = _argv(builder, build, id_file)
        with log.open("a", encoding="utf-8", buffering=1) as record:
            code = _follow(argv, endpoint, progress, record)
        if code != 0 or not id_file.is_file():
            gone = _is_gone(builder, endpoint, progress)
            raise _engine_gone(progress, log) if gone else _failure(progress, code, log)
        return id_file.read_text(encoding="ascii").strip()


def _follow(argv: list[str], endpoint: Endpoint, progress: Progress, record: IO[str]) -> int:
    record.write(f"$ {' '.join(argv)}\n")
    with contextlib.ExitStack() as stack:
        try:
            process = stack.enter_context(spawn(argv, env=client_environment(endpoint)))
        except OSError as error:
            raise EngineUnavailable(f"cannot start {argv[0]}", because=(str(error),)) from error
        for line in lines_of(process):
            record.write(line + "\n")
            progress.read(line)
    return process.returncode


def _argv(builder: Builder, build: Build, id_file: Path) -> list[str]:
    argv = [builder.path, "build", "--progress=plain", f"--iidfile={id_file}", f"--tag={build.tag}"]
    argv += [f"--file={build.context / build.dockerfile}"]
    if builder.buildx:
        argv += ["--load"]
    if build.target is not None:
        argv += [f"--target={build.target}"]
    argv += [f"--build-arg={key}={value}" for key, value in sorted(build.build_args.items())]
    argv += [f"--build-arg={name}" for name in _proxies_set() if name not in build.build_args]
    argv += [f"--label={key}={value}" for key, value in sorted(build.labels.items())]
    argv += [f"--secret=id={key},src={path}" for key, path in sorted(build.secrets.items())]
    return [*argv, str(build.context)]


def _proxies_set() -> list[str]:
    """Return the proxy variables set here: Docker predefines them, no layer keeps their value."""
    names = [name for plain in _PROXIES for name in (plain, plain.upper())]
    return [name for name in names if os.environ.get(name)]


def _is_gone(builder: Builder, endpoint: Endpoint, progress: Progress) -> bool:
    """Tell a failed build from an engine that died under it, even if it is up again by now."""
    if progress.failed is None and _ENGINE_GONE.search("\n".join(progress.end())):
        return True
    answer = _ask([builder.path, "version", "--format", "{{.Server.Version}}"], endpoint)
    return answer is None or answer.returncode != 0


def _engine_gone(progress: Progress, log: Path) -> BuildFailed:
    step = progress.failed or progress.current
    return BuildFailed(
        f"the container engine stopped answering{f' in {step}' if step else ''}",
        because=progress.tail_of(step),
        hint="start the engine again (sudo systemctl start docker) and repeat; "
        f"the whole log: {log}",
    )


def _failure(progress: Progress, code: int, log: Path) -> BuildFailed:
    step = progress.failed or progress.current
    cause, because = progress.cause_of(step)
    where = f"in {step}" if step else f"(exit {code})"
    return failure(cause, where, because, str(log))
