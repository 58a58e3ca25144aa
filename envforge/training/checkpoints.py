"""The checkpoints of a run directory: found, looked into, protected, set aside, pruned.

What is inside one is said by a program (:mod:`checkpoint_program`) that runs where the training
runs. A checkpoint that is torn, or holds a number that is not finite, is never deleted: it goes to
``quarantine/``, and what upstream reads to find its newest one is pointed at the last good one.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from envforge import documents
from envforge.errors import RunFailed, Stopped
from envforge.recipes.document import CheckpointRule
from envforge.training.executor import Executor
from envforge.training.job import Job

PROGRAM = Path(__file__).with_name("checkpoint_program.py")
QUARANTINE = "quarantine"
PROTECTED = "protected"
"""A copy of the checkpoint an attempt goes on from: upstreams write over it in place."""

_MARK = "checkpoint: "
_NUMBER = re.compile(r"(\d+)(?!.*\d)")
_CRASHED = 128 + signal.SIGSEGV
_ASKED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
"""Somebody has asked the program to end: who asks a run asks all of its processes."""


class Saved(NamedTuple):
    """One checkpoint: all of its files."""

    number: str
    """As the file name has it; empty where it has none."""
    files: tuple[Path, ...]

    @property
    def step(self) -> int:
        """The number as a number; 0 where there is none."""
        return int(self.number or 0)

    @property
    def modified(self) -> float:
        """When the last of its files was written, in seconds since 1970."""
        return max((path.stat().st_mtime for path in self.files), default=0.0)


class Suspicion(NamedTuple):
    """Up to where a run was known to be good, after it has diverged."""

    step: int | None
    """The last one with a good loss; None: the attempt had none."""
    at: float | None
    """The same moment in seconds since 1970."""
    began: int | None = None
    """The number of the checkpoint it went on from; None: from nothing."""


class Scaling(NamedTuple):
    """What is changed in a checkpoint."""

    factor: float = 1.0
    """What its learning rates are multiplied with."""
    done: int = 0
    stretch: float = 1.0
    """What the rest of its schedule, after ``done`` steps, is multiplied with."""


class Recovered(NamedTuple):
    """What a run can go on from, and what was set aside on the way there."""

    good: Saved | None
    quarantined: tuple[str, ...] = ()
    """``NAME: FAULT``, newest first."""
    rates: tuple[float, ...] = ()
    """The learning rates it would go on with, where it says so."""


def find_saved(run_dir: Path, glob: str, rule: CheckpointRule | None) -> list[Saved]:
    """List the whole checkpoints, newest first; one that lacks a part is none."""
    if rule is None:
        found = [_single(path) for path in run_dir.glob(glob) if path.is_file()]
        return sorted(found, key=lambda saved: (saved.step, saved.modified), reverse=True)
    whole = []
    for number in _numbers(run_dir, rule.parts[0]):
        files = tuple(run_dir / part.replace("{number}", number) for part in rule.parts)
        if all(path.is_file() for path in files):
            whole.append(Saved(number, files))
    return sorted(whole, key=lambda saved: saved.step, reverse=True)


def _single(path: Path) -> Saved:
    return Saved(number_in(path.name), (path,))


def number_in(name: str) -> str:
    """Read a checkpoint's number from the name of its first file; empty where it has none."""
    number = _NUMBER.search(name.rpartition("/")[2])
    return number[1] if number else ""


def _numbers(run_dir: Path, part: str) -> Iterable[str]:
    before, _, after = part.partition("{number}")
    form = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}\Z")
    for path in run_dir.glob(part.replace("{number}", "*")):
        if found := form.match(str(path.relative_to(run_dir))):
            yield found[1]


def resume_words(rule: CheckpointRule | None, saved: Saved | None) -> tuple[str, ...]:
    """Say to upstream where it goes on: words of its command, none for a fresh start.

    ``{next}`` is the arithmetic that upstreams leave to the user: Pix2Pix begins its schedule anew
    unless it is told the epoch that follows.
    """
    if rule is None or saved is None:
        return ()
    values = {"{number}": saved.number, "{next}": str(saved.step + 1)}
    words = list(rule.resume)
    for name, value in values.items():
        words = [word.replace(name, value) for word in words]
    return tuple(words)


def recover(
    job: Job, executor: Executor, folder: str, suspicion: Suspicion | None = None
) -> Recovered:
    """Find the newest good checkpoint; what is newer and bad goes to ``quarantine/<folder>``.

    RunFailed where they cannot be looked into at all, Stopped where somebody has put an end to it.
    """
    set_aside: list[str] = []
    for saved in find_saved(job.run_dir, job.checkpoints, job.rule):
        fault, rates = _fault_of(saved, job, executor, suspicion)
        if not fault:
            _point_at(saved, job, executor)
            return Recovered(saved, tuple(set_aside), rates)
        quarantine(saved, job.run_dir, folder)
        set_aside.append(f"{saved.files[0].relative_to(job.run_dir)}: {fault}")
    return _from_protected(job, executor, suspicion, tuple(set_aside))


