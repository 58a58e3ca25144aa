"""Being asked to stop: Ctrl-C, a scheduler's SIGTERM, a closed terminal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_POLL_S = 0.1
_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequests:
    """How often, and first by what, envforge was asked to stop. Once: cleanly. Twice: now."""

    def __init__(self) -> None:
        self._signals: list[int] = []

    def add(self, number: int) -> None:
        """Take one request; safe in a signal handler, which it is made for."""
        self._signals.append(number)

    def wait(self, seconds: float) -> None:
        """Wait, unless somebody asks meanwhile: no lock of an event is for signal handlers."""
        deadline = time.monotonic() + seconds
        while not self._signals and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    @property
    def count(self) -> int:
        """How many requests there were."""
        return len(self._signals)

    @property
    def first(self) -> str | None:
        """``SIGINT``, ``SIGTERM`` or ``SIGHUP``; None where nobody asked."""
        return signal.Signals(self._signals[0]).name if self._signals else None


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Collect signals instead of dying of them, as long as the block lasts.

    A signal that is ignored stays ignored (``nohup``). Outside the main thread, where Python
    takes no signals, nothing is collected.
    """
    requests = StopRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def take(number: int, _frame: FrameType | None) -> None:
        requests.add(number)

    found = {number: signal.getsignal(number) for number in _ASKING}
    # None: a handler of C code that embeds this Python, which Python could not put back
    before = {number: handler for number, handler in found.items() if handler is not None}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, take)
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
