"""How busy the cards are, as the driver sees it: a child process that asks NVML again and again.

A child for the same reason as in :mod:`envforge.hardware.nvml`; it ends with its parent.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Where NVIDIA's driver is reached: on Linux, and in WSL."""
CHILD = Path(__file__).with_name("usage_child.py")


class CardUse(NamedTuple):
    """One moment of one card."""

    card: int
    """As NVML numbers them."""
    busy: float
    """Share of the last sampling period in which a kernel ran, 0 to 1."""
    memory_mib: float
    """Held by everybody."""


class CardWatch:
    """Asks every ``every_s`` seconds until it is closed; without a driver it has nothing to say."""

    def __init__(self, every_s: float) -> None:
        self._newest: tuple[CardUse, ...] = ()
        self._child: subprocess.Popen[str] | None = None
        if not any(path.exists() for path in DRIVERS):
            return
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", str(CHILD), str(every_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        except OSError:
            return
        threading.Thread(target=self._listen, daemon=True).start()

    def newest(self) -> tuple[CardUse, ...]:
        """Return what was last said, card by card."""
        return self._newest

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout):
                if stream is not None:
                    stream.close()

    def _listen(self) -> None:
        assert self._child is not None and self._child.stdout is not None  # noqa: S101, PT018
        try:
            for line in self._child.stdout:
                self._newest = tuple(CardUse(*row) for row in json.loads(line))
        except ValueError:  # closed while it was read, or a line cut off
            return
