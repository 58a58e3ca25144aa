"""testinfra's view of a container, through the engine that runs it.

testinfra's own backends call ``docker`` or ``podman``, which may talk to another engine than ours.
Imported late: testinfra brings pytest along.
"""

from __future__ import annotations

from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from envforge.image.engine import Container


class _EngineBackend(BaseBackend):  # type: ignore[misc]  # testinfra: untyped for mypy
    """Runs testinfra's commands with the engine's own ``exec``."""

    NAME = "envforge"

    def __init__(self, container: Container) -> None:
        super().__init__(container.name)
        self._container = container

    def run(self, command: str, *args: str, **_options: Any) -> CommandResult:
        """Run a command of the shell inside."""
        words = self.get_command(command, *args)
        answer = self._container.exec(["/bin/sh", "-c", words])
        outputs = answer.stdout.encode(), answer.stderr.encode()
        return self.result(answer.code, self.encode(words), *outputs)


def host_in(container: Container) -> Any:
    """Return testinfra's host of a running container: its files, users and packages."""
    return Host(_EngineBackend(container))
