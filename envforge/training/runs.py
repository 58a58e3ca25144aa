"""Runs from outside: which there are, how far they are, and asking one to stop."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import psutil
from filelock import FileLock, Timeout

from envforge.errors import DocumentError, RunFailed, UsageError
from envforge.events import Event, OnEvent
from envforge.training.record import LOCK, LOG, RECORD, Attempt, RunRecord, read_record

_POLL_S = 0.5


class Seen(NamedTuple):
    """A run directory: its record, and whether an envforge is at work in it."""

    folder: Path
    record: RunRecord
    held: bool


def list_runs(root: Path, on_event: OnEvent) -> Iterator[Seen]:
    """Yield the runs in ``root`` and just below it, oldest first; broken ones are told instead."""
    for path in sorted([*root.glob(RECORD), *root.glob(f"*/{RECORD}")], key=_begun):
        try:
            record = read_record(path.parent)
        except DocumentError as error:
            on_event(Event("warning", ": ".join((error.what, *error.because))))
            continue
        if record is not None:
            yield Seen(path.parent, record, is_held(path.parent))


def _begun(path: Path) -> float:
    return path.stat().st_ctime


def see(folder: Path) -> Seen:
    """Look at one run; UsageError where there is none, DocumentError where it is broken."""
    record = read_record(folder)
    if record is None:
        raise UsageError(f"{folder} holds no run", hint="envforge runs list")
    return Seen(folder, record, is_held(folder))


def is_held(folder: Path) -> bool:
    """Whether an envforge is at work there, asked of the lock: a killed one has let go of it."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        with lock:
            return False
    except (Timeout, OSError):
        return True


def stop(folder: Path, *, now: bool, wait_s: float) -> RunRecord:
    """Ask the envforge at work there to stop, as Ctrl-C does; return the record it leaves.

    ``now``: twice, without a checkpoint. UsageError where nobody is at work, or on another
    machine; RunFailed where it does not end within ``wait_s``.
    """
    seen = see(folder)
    if not seen.held or not seen.record.attempts:
        raise UsageError(f"nobody is at work in {folder}")
    pid = _supervisor(folder, seen.record.last)
    for _ in range(2 if now else 1):
        os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + wait_s
    while is_held(folder):
        if time.monotonic() > deadline:
            raise RunFailed(f"{folder} is still being trained after {wait_s:.0f} s",
                            hint=f"envforge runs stop --now {quote(str(folder))}")  # fmt: skip
        time.sleep(_POLL_S)
    return see(folder).record


def _supervisor(folder: Path, attempt: Attempt) -> int:
    host, _, pid = attempt.supervisor.rpartition(":")
    if host != socket.gethostname():
        raise UsageError(f"{folder} is trained on {host}", hint="stop it there")
    if not pid.isdigit() or not psutil.pid_exists(int(pid)):
        raise UsageError(f"nobody is at work in {folder}")
    return int(pid)


def follow(folder: Path, on_event: OnEvent) -> RunRecord:
    """Tell what happens there until nobody is at work any more; return the record it leaves.

    UsageError where nobody is, and no attempt was ever begun.
    """
    at = _size(folder / LOG)
    told: object = None
    while True:
        seen = see(folder)
        lines, at = _new_lines(folder / LOG, at)
        for line in lines:
            on_event(Event("log", line))
        state = (len(seen.record.attempts), seen.record.attempts[-1:])
        if state != told and seen.record.attempts:
            told = state
            on_event(_event(seen.record.last))
        if not seen.held and not seen.record.attempts:
            raise UsageError(
                f"the run in {folder} was never begun", hint=f"envforge runs resume {folder}"
            )
        if not seen.held:
            return seen.record
        time.sleep(_POLL_S)


def _event(attempt: Attempt) -> Event:
    numbers = [(name, loss.last) for name, loss in attempt.losses.items() if loss.last is not None]
    step, total = attempt.last_iteration or 0, attempt.total_iterations or 0
    if attempt.seconds_per_iteration:
        numbers.append(("seconds_per_step", attempt.seconds_per_iteration))
        if total:
            numbers.append(("left_s", max(0, total - step) * attempt.seconds_per_iteration))
    if attempt.memory_mib:
        numbers.append(("memory_mib", attempt.memory_mib))
    return Event("metric", "", step, total, tuple(numbers))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _new_lines(path: Path, at: int) -> tuple[list[str], int]:
    """Read the whole lines from ``at`` on; a half one is left for the next time."""
    try:
        with path.open("rb") as stream:
            stream.seek(at)
            data = stream.read()
    except OSError:
        return [], at
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode("utf-8", errors="replace").splitlines(), at + len(whole)
