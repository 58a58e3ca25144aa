"""Read a training's output: where it is, what it loses, how fast it goes, what it claims."""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, NamedTuple

from envforge.recipes.ladder import Explosion
from envforge.training.job import LogPatterns
from envforge.training.messages import Death, find_death, weightiest

LONGEST = 16 * 1024
"""Characters of a line that are looked at; the log file has them all."""
TAIL = 40

Kind = Literal["progress", "notable", "other"]


_PEAK = re.compile(r"envforge-memory: .*reserved (?P<mib>\d+) MiB")
"""What ``vram_program.py`` says at the end: torch's own count, better than any other."""
_DEATHS = 64
"""Words of death kept since the last progress; a loop that prints them for ever adds nothing."""


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
    parts: tuple[str, ...] = ()
    """A checkpoint's files, with ``{number}``: for a log that says only the number."""
    explosion: Explosion | None = None
    usual_before: float | None = None
    """The median of the watched loss in the attempts that made the weights it goes on with."""
    total: int | None = None
    step: int | None = None
    seconds_per_step: float | None = None
    memory_mib: float | None = None
    """The most that the training says it has held on the card."""
    losses: dict[str, Loss] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    checkpoint: str | None = None
    resumed_at: int | None = None
    """Where it went on; of a log that counts epochs 0 for a fresh start, too."""
    stopped: bool = False
    success: bool = False
    bad_value: str = ""
    """The first loss that was no number or had exploded, and where."""
    good_step: int | None = None
    """The last step before that, and before a loss that may turn out to be exploding."""
    lines: int = 0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    _epoch_items: int | None = None
    _deaths: deque[Death] = field(default_factory=lambda: deque(maxlen=_DEATHS))
    _watched: deque[float] = field(default_factory=deque)
    _high: int = 0

    def read(self, raw: bytes) -> Kind:
        """Take one line and say what it was; never fails, whatever the bytes."""
        line = raw[: 4 * LONGEST].decode("utf-8", errors="replace").rstrip()[:LONGEST]
        self.lines += 1
        self.tail.append(line)
        if self._read_progress(line):
            self._deaths.clear()  # whatever was said before, it was survived
            return "progress"
        if peak := _PEAK.match(line):
            self.memory_mib = float(peak["mib"])
            return "notable"
        if death := find_death(line):
            self._deaths.append(death)
        return "notable" if self._read_notable(line) else "other"

    @property
    def death(self) -> Death | None:
        """The words it died with, since its last line of progress."""
        return weightiest(list(self._deaths))

    @property
    def usual(self) -> float | None:
        """The median that the watched loss of whoever goes on is first compared with."""
        enough = self.explosion.after if self.explosion and self.usual_before is not None else 1
        return median(self._watched) if len(self._watched) >= enough else self.usual_before

    def failed_checks(self) -> tuple[Check, ...]:
        """List the checks that are neither ok nor skipped."""
        return tuple(
            check for check in self.checks.values() if check.outcome not in ("ok", "skipped")
        )

    def _read_progress(self, line: str) -> bool:
        found = self.patterns.progress.search(line)
        groups = found.groupdict() if found else {}
        step = self._step_of(groups) if found else None
        if step is None:
            return False
        epoch = _integer(groups.get("epoch"))
        if epoch is not None:  # its steps are items, counted anew in each epoch
            step += self._enter(epoch)
        total, seconds = _integer(groups.get("total")), _number(groups.get("seconds"))
        self.step = step
        self.total = self.total if total is None else total
        self.seconds_per_step = seconds if seconds is not None and seconds > 0 else None
        memory = _number(groups.get("memory"))
        self.memory_mib = max(memory, self.memory_mib or 0) if memory else self.memory_mib
        self._read_losses(groups.get("losses") or line)
        if not self.bad_value and not self._high:
            self.good_step = step
        return True

    def _enter(self, epoch: int) -> int:
        """Count the steps before an epoch; the first one an attempt is in is where it went on."""
        before = (epoch - 1) * (self._epoch_items or 0)
        if self.resumed_at is None and self.step is None:
            self.resumed_at = before
        return before

    def _step_of(self, groups: dict[str, str | None]) -> int | None:
        """Read the step; a line of progress that has no number is one step more."""
        return _integer(groups["step"]) if "step" in groups else (self.step or 0) + 1

    def _read_losses(self, text: str) -> None:
        if self.patterns.loss is None:
            return
        for found in self.patterns.loss.finditer(text):
            name, value = found["name"], _number(found["value"])
            if value is None:
                continue
            if name in self.losses:
                self.losses[name].add(value)
            else:
                self.losses[name] = Loss(value, value, value)
            self._judge(name, value, _number(found.groupdict().get("average")))

    def _judge(self, name: str, value: float, average: float | None) -> None:
        """A median hides a value that was no number; the average since the start never does."""
        if self.bad_value:
            return
        if not math.isfinite(value):
            self.bad_value = f"{name} was {value} at step {self.step}"
        elif average is not None and not math.isfinite(average):
            self.bad_value = f"the average of {name} was {average} at step {self.step}"
        elif self.explosion and name == self.explosion.loss:
            self._judge_size(name, abs(value), self.explosion)

    def _judge_size(self, name: str, size: float, rule: Explosion) -> None:
        """Compare with the running median, which three wild values in a row hardly move."""
        usual = median(self._watched) if len(self._watched) >= rule.after else self.usual_before
        self._high = self._high + 1 if usual is not None and size > rule.times_median * usual else 0
        if self._high >= rule.lines:
            self.bad_value = (
                f"{name} was {size:g} at step {self.step}, its median before was {usual:g}"
            )
        self._watched.append(size)
        if len(self._watched) > 2 * rule.after:
            self._watched.popleft()

    def _read_notable(self, line: str) -> bool:
        readers = {
            "epoch_size": self._read_epoch_size,
            "epoch_end": self._read_epoch_end,
            "check": self._read_check,
            "checkpoint": self._read_checkpoint,
            "resumed": self._read_resumed,
            "stopped": self._read_stopped,
            "success": self._read_success,
        }
        notable = False
        for name, reader in readers.items():
            pattern: re.Pattern[str] | None = getattr(self.patterns, name)
            found = pattern.search(line) if pattern else None
            if found:
                reader(found.groupdict())
                notable = True
        return notable

    def _read_check(self, groups: dict[str, str | None]) -> None:
        name = groups["name"] or ""
        self.checks[name] = Check(name, groups["outcome"] or "", groups.get("words") or "")

    def _read_epoch_size(self, groups: dict[str, str | None]) -> None:
        self._epoch_items = _integer(groups["items"])

    def _read_epoch_end(self, groups: dict[str, str | None]) -> None:
        epoch, epochs = _integer(groups["epoch"]), _integer(groups.get("epochs"))
        if epoch is not None and self._epoch_items:
            self.step = self._enter(epoch) + self._epoch_items
        if epochs is not None and self._epoch_items:
            self.total = epochs * self._epoch_items

    def _read_checkpoint(self, groups: dict[str, str | None]) -> None:
        number = groups.get("number")
        if number is not None and self.parts:
            self.checkpoint = self.parts[0].replace("{number}", number)
        self.checkpoint = groups.get("path") or self.checkpoint

    def _read_resumed(self, groups: dict[str, str | None]) -> None:
        step = _integer(groups.get("step"))
        self.resumed_at = self.step = self.step if step is None else step
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
