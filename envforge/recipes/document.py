"""The form of ``recipe.yaml``: data only. A recipe runs no code of its own on the host.

Patterns are regular expressions with named groups; each pattern knows which groups it must and
may have. They are searched in one line of the training's output at a time. Unknown keys are faults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

FILE = "recipe.yaml"

Setting = int | float | str
Meaning = Literal[
    "finished",
    "check-failed",
    "diverged",
    "bad-checkpoint",
    "gpu-oom",
    "host-oom",
    "crash",
    "cancelled",
]
"""What an exit code of this recipe stands for, in the words of a run's record."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value of the command line that ``--set KEY=VALUE`` may change."""

    kind: Literal["integer", "number", "word"]
    default: Setting
    help: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    """For a word: the only values there are. Empty: any word without shell metacharacters."""


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to read the training's output."""

    progress: str
    """A line of progress: ``step``, and where the upstream says so ``total``, ``seconds`` (of one
    step) and ``losses`` (the part of the line that holds them; else the whole line does)."""
    loss: str
    """One loss within that part: ``name``, ``value``. Applied as often as it matches."""
    check: str | None = None
    """A judgement: ``name``, ``outcome`` (``ok``, ``skipped``, else failed), maybe ``words``."""
    checkpoint: str | None = None
    """A checkpoint has been written: ``path``, relative to the run directory."""
    resumed: str | None = None
    """It goes on from a checkpoint: ``step``, maybe ``path``."""
    stopped: str | None = None
    """It has stopped as asked: maybe ``step``."""


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON file the training leaves in the run directory, and what it must say."""

    file: str
    field: str
    equals: bool | int | str


class Success(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must be *reached*, all of it: an exit code alone proves nothing."""

    line: str | None = None
    """A line of the output."""
    result: Result | None = None


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document ``recipe.yaml``."""

    schema: Literal["envforge.recipe/1"]
    name: str
    summary: str
    torch: str
    """The releases it runs on, as ``>=A,<B``: both bounds."""
    files: str
    """A folder beside the document, mounted read-only: ``{recipe}``."""
    command: tuple[str, ...]
    """The argument list. ``{python}``, ``{recipe}``, ``{run_dir}``, ``{device}`` (``auto``,
    ``cpu`` or ``cuda``) and the parameters' names are filled in; there is no shell."""
    parameters: dict[str, Parameter] = {}
    log: Log
    checkpoints: str
    """A glob within the run directory."""
    success: Success
    exit_codes: dict[int, Meaning] = {}
    when_finished: Literal["start-again", "leave"] = "leave"
    """What a run directory gets whose run has already succeeded."""
    stop_wait_s: int = 60
    """How long a training that was asked to stop may take for its checkpoint."""
    shm_size_mib: int
    """``/dev/shm`` of the container; the engine's own 64 MiB kill DataLoader workers."""
    show: tuple[str, ...] = ()
    """Files and folders of the run directory that are worth a look afterwards."""


class LoadedRecipe(NamedTuple):
    """A recipe and the folder it was read from."""

    recipe: Recipe
    folder: Path
    reference: str
    """What :func:`load_recipe` finds it by from any directory: a name, or an absolute path."""

    @property
    def files(self) -> Path:
        """The folder that the training sees as ``{recipe}``."""
        return self.folder / self.recipe.files