def _from_protected(
    job: Job, executor: Executor, suspicion: Suspicion | None, set_aside: tuple[str, ...]
) -> Recovered:
    """Bring back the copy an attempt went on from; a start from nothing is the last resort.

    It is moved: a copy that is bad, too, must not come back in an attempt that began anew.
    """
    copies = job.run_dir / PROTECTED
    for copy in sorted(copies.glob("**/*")) if copies.exists() else ():
        target = job.run_dir / copy.relative_to(copies)
        if copy.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            copy.replace(target)
    for saved in find_saved(job.run_dir, job.checkpoints, job.rule):
        fault, rates = _fault_of(saved, job, executor, suspicion)
        if not fault:
            _point_at(saved, job, executor)
            return Recovered(saved, set_aside, rates)
        quarantine(saved, job.run_dir, PROTECTED)
    if job.rule and job.rule.pointer:
        (job.run_dir / job.rule.pointer).unlink(missing_ok=True)
    return Recovered(None, set_aside)


def _fault_of(
    saved: Saved, job: Job, executor: Executor, suspicion: Suspicion | None
) -> tuple[str, tuple[float, ...]]:
    if suspicion and (fault := _fault_by_time(saved, job.rule, suspicion)):
        return fault, ()
    if job.ladder.verify == "existence":
        return next((f"{path.name} is empty" for path in saved.files if not _size(path)), ""), ()
    return look_into(saved, job, executor)


def _fault_by_time(saved: Saved, rule: CheckpointRule | None, suspicion: Suspicion) -> str:
    """Trust what was good before the attempt, and what a good loss was seen of after it was saved.

    Upstreams save after the update of the step whose loss they have printed: that update may be
    the one that explodes, in numbers that are finite still.
    """
    if suspicion.began is not None and saved.step <= suspicion.began:
        return "the training has diverged from it" if saved.step == suspicion.began else ""
    counts_steps = bool(saved.number) and (rule is None or rule.unit == "step")
    if counts_steps:
        late = suspicion.step is None or saved.step >= suspicion.step
    else:
        late = suspicion.at is None or saved.modified > suspicion.at
    return "was saved after the last good step" if late else ""


def look_into(saved: Saved, job: Job, executor: Executor) -> tuple[str, tuple[float, ...]]:
    """Load a checkpoint where the training runs: its fault, empty for none, and its rates.

    RunFailed and Stopped as for :func:`recover`.
    """
    return _ask(("verify",), saved, job, executor)


def scale(
    saved: Saved, scalings: Sequence[Scaling], job: Job, executor: Executor
) -> tuple[float, ...]:
    """Change a good checkpoint from inside; return what its learning rates are now.

    RunFailed where it cannot be done, Stopped as for :func:`recover`. A checkpoint without an
    optimizer has no rates.
    """
    fault, rates = _ask(("scale", json.dumps(scalings)), saved, job, executor)
    if fault:
        raise RunFailed(f"the learning rate in {saved.files[0].name} stays", because=(fault,))
    return rates


def _ask(
    question: Sequence[str], saved: Saved, job: Job, executor: Executor
) -> tuple[str, tuple[float, ...]]:
    names = [str(path.relative_to(job.run_dir)) for path in saved.files]
    code, text = executor.call(job, PROGRAM, (*question, *names))
    rows = [json.loads(line[len(_MARK) :]) for line in text.splitlines() if line.startswith(_MARK)]
    if len(rows) < len(names):
        if code == _CRASHED:
            return "whoever loads it crashes", ()
        if code in _ASKED:
            raise Stopped("the checkpoints were not looked into to the end")
        tail = tuple(text.strip().splitlines()[-3:])
        raise RunFailed("the checkpoints cannot be looked into", because=tail)
    fault = next((row["fault"] for row in rows if row["fault"]), "")
    return fault, tuple(rate for row in rows for rate in row["rates"])


def quarantine(saved: Saved, run_dir: Path, folder: str) -> None:
    """Move a checkpoint out of the training's sight, keeping its place below the directory."""
    for path in saved.files:
        target = run_dir / QUARANTINE / folder / path.relative_to(run_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def protect(saved: Saved, run_dir: Path) -> None:
    """Keep a copy of a checkpoint, and of no other."""
    copies = run_dir / PROTECTED
    wanted = {copies / path.relative_to(run_dir): path for path in saved.files}
    for target, path in wanted.items():
        _copy(path, target)
    for stale in copies.glob("**/*"):
        if stale.is_file() and stale not in wanted:
            stale.unlink()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.copy")
    shutil.copy2(source, staging)
    staging.replace(target)


def prune(saved: Sequence[Saved], keep: int, good: Saved | None) -> tuple[str, ...]:
    """Delete all but the newest ``keep`` of ``saved`` (newest first) and the good one."""
    if good is None:
        return ()  # nothing has been looked into: any of them may be the only good one
    gone = [each for each in saved[keep:] if each.files != good.files]
    for each in gone:
        for path in each.files:
            path.unlink(missing_ok=True)
    return tuple(each.files[0].name for each in gone)


def _point_at(saved: Saved, job: Job, executor: Executor) -> None:
    """Let upstream's own note name ``saved``.

    The folder stays as upstream wrote it; a note that a kill left empty, or before it was written,
    gets the folder as the training sees it.
    """
    if job.rule is None or job.rule.pointer is None:
        return
    pointer, file = job.run_dir / job.rule.pointer, saved.files[0]
    text = pointer.read_text(encoding="utf-8").strip() if pointer.exists() else ""
    seen = f"{executor.place(job)}/{file.relative_to(job.run_dir)}"
    name = str(Path(text).with_name(file.name)) if text else seen
    if text != name:
        documents.write_atomically(pointer, name.encode())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
