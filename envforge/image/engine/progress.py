"""BuildKit's plain progress, read line by line into events and into the story of a failure.

``#5 [torch 2/3] RUN make`` opens a step, ``#5 0.41 text`` is a line of it, then one of ``DONE``,
``CACHED``, ``ERROR`` and ``CANCELED`` closes it. What follows a failure has no number.
"""

from __future__ import annotations

import collections
import re
import textwrap
from typing import NamedTuple

from envforge.errors import BuildFailed
from envforge.events import Event, OnEvent
from envforge.image.engine.causes import cause_in

_LINE = re.compile(r"#(\d+) (.*)\Z")
_HEADER = re.compile(r"\[(?:(?P<stage>[^\]\s]+) +)?(?P<at>\d+)/(?P<of>\d+)\] (?P<instruction>.*)\Z")
_OUTPUT = re.compile(r"\d+\.\d+ ?(.*)\Z")
_COUNTED = re.compile(r"\[(\d+)/(\d+)\] (.*)\Z")
"""A line of ninja: which of its commands this is."""
_CLOSED = re.compile(r"(DONE|CACHED|CANCELED|ERROR)\b[: ]*(.*)\Z")
_TAIL_LINES = 15
_END_LINES = 40
_RULE = "------"
_SHOWN = 200


class Step(NamedTuple):
    """One instruction of a Dockerfile as BuildKit numbers it."""

    vertex: int
    number: str
    """``torch 2/3``: stage, place and count; empty for BuildKit's own work."""
    instruction: str

    def __str__(self) -> str:
        words = textwrap.shorten(self.instruction, _SHOWN, placeholder=" ...")
        return f"step {self.number}: {words}" if self.number else words


class Progress:
    """The state of one build, as told by its output so far."""

    def __init__(self, on_event: OnEvent) -> None:
        self.failed: Step | None = None
        self.current: Step | None = None
        self._on_event = on_event
        self._over = False
        self._steps: dict[int, Step] = {}
        self._tails: dict[int, collections.deque[str]] = {}
        self._causes: dict[int, tuple[type[BuildFailed], str]] = {}
        self._end: collections.deque[str] = collections.deque(maxlen=_END_LINES)

    def read(self, line: str) -> None:
        """Take one line of ``docker build --progress=plain``."""
        if line.strip():
            self._end.append(line)
        # After a failure the summary between two rules repeats lines already read.
        self._over = self._over or (line == _RULE and self.failed is not None)
        match = _LINE.match(line)
        if not match or self._over:
            return
        vertex, text = int(match[1]), match[2]
        if vertex not in self._steps:
            self._open(vertex, text)
        elif not text.startswith("sha256:") and not _HEADER.match(text):
            self._go_on(self._steps[vertex], text)

    def end(self) -> tuple[str, ...]:
        """Return the last lines of the whole output."""
        return tuple(self._end)

    def tail_of(self, step: Step | None) -> tuple[str, ...]:
        """Return the last lines of a step and its error, else of everything."""
        tail = tuple(self._tails.get(step.vertex, ())) if step else ()
        unnumbered = [line for line in self._end if not _LINE.match(line)]
        closing = tuple(unnumbered[-1:]) if not tail or self.failed is None else ()
        return tail + closing or self.end()[-_TAIL_LINES:]

    def cause_of(self, step: Step | None) -> tuple[type[BuildFailed] | None, tuple[str, ...]]:
        """Return what a failed step met the end of, None where nothing says it, and its story."""
        tail = self.tail_of(step)
        told = self._causes.get(step.vertex) if step else None
        if told is None:
            return next(filter(None, map(cause_in, tail)), None), tail
        cause, line = told
        return cause, tail if line in tail else (line, *tail)

    def _open(self, vertex: int, text: str) -> None:
        header = _HEADER.match(text)
        if header:
            number = f"{header['stage'] or ''} {header['at']}/{header['of']}".strip()
            step = Step(vertex, number, header["instruction"])
            self.current = step
            self._on_event(Event("step", text, int(header["at"]), int(header["of"])))
        else:
            step = Step(vertex, "", text)
        self._remember(step)

    def _remember(self, step: Step) -> None:
        self._steps[step.vertex] = step
        self._tails[step.vertex] = collections.deque(maxlen=_TAIL_LINES)

    def _go_on(self, step: Step, text: str) -> None:
        # Output without a last line end has the closing line glued to it.
        text, glued = _unglue(text, step.vertex)
        if glued:
            self._go_on(step, text)
            text = glued
        output, closed = _OUTPUT.match(text), _CLOSED.match(text)
        if closed:
            self._close(step, closed[1], closed[2])
        elif output:
            self._say(step, output[1])
        elif step.number:
            # Progress of BuildKit itself (a COPY's bytes): shown, not part of a failure's story.
            self._on_event(Event("log", text))

    def _say(self, step: Step, line: str) -> None:
        """Take a line that the step's own command wrote."""
        self._tails[step.vertex].append(line)
        cause = cause_in(line)
        if cause is not None:
            self._causes.setdefault(step.vertex, (cause, line))
        self._on_event(_said(line))

    def _close(self, step: Step, word: str, rest: str) -> None:
        if word == "ERROR":
            self._fail(step, rest)
        elif step.number:
            self._finish(step, cached=word == "CACHED")

    def _fail(self, step: Step, rest: str) -> None:
        self.failed = step
        self._tails[step.vertex].append(rest)

    def _finish(self, step: Step, *, cached: bool) -> None:
        note = " (cached)" if cached else ""
        self._on_event(Event("done", f"[{step.number}] {step.instruction}{note}"))


def _said(text: str) -> Event:
    counted = _COUNTED.match(text)
    if counted is None:
        return Event("log", text)
    return Event("count", counted[3], int(counted[1]), int(counted[2]))


def _unglue(text: str, vertex: int) -> tuple[str, str]:
    match = re.search(rf"#{vertex} ((?:DONE \d+\.\d+s|ERROR: .*)\Z)", text)
    return (text[: match.start()], match[1]) if match and match.start() else (text, "")
