"""Read a training's output: where it is, what it loses, how fast it goes, what it claims."""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from envforge.training.job import LogPatterns

LONGEST = 16 * 1024
"""Characters of a line that are looked at; the log file has them all."""
TAIL = 40

_MEMORY = re.compile(
    r"CUDA out of memory"  # torch 0.4.1 to 2.x
    r"|cuda runtime error \(2\)"  # THC, to 1.x: "... : out of memory at /pytorch/aten/..."
    r"|CUDA error: out of memory"
    r"|CUDA driver error: out of memory"
    r"|torch(?:\.cuda)?\.OutOfMemoryError"
    r"|CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED"
)

Kind = Literal["progress", "notable", "other"]


class Check(NamedTuple):
    """A judgement the training has made of itself."""

    name: str
    outcome: str
    """``ok``, ``skipped``, or else it failed."""
    words: str


@dataclass
class Loss:
    """One loss over an attempt; not a number is a value like any other."""

    first: float
    last: float
    least: float

    def add(self, value: float) -> None:
        """Take the next value."""
        self.last = value
        if value < self.least or math.isnan(self.least):
            self.least = value


@dataclass
class LogReader:
    """What the output of one attempt has said so far."""

    patterns: LogPatterns
    step: int | None = None
    total: int | None = None
    seconds_per_step: float | None = None
    losses: dict[str, Loss] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    checkpoint: str | None = None
    resumed_at: int | None = None
    stopped: bool = False
    success: bool = False
    non_finite: str = ""
    """The first loss that was no number, and where."""
    lines: int = 0
    memory_line: int = 0
    """The number of the last line about exhausted GPU memory; 0 for none."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))

    def read(self, raw: bytes) -> Kind:
        """Take one line and say what it was; never fails, whatever the bytes."""
        line = raw[: 4 * LONGEST].decode("utf-8", errors="replace").rstrip()[:LONGEST]
        self.lines += 1
        self.tail.append(line)
        if _MEMORY.search(line):
            self.memory_line = self.lines
        if self._read_progress(line):
            return "progress"
        return "notable" if self._read_notable(line) else "other"

    @property
    def memory_ended_it(self) -> bool:
        """Whether the last lines speak of GPU memory: an exhaustion survived long ago does not."""
        return self.memory_line > self.lines - TAIL and self.memory_line > 0

    def failed_checks(self) -> tuple[Check, ...]:
        """List the checks that are neither ok nor skipped."""
        return tuple(
            check for check in self.checks.values() if check.outcome not in ("ok", "skipped")
        )

    def _read_progress(self, line: str) -> bool:
        found = self.patterns.progress.search(line)
        step = _integer(found["step"]) if found else None
        if found is None or step is None:
            return False
        groups = found.groupdict()
        total, seconds = _integer(groups.get("total")), _number(groups.get("seconds"))
        self.step = step
        self.total = self.total if total is None else total
        self.seconds_per_step = seconds if seconds is not None and seconds > 0 else None
        self._read_losses(groups.get("losses") or line)
        return True

    def _read_losses(self, text: str) -> None:
        for found in self.patterns.loss.finditer(text):
            name, value = found["name"], _number(found["value"])
            if value is None:
                continue
            if name in self.losses:
                self.losses[name].add(value)
            else:
                self.losses[name] = Loss(value, value, value)
            if not math.isfinite(value) and not self.non_finite:
                self.non_finite = f"{name} was {value} at step {self.step}"

    def _read_notable(self, line: str) -> bool:
        readers = {
            "check": self._read_check,
            "checkpoint": self._read_checkpoint,
            "resumed": self._read_resumed,
            "stopped": self._read_stopped,
            "success": self._read_success,
        }
        for name, reader in readers.items():
            pattern: re.Pattern[str] | None = getattr(self.patterns, name)
            found = pattern.search(line) if pattern else None
            if found:
                reader(found.groupdict())
                return True
        return False

    def _read_check(self, groups: dict[str, str | None]) -> None:
        name = groups["name"] or ""
        self.checks[name] = Check(name, groups["outcome"] or "", groups.get("words") or "")

    def _read_checkpoint(self, groups: dict[str, str | None]) -> None:
        self.checkpoint = groups["path"]

    def _read_resumed(self, groups: dict[str, str | None]) -> None:
        self.resumed_at = self.step = _integer(groups["step"])
        self.checkpoint = groups.get("path") or self.checkpoint

    def _read_stopped(self, groups: dict[str, str | None]) -> None:
        self.stopped = True
        step = _integer(groups.get("step"))
        self.step = self.step if step is None else step

    def _read_success(self, _groups: dict[str, str | None]) -> None:
        self.success = True


def _integer(text: str | None) -> int | None:
    """A step; absurd ones are no steps (and would not fit a JSON reader's integer)."""
    digits = text or ""
    return int(digits) if re.fullmatch(r"[0-9]{1,15}", digits) else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


class Pace:
    """Speed, from what the log says of a step's time, else from when its lines came."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=20)
        self._last: tuple[int, float] | None = None

    def add(self, step: int, seconds_per_step: float | None, at: float) -> None:
        """Take a line of progress that came ``at`` (monotonic seconds)."""
        if self._last and seconds_per_step is None and step > self._last[0]:
            seconds_per_step = (at - self._last[1]) / (step - self._last[0])
        if seconds_per_step is not None and math.isfinite(seconds_per_step):
            self._recent.append(seconds_per_step)
        self._last = (step, at)

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the recent steps, None before there is one."""
        return sorted(self._recent)[len(self._recent) // 2] if self._recent else None

    def left_s(self, step: int, total: int | None) -> float | None:
        """Estimate the seconds to the last step."""
        pace = self.seconds_per_step
        return None if pace is None or total is None else max(0, total - step) * pace
