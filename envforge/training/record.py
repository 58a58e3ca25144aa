"""The record of a run: ``run.json`` and the directory it lies in.

The file is replaced as a whole each time, so a kill at any moment leaves a readable one. Whoever
holds the directory's lock is the only one to write.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import msgspec
from filelock import FileLock, Timeout

from envforge import documents
from envforge.errors import DocumentError, UsageError
from envforge.recipes.document import Boxes
from envforge.training.job import Reason

RECORD = "run.json"
LOG = "log.txt"
LOCK = ".run.lock"
_OURS = re.compile(r"\.run\.(?:lock|json\..*)\Z|stage\.json\Z")
SERIES = "series.jsonl"

State = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A setting in which an attempt differs from the one before it."""

    setting: str
    before: int | float | str | None
    after: int | float | str | None


class LossSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One loss over an attempt; null stands for a value that was no number."""

    first: float | None
    last: float | None
    least: float | None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One life of the training process."""

    started: str
    ended: str | None = None
    exit_code: int | None = None
    reason: Reason | None = None
    because: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    first_iteration: int | None = None
    """Where it went on from; 0 for a fresh start, null before its first line of progress."""
    last_iteration: int | None = None
    total_iterations: int | None = None
    checkpoint: str | None = None
    """The newest one, relative to the run directory."""
    why: str = ""
    """What this attempt is an answer to; empty for one that a person has started."""
    from_checkpoint: str | None = None
    """The good one it was started from; null for a fresh start."""
    quarantined: tuple[str, ...] = ()
    """``NAME: FAULT`` of the checkpoints set aside before it."""
    rate_factor: float | None = None
    """How much of the learning rates before it this attempt has; null: all.

    So much was taken of them in that checkpoint, and what newer ones had been changed by."""
    stretch: float | None = None
    """How much longer the rest of the schedule is than before it, likewise; null: it stayed."""
    rates: tuple[float, ...] = ()
    """The learning rates it was started with, where the checkpoint says them."""
    forgets: tuple[str, ...] = ()
    """What upstream began anew although it was started from a checkpoint."""
    good_iteration: int | None = None
    """The last step before a loss that was bad; else the last one."""
    good_at: float | None = None
    """When that was, in seconds since 1970."""
    memory_mib: float | None = None
    """The most held on the card, by the training's own words or as the driver saw it."""
    stacks: str | None = None
    """A file of the run directory: where its processes were when it was hanging."""
    seconds_per_iteration: float | None = None
    losses: dict[str, LossSummary] = {}
    usual_loss: float | None = None
    """The median of the loss that is watched for an explosion, as far as this attempt knows it."""
    stopped_by: str | None = None
    """``SIGINT``, ``SIGTERM`` ...: what asked envforge to stop."""
    supervisor: str = ""
    """``host:pid`` of the envforge that watched it."""


class CheckOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement the training made of itself."""

    name: str
    outcome: str
    words: str


class Lowering(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint about to be changed, as it was before: a kill must not change it twice."""

    checkpoint: str
    modified_ns: int
    factor: float
    stretch: float = 1.0
    settings: dict[str, int | float | str]
    """Those of the attempt it is changed for."""
    why: str


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The document ``run.json``, schema ``envforge.run/1``. Fields are added, never renamed."""

    schema: Literal["envforge.run/1"] = "envforge.run/1"
    state: State = "PENDING"
    attempts: tuple[Attempt, ...] = ()
    lowering: Lowering | None = None
    """A lowering of learning rates that has been begun; null once its attempt has started."""
    id: str
    recipe: str
    reference: str
    """What ``envforge run`` finds the recipe by: its name, or its folder."""
    run_dir: str
    settings: dict[str, int | float | str] = {}
    asked: dict[str, int | float | str] = {}
    """What a person has asked for with ``--set``, the latest of each."""
    command: tuple[str, ...] = ()
    on: Literal["docker", "local"]
    device: str = "auto"
    python: str = ""
    torch: str | None = None
    image: str | None = None
    image_id: str | None = None
    checks: tuple[CheckOutcome, ...] = ()
    show: tuple[str, ...] = ()
    samples: str | None = None
    """A glob of the run directory: pictures the training made on its way."""
    boxes: Boxes | None = None
    """Where stands what was found in them."""

    @property
    def last(self) -> Attempt:
        """The newest attempt; IndexError before the first."""
        return self.attempts[-1]

    @property
    def usual_before(self) -> float | None:
        """What was usual for the weights that the newest attempt goes on with; None: unknown."""
        for newer, older in pairwise(reversed(self.attempts)):
            if newer.from_checkpoint is None:
                return None
            if older.usual_loss is not None:
                return older.usual_loss
        return None

    def with_last(self, **changes: Any) -> RunRecord:
        """Return the record with its newest attempt changed."""
        last = msgspec.structs.replace(self.last, **changes)
        return msgspec.structs.replace(self, attempts=(*self.attempts[:-1], last))


def new_id() -> str:
    """Return a name for a run that no other run has."""
    return uuid.uuid4().hex


def supervisor_name() -> str:
    """``host:pid`` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def read_record(run_dir: Path) -> RunRecord | None:
    """Read ``run.json``; None where there is none, DocumentError where it is not one of ours."""
    path = run_dir / RECORD
    return documents.load_json(path, RunRecord) if path.exists() else None


