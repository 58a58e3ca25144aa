"""What the kernel says about a death: whether it has killed anything for memory."""

from __future__ import annotations

import signal
from pathlib import Path

_KILLED = 128 + signal.SIGKILL
_VMSTAT = Path("/proc/vmstat")


def oom_kills(vmstat: Path = _VMSTAT) -> int:
    """Count the processes this machine's kernel has killed for memory, in any cgroup.

    The counter ``oom_kill`` exists since Linux 4.13
    (https://www.kernel.org/doc/html/latest/admin-guide/mm/index.html); 0 where it cannot be read.
    """
    try:
        text = vmstat.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return 0
    counters = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    return int(counters.get("oom_kill", "0"))


def killed_for_memory(exit_code: int, kills_before: int) -> bool:
    """Tell the kernel's SIGKILL from a person's: only the kernel's moves the counter."""
    return exit_code == _KILLED and oom_kills() > kills_before
