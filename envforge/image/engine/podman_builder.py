"""Building with podman: the same Dockerfile and words, other progress, another cache, no clean end.

Where this machine's podman has the service's own storage it builds itself; any other service is
sent the context. A podman that is ended leaves the step it was at running, and two containers of
the builder's: hence the step is ended first, and podman then tidies up.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import docker
import psutil
import requests

from envforge.errors import EngineUnavailable
from envforge.events import Event, OnEvent
from envforge.image.engine.build import Build, arguments
from envforge.image.engine.dockerfile import with_input_digests
from envforge.image.engine.endpoint import Endpoint
from envforge.image.engine.podman import start_command
from envforge.image.engine.progress import Progress, Step

_TIMEOUT_S = 30
_TIDIES_WITHIN_S = 10
_STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP (\d+)/(\d+): (.*)\Z")
_STAGE = re.compile(r"FROM \S+ AS (\S+)\Z", re.IGNORECASE)
_CACHED = re.compile(r"--> Using cache [0-9a-f]{64}\Z")
_LAYER = re.compile(r"(.*?)--> [0-9a-f]{8,64}\Z")
_OWN_WORDS = re.compile(r"Successfully tagged |[0-9a-f]{64}\Z")
_SHOWN_LINES = 15
_FAILED = re.compile(r"Error: ")
_GONE = re.compile(r"[Cc]onnect to Podman|connection refused|unexpected EOF|error reading trailer")


class Podman(NamedTuple):
    """A podman that builds, here or by the service it talks to."""

    path: str
    version: str
    endpoint: Endpoint
    local: bool
    """It has the service's storage: no context is sent, and an interrupted build can be ended."""

    @property
    def start_hint(self) -> str:
        """What starts the engine again."""
        return start_command()

    def argv(self, build: Build, dockerfile: Path, id_file: Path) -> list[str]:
        """Return the command that builds."""
        where = [] if self.local else ["--url", self.endpoint.host]
        return [self.path, *where, "build", *arguments(build, dockerfile, id_file)]

    def environment(self) -> dict[str, str]:
        """Return this process's environment, without what would point podman elsewhere."""
        return _environment()

    def adapt(self, dockerfile: str, context: Path) -> str:
        """Make the cache see the files that a step mounts."""
        return with_input_digests(dockerfile, context)

    def progress(self, build: Build, on_event: OnEvent) -> Progress:
        """Return a reader of podman's progress."""
        return PodmanProgress(build.tag, on_event)

    def end_steps(self, pid: int) -> None:
        """Kill the running step; podman fails at it and removes its working containers."""
        with contextlib.suppress(psutil.Error):
            podman = psutil.Process(pid)
            group = os.getpgid(pid)
            for child in podman.children(recursive=True):
                with contextlib.suppress(psutil.Error, ProcessLookupError):
                    if os.getpgid(child.pid) != group:  # the step is in a session of its own
                        child.kill()
            podman.wait(_TIDIES_WITHIN_S)

    def is_gone(self, progress: Progress) -> bool:
        """Tell a failed build from a service that went away."""
        return not self.local and bool(_GONE.search("\n".join(progress.end())))


def find_podman(endpoint: Endpoint, client: docker.DockerClient) -> Podman:
    """Find the podman that builds for a service. Raises EngineUnavailable where there is none."""
    path = shutil.which("podman")
    if path is None:
        raise EngineUnavailable(
            f"podman answers at {endpoint.host}, and no podman here can build with it",
            because=("no podman on PATH",),
            hint="sudo apt-get install podman",
        )
    described = _described([path, "info", "--format", "json"])
    if described is None:
        raise EngineUnavailable(
            f"{path} does not say what it is", hint="podman info   (what is wrong with it?)"
        )
    local = endpoint.host.startswith("unix://") and _store(described) == _store(_info(client))
    return Podman(path, str(described["version"]["Version"]), endpoint, local)


def _info(client: docker.DockerClient) -> dict[str, Any]:
    api: Any = client.api
    with contextlib.suppress(requests.RequestException, ValueError):
        found = api.get(f"{api.base_url}/v4.0.0/libpod/info", timeout=_TIMEOUT_S).json()
        return found if isinstance(found, dict) else {}
    return {}


def _described(argv: list[str]) -> dict[str, Any] | None:
    try:
        answer = subprocess.run(
            argv, capture_output=True, timeout=_TIMEOUT_S, check=True, env=_environment()
        )
        found: dict[str, Any] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return found


def _environment() -> dict[str, str]:
    pointing = {"CONTAINER_HOST", "CONTAINER_CONNECTION"}
    return {key: value for key, value in os.environ.items() if key not in pointing}


def _store(described: dict[str, Any]) -> tuple[object, object] | None:
    store = described.get("store", {})
    place = store.get("graphRoot"), store.get("runRoot")
    return place if all(place) else None


class PodmanProgress(Progress):
    """The state of one build, as ``podman build`` tells it.

    ``[1/2] STEP 3/9: RUN make`` opens a step, lines without any mark are its output, and
    ``--> 0df329c3865`` closes it. That, and the ``COMMIT`` of the tag, is glued to output without a
    last line end.
    """

    def __init__(self, tag: str, on_event: OnEvent) -> None:
        super().__init__(on_event)
        self._commit = re.compile(rf"(.*?)(?:\[\d+/\d+\] )?COMMIT {re.escape(tag)}\Z")
        self._stage = ""
        self._cached = False
        self._open_step: Step | None = None

    def read(self, line: str) -> None:
        """Take one line of ``podman build``."""
        if line.strip():
            self._end.append(line)
        step, layer, commit = _STEP.match(line), _LAYER.match(line), self._commit.match(line)
        if step:
            self._begin(int(step[1]), int(step[2]), step[3])
        elif _FAILED.match(line) and self.current:
            self._fail(self.current, line.removeprefix("Error: "))
        elif _CACHED.match(line):
            self._cached = True
        elif layer:
            self._take(layer[1])
            self._end_step()
        elif commit:
            self._take(commit[1])
        elif not _OWN_WORDS.match(line):
            self._take(line)

    def tail_of(self, step: Step | None) -> tuple[str, ...]:
        """Return the last lines of a step and its error, else of everything."""
        tail = tuple(self._tails.get(step.vertex, ())) if step and self.failed else ()
        return tail or self.end()[-_SHOWN_LINES:]

    def _begin(self, at: int, of: int, instruction: str) -> None:
        self._end_step()
        if at == 1:
            named = _STAGE.match(instruction)
            self._stage = named[1] if named else ""
        number = f"{self._stage} {at}/{of}".strip()
        self.current = self._open_step = Step(len(self._steps), number, instruction)
        self._remember(self.current)
        self._on_event(Event("step", f"[{number}] {instruction}", at, of))

    def _take(self, text: str) -> None:
        if self._open_step is not None and text:
            self._say(self._open_step, text)

    def _end_step(self) -> None:
        """Close the step that is open; podman is silent about the end of a FROM."""
        if self._open_step is not None:
            self._finish(self._open_step, cached=self._cached)
        self._open_step, self._cached = None, False
