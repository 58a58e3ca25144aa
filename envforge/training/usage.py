"""Sample what the training uses of the machine, every few seconds, in a thread of its own."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

import psutil

from envforge.errors import EnvforgeError
from envforge.hardware.usage import CardWatch
from envforge.training.clock import Clock
from envforge.training.series import EVERY_S, Point


class Counters(NamedTuple):
    """What only ever grows; a use is the difference of two."""

    at: float
    cpu_s: float
    read_bytes: float
    machine_busy_s: float
    machine_wait_s: float
    machine_s: float


class Sampler:
    """Adds a point every :data:`EVERY_S` seconds until it is closed."""

    def __init__(
        self, pids: Callable[[], Iterable[int]], add: Callable[[Point], None], clock: Clock
    ) -> None:
        self._pids, self._add, self._clock = pids, add, clock
        self._cards = CardWatch(EVERY_S)
        self._over = threading.Event()
        self.gpu_memory_mib: float | None = None
        """The newest sample."""
        self.peak_gpu_mib: float | None = None
        self.memory_mib: float | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling."""
        self._over.set()
        self._thread.join(timeout=2 * EVERY_S)
        self._cards.close()

    def _run(self) -> None:
        before: Counters | None = None
        while not self._over.wait(EVERY_S):
            processes = self._processes()
            now = _count(processes, self._clock.monotonic())
            held = sum(map(_resident_mib, processes))
            if before is not None and now.at > before.at:
                with contextlib.suppress(OSError, ValueError):  # a full disk, or closed meanwhile
                    self._add(self._point(before, now, held))
            before = now

    def _processes(self) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(EnvforgeError):  # a lost engine is heard of elsewhere
            for pid in self._pids():
                with contextlib.suppress(psutil.Error):
                    found.append(psutil.Process(pid))
        return found

    def _point(self, before: Counters, now: Counters, held_mib: float) -> Point:
        card = max(self._cards.newest(), key=lambda each: each.busy, default=None)
        seconds, machine_s = now.at - before.at, max(now.machine_s - before.machine_s, 1e-9)
        self.memory_mib = held_mib
        self.gpu_memory_mib = card.memory_mib if card and card.memory_mib >= 0 else None
        if self.gpu_memory_mib is not None:
            self.peak_gpu_mib = max(self.peak_gpu_mib or 0.0, self.gpu_memory_mib)
        return Point(
            at=round(self._clock.now().timestamp(), 2),
            attempt=0,
            cpu=_share(now.cpu_s - before.cpu_s, seconds),
            machine_cpu=_share(now.machine_busy_s - before.machine_busy_s, machine_s),
            waiting=_share(now.machine_wait_s - before.machine_wait_s, machine_s),
            read_mib_s=_share((now.read_bytes - before.read_bytes) / 2**20, seconds),
            memory_mib=round(held_mib, 1),
            gpu=round(card.busy, 3) if card and card.busy >= 0 else None,
            gpu_memory_mib=self.gpu_memory_mib,
            cores=os.cpu_count(),
        )


def _share(part: float, whole: float) -> float:
    """A worker that ended takes its counters along; less than nothing is nothing."""
    return round(max(0.0, part / whole), 3)


def _count(processes: list[psutil.Process], at: float) -> Counters:
    cpu_s = read = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            cpu_s += times.user + times.system
            read += process.io_counters().read_bytes
    machine = psutil.cpu_times()
    waiting = getattr(machine, "iowait", 0.0)
    total = sum(machine)
    return Counters(at, cpu_s, read, total - machine.idle - waiting, waiting, total)


def _resident_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0
