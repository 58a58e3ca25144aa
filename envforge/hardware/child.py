"""Ask another program a question and be back in time, whatever it does.

A driver in trouble blocks the process that asks it inside the kernel (state D), where not even
SIGKILL ends it: https://github.com/NVIDIA/nvidia-docker/issues/377. subprocess.run(timeout=…) kills
the child and then waits for its end without limit, so it would hang too; here it is left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_GRACE_S = 0.5


class Answer(NamedTuple):
    """What the program wrote, also what it wrote before its time was over."""

    text: str
    exit_code: int | None
    """None: it could not be started, or did not end in time."""
    timed_out: bool = False


def ask(argv: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> Answer:
    """Run ``argv`` for at most ``timeout_s``; both its streams, in the C locale."""
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError:
        return Answer("", None)
    try:
        output = process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        return Answer(_decoded(_stop(process)), None, timed_out=True)
    except BaseException:
        _stop(process)
        raise
    return Answer(_decoded(output), process.returncode)


def _stop(process: subprocess.Popen[bytes]) -> bytes:
    """Kill the child's whole group; give it a moment to go, not more."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.communicate(timeout=_GRACE_S)[0]
    except subprocess.TimeoutExpired as still:
        process.poll()  # it may be gone, and only its pipe kept open by a child that left the group
        return still.output or b""
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _decoded(output: bytes) -> str:
    return output.decode("utf-8", errors="replace")