class RunFolder:
    """A run directory under its lock. ``record`` is what it holds, None in a new one."""

    def __init__(self, path: Path, record: RunRecord | None) -> None:
        self.path = path
        self.record = record

    def write(self, record: RunRecord) -> None:
        """Replace ``run.json``."""
        documents.write_atomically(self.path / RECORD, documents.to_json(record).encode())
        self.record = record

    def newest(self, glob: str) -> str | None:
        """Find the file of ``glob`` that was written last, relative to the run directory."""
        files = [path for path in self.path.glob(glob) if path.is_file()]
        return str(max(files, key=_modified).relative_to(self.path)) if files else None

    def log_modified(self) -> float | None:
        """When ``log.txt`` last grew, in seconds since 1970; None where there is none."""
        path = self.path / LOG
        return path.stat().st_mtime if path.exists() else None


@contextmanager
def open_folder(path: Path) -> Iterator[RunFolder]:
    """Hold the run directory ``path``; it is made where it is not there.

    UsageError where another envforge holds it, or where it has other things in it and no run. A
    directory in which no run was begun is left as it was found.
    """
    path = path.resolve()
    made = _make(path)
    if not (path / RECORD).exists():
        _refuse_foreign(path)
    lock = _acquire(path)
    try:
        yield RunFolder(path, _read_whole(path))
    finally:
        begun = (path / RECORD).exists()
        if not begun:
            (path / LOCK).unlink(missing_ok=True)
        lock.release()
        if not begun and made:
            path.rmdir()


def _read_whole(path: Path) -> RunRecord | None:
    for torn in path.glob(f".{RECORD}.*"):  # a write that a kill broke off
        torn.unlink(missing_ok=True)
    return read_record(path)


def _acquire(path: Path) -> FileLock:
    lock = FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another envforge is at work in {path}",
            because=_holder(path),
            hint=f"look at it: envforge runs follow {quote(str(path))}; or give another --run-dir",
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write in {path}", because=(str(error),)) from error
    return lock


def _refuse_foreign(path: Path) -> None:
    foreign = sorted(each.name for each in path.iterdir() if not _OURS.match(each.name))
    if foreign:
        raise UsageError(
            f"{path} is not empty and no run directory",
            because=(f"it holds {', '.join(foreign[:5])} and no {RECORD}",),
            hint="give a --run-dir that is new or holds a run",
        )


def _make(path: Path) -> bool:
    """Make the directory; whether it was not there before."""
    if path.is_dir():
        return False
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot make the run directory {path}", because=(str(error),)) from error
    return True


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # pruned by the training between listing and looking
        return 0.0


def _holder(path: Path) -> tuple[str, ...]:
    try:
        record = read_record(path)
    except DocumentError:
        return ()
    if record is None or not record.attempts:
        return ()
    return (f"its supervisor is {record.last.supervisor}, started {record.last.started}",)
