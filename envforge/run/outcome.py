"""What came of a run, as an error where it did not succeed."""

from __future__ import annotations

import shlex
from pathlib import Path

from envforge.errors import Interrupted, RunFailed, Stopped
from envforge.training import RunRecord
from envforge.training.record import LOG

_TAIL = 12
_ENDS = {
    "check-failed": "did not pass its own checks",
    "diverged": "diverged",
    "bad-checkpoint": "cannot use its newest checkpoint",
    "gpu-oom": "exhausted the card's memory",
    "host-oom": "exhausted the machine's memory",
    "shm": "exhausted its shared memory",
    "open-files": "exhausted its open files",
    "data": "cannot read its data",
    "hang": "hangs",
    "engine-lost": "was lost with the container engine",
    "crash": "ended before it was finished",
}


def require_success(record: RunRecord) -> None:
    """Return where the run succeeded.

    Interrupted (Ctrl-C) or Stopped (a scheduler) where it can go on later; RunFailed with what
    says why, the end of the log and its file.
    """
    if record.state == "SUCCEEDED":
        return
    last = record.last
    again = shlex.join(["envforge", "run", record.reference, "--run-dir", record.run_dir])
    if record.state == "CANCELLED":
        kind = Interrupted if last.stopped_by == "SIGINT" else Stopped
        what, because = _where_stopped(record)
        raise kind(f"{record.recipe} {what}", because=(because,), hint=f"to go on: {again}")
    log = Path(record.run_dir) / LOG
    reasons = [each.reason or "crash" for each in record.attempts]
    tried = (f"in {len(reasons)} attempts: {', '.join(reasons)}",) if len(reasons) > 1 else ()
    raise RunFailed(
        f"{record.recipe} {_ENDS[last.reason or 'crash']}",
        because=(
            *last.because,
            *tried,
            f"the end of {log}:",
            *(f"  {line}" for line in _tail(log)),
        ),
        hint=f"once the cause is mended: {again}",
    )


def _where_stopped(record: RunRecord) -> tuple[str, str]:
    last = record.last
    if last.reason not in ("cancelled", "preempted"):
        return "was stopped before its next attempt", f"the last one ended for this: {last.reason}"
    saved = f"the newest checkpoint is {last.checkpoint}" if last.checkpoint else ""
    return f"was stopped at step {last.last_iteration or 0}", saved or "no checkpoint was saved"


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 16384))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-_TAIL:]
