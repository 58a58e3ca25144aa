"""Run a child process so that nothing of it outlives the call that needed it.

The tools behind this package's doors (pip, mmdebstrap, a Docker client) start children of their
own. Each gets a process group; an exception in the reading code, Ctrl-C included, ends the group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: IO[bytes] | None = None,
    grace_s: float = 10.0,
) -> Iterator[subprocess.Popen[str]]:
    """Start ``argv``; leave the block early and its process group is ended (TERM, then KILL).

    ``process.stdout`` carries both streams, or standard error alone where ``stdout`` is a file:
    one pipe, because two that are read in turn can block each other. Raises OSError where the
    program cannot be started.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=stdout if stdout is not None else subprocess.PIPE,
        stderr=subprocess.PIPE if stdout is not None else subprocess.STDOUT,
        env=None if env is None else dict(env),
        cwd=cwd,
        start_new_session=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        yield process
        process.wait()
    except BaseException:
        end_group(process, grace_s)
        raise
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def end_group(process: subprocess.Popen[str], grace_s: float) -> None:
    """Ask the process group to end, wait ``grace_s``, then kill what is left of it."""
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(grace_s)
    except BaseException:  # noqa: BLE001 -- a second Ctrl-C must not leave the child running
        _signal_group(process, signal.SIGKILL)
        process.wait()
    else:
        # The leader is gone; a grandchild that ignored TERM would keep the pipe and its work.
        _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield the lines of the child's one pipe, without their ends."""
    stream = process.stderr if process.stdout is None else process.stdout
    if stream is not None:
        for line in stream:
            yield line.rstrip("\r\n")
