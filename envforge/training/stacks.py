"""Where the processes of a hanging training are: py-spy's answer, where there is a py-spy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_TIMEOUT_S = 10.0


def find_py_spy() -> str | None:
    """Find py-spy on PATH or beside this interpreter."""
    return shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))


def dump_stacks(pids: Iterable[int], file: Path) -> bool:
    """Write every process's Python stack to ``file``; False where nothing could be read.

    Root may read any process, its owner mostly too
    (https://github.com/benfred/py-spy#when-do-you-need-to-run-as-sudo).
    """
    program = find_py_spy()
    if program is None:
        return False
    parts = [text for pid in pids if (text := _dump(program, pid))]
    if parts:
        file.write_text("\n".join(parts), encoding="utf-8")
    return bool(parts)


def _dump(program: str, pid: int) -> str:
    """The stack of one process; empty for one that is no Python or not ours to read."""
    try:
        answer = subprocess.run(
            [program, "dump", "--pid", str(pid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.decode("utf-8", errors="replace") if answer.returncode == 0 else ""
