"""Who starts a training and holds its reins: the seam between the supervisor and the machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from envforge.recipes.dataset import Said
from envforge.training.errand import Errand
from envforge.training.job import Job

RUN_VARIABLE = "ENVFORGE_RUN"
"""In a training's environment: the id of its run, by which a later supervisor finds it."""


class Ending(NamedTuple):
    """How a training ended, as far as its place of execution knows."""

    exit_code: int | None
    """128 + n for one ended by signal n, as shells and engines count. None: nobody knows."""
    out_of_memory: bool = False
    """The kernel killed something of it for memory."""
    lost: str = ""
    """Why the place of execution can say no more; empty where it can."""


class Process(Protocol):
    """One started training. Leaving its context ends and removes whatever is left of it."""

    def lines(self) -> Iterator[bytes]:
        """Yield its output, stdout and stderr merged, a line at a time and without terminators.

        Ends when the training has ended, even where a child of it holds the pipe open.
        """

    def wait(self) -> Ending:
        """Block until the training has ended."""

    def signal(self, number: int) -> None:
        """Send a signal to the training's first process; nothing where that has ended."""

    def kill(self) -> None:
        """End every process of the training at once."""

    def pids(self) -> tuple[int, ...]:
        """List its processes as this machine numbers them; nothing where nobody can say."""


class Executor(Protocol):
    """A place of execution."""

    def start(self, job: Job) -> AbstractContextManager[Process]:
        """Start ``job``; an EnvforgeError where this place cannot."""

    def place(self, job: Job) -> str:
        """Where the training sees its run directory."""

    def call(self, job: Job, program: Path, arguments: tuple[str, ...]) -> tuple[int, str]:
        """Run a Python file of ours with the job's interpreter, in its run directory.

        Returns its exit code and both streams; an EnvforgeError where it cannot be started.
        """

    def carry_out(self, errand: Errand) -> Said:
        """Run a small program to its end; an EnvforgeError where it cannot be started."""

    def clear(self, run_id: str, wait_s: float) -> tuple[str, ...]:
        """Stop what a dead supervisor left running for this run; name what was stopped."""
