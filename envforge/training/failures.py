"""Tell why an attempt ended: from what it reached first, from its exit code last.

Old frameworks lie with exit codes: 0 on NaN, 0 on a dead worker, 1 after a good run. So what was
reached decides, then what the kernel and the log say, and only then the code.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from envforge.training.executor import Ending
from envforge.training.job import Reason, Result
from envforge.training.metrics import LogReader


class Verdict(NamedTuple):
    """Why an attempt ended, and the facts that say so."""

    reason: Reason
    because: tuple[str, ...] = ()


def judge(
    ending: Ending,
    reader: LogReader,
    missing: tuple[str, ...],
    meanings: Mapping[int, Reason],
    *,
    stopped_by: str | None = None,
) -> Verdict:
    """Name the reason.

    ``missing`` is what success still lacks, ``stopped_by`` the signal by which we were asked to
    stop.
    """
    if not missing:
        return Verdict("finished", _odd_exit(ending))
    if stopped_by:
        asked: Reason = "cancelled" if stopped_by == "SIGINT" else "preempted"
        return Verdict(asked, (_exit_words(ending),))
    return _judge_place(ending) or _judge_training(ending, reader, missing, meanings)


def _judge_place(ending: Ending) -> Verdict | None:
    """Judge by what befell the training from outside: it had no say in that."""
    if ending.lost:
        return Verdict("engine-lost", (ending.lost,))
    if ending.out_of_memory:
        return Verdict("host-oom", (f"the kernel ended it for memory: {_exit_words(ending)}",))
    if ending.exit_code == 128 + signal.SIGTERM:
        return Verdict("preempted", ("something else asked it to end",))
    return None


def _judge_training(
    ending: Ending,
    reader: LogReader,
    missing: tuple[str, ...],
    meanings: Mapping[int, Reason],
) -> Verdict:
    """Judge by what the training said: its words, its exit code where that has a meaning."""
    death = reader.death
    if death is not None:
        where = f"{death.message.id}, {death.message.source}"
        return Verdict(death.message.reason, (death.line.strip()[:300], f"known as {where}"))
    checks = tuple(f"check {each.name} failed: {each.words}" for each in reader.failed_checks())
    values = (reader.bad_value,) if reader.bad_value else ()
    meaning = meanings.get(-1 if ending.exit_code is None else ending.exit_code)
    if meaning is None or meaning == "finished":
        meaning = "diverged" if values else "check-failed" if checks else "crash"
    because = (*checks, *values, _exit_words(ending))
    return Verdict(meaning, because if meaning != "crash" else (*because, *missing))


def _odd_exit(ending: Ending) -> tuple[str, ...]:
    return () if ending.exit_code == 0 else (f"all was reached, yet it {_exit_words(ending)}",)


def _exit_words(ending: Ending) -> str:
    """``ended with exit code 1``, ``was killed by SIGKILL``."""
    code = ending.exit_code
    if code is None:
        return "nobody knows its exit code"
    try:
        return f"was ended by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"ended with exit code {code}"


class Fingerprint(NamedTuple):
    """Which file lies under a name: another one, or a rewritten one, has another."""

    inode: int
    size: int
    modified_ns: int


def fingerprint(path: Path) -> Fingerprint | None:
    """Take the fingerprint of ``path``; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Fingerprint(status.st_ino, status.st_size, status.st_mtime_ns)


def missing_for_success(
    reader: LogReader, result: Result | None, run_dir: Path, before: Fingerprint | None
) -> tuple[str, ...]:
    """List what a success would have reached and this attempt has not.

    ``before`` is the result file's fingerprint from before the attempt: a file left by an earlier
    one proves nothing.
    """
    missing = []
    if reader.patterns.success is not None and not reader.success:
        missing.append("the line that ends a success never came")
    if result is not None and (fault := _fault_of_result(result, run_dir, before)):
        missing.append(f"{result.file} {fault}")
    return tuple(missing)


def _fault_of_result(result: Result, run_dir: Path, before: Fingerprint | None) -> str:
    now = fingerprint(run_dir / result.file)
    if now is None:
        return "was not written"
    if now == before:
        return "was left by an earlier attempt"
    try:
        document = json.loads((run_dir / result.file).read_bytes())
        value = document[result.field]
    except (OSError, ValueError, RecursionError, KeyError, TypeError, IndexError):
        return f"has no readable {result.field!r}"
    same = type(value) is type(result.equals) and value == result.equals
    return "" if same else f"says {result.field}: {json.dumps(value)[:80]}"
