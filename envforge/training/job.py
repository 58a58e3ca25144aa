"""What a training is to its supervisor: a command, a place, and how to tell what became of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from envforge.recipes.document import CheckpointRule
from envforge.recipes.ladder import Ladder

Reason = Literal[
    "finished",
    "check-failed",
    "diverged",
    "bad-checkpoint",
    "gpu-oom",
    "host-oom",
    "shm",
    "open-files",
    "data",
    "hang",
    "engine-lost",
    "crash",
    "preempted",
    "cancelled",
]
"""Why an attempt ended."""


@dataclass(frozen=True, kw_only=True)
class LogPatterns:
    """How to read the training's output; which groups each has is said by the recipe document."""

    progress: re.Pattern[str]
    loss: re.Pattern[str] | None = None
    epoch_size: re.Pattern[str] | None = None
    epoch_end: re.Pattern[str] | None = None
    check: re.Pattern[str] | None = None
    checkpoint: re.Pattern[str] | None = None
    resumed: re.Pattern[str] | None = None
    stopped: re.Pattern[str] | None = None
    success: re.Pattern[str] | None = None
    """A line that must be reached."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A JSON file below the run directory, written anew by a success, and what it then says."""

    file: str
    field: str
    equals: bool | int | str


class Mounted(NamedTuple):
    """A folder of this machine, and where a container sees it; a local training sees it itself."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, ready to start: plain values, no recipe and no lock."""

    run_id: str
    argv: tuple[str, ...]
    """As the place of execution sees it: a container has its own paths."""
    run_dir: Path
    python: str
    """The interpreter that has the torch, as the place of execution sees it."""
    files: Path
    """The recipe's files on this machine."""
    mounts: tuple[Mounted, ...] = ()
    """What else it sees: upstream's code, examples, packages."""
    patterns: LogPatterns
    result: Result | None = None
    written: str | None = None
    """A file below the run directory that a success has written anew."""
    exit_code: int | None = None
    """What a success has ended with; None: nothing is told by it."""
    checkpoints: str
    """A glob below the run directory."""
    rule: CheckpointRule | None = None
    """What one checkpoint consists of; None: every file of the glob is one."""
    ladder: Ladder = field(default_factory=Ladder)
    total: int | None = None
    """The last step, for a log that does not say it."""
    images_per_step: int | None = None
    exit_reasons: Mapping[int, Reason] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_wait_s: float = 60
    shm_size_mib: int = 64
    memory_mib: int | None = None
    """The container's limit; None: the machine's own."""
