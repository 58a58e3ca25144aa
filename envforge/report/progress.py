"""Progress of long work: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from envforge.events import Event, OnEvent, ignore
from envforge.report.duration import duration_text

_PLAIN_INTERVAL_S = 10.0
_WINDOW_S = 300.0
"""How far back an estimate looks: the pace of a compiler's cache says nothing of the rest."""


@contextmanager
def progress(
    *, quiet: bool = False, verbose: bool = False, stream: TextIO | None = None
) -> Iterator[OnEvent]:
    """Give an ``on_event`` that shows progress on stderr for as long as the block runs.

    ``verbose`` lets the lines of the tools at work stand, too.
    """
    target = stream or sys.stderr
    if quiet:
        yield ignore
    elif target.isatty():
        with _live(target, verbose=verbose) as on_event:
            yield on_event
    else:
        yield _Plain(target, verbose=verbose)


class Estimate:
    """How long counted work will still take, from its pace of the last minutes."""

    def __init__(self) -> None:
        self._seen: collections.deque[tuple[float, int]] = collections.deque()

    def left_s(self, done: int, total: int, now: float) -> float | None:
        """Take one more count; None while too little was seen."""
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # other work: it counts from one again
        self._seen.append((now, done))
        while now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        since, first = self._seen[0]
        return (total - done) * (now - since) / (done - first) if done > first else None


def count_text(event: Event, left_s: float | None) -> str:
    """``271 of 1667, about 65 min 10 s left: Building CXX object …``."""
    left = "" if left_s is None else f", about {duration_text(left_s)} left"
    return f"{event.done} of {event.total}{left}: {event.text}"


class _Plain:
    """One line a step, of bytes and counts one after ten silent seconds.

    ``verbose``: a tool's own lines, whole, too.
    """

    def __init__(self, stream: TextIO, *, verbose: bool) -> None:
        self._stream = stream
        self._verbose = verbose
        self._spoken = float("-inf")
        self._estimate = Estimate()

    def __call__(self, event: Event) -> None:
        if event.kind in ("step", "done", "warning"):
            mark = {"step": "->", "done": "ok", "warning": "!!"}[event.kind]
            self._say(f"{mark} {event.text}")
        elif event.kind == "log" and self._verbose:
            self._print(f"   {event.text}")
        elif event.kind == "bytes" and time.monotonic() - self._spoken > _PLAIN_INTERVAL_S:
            self._say(f".. {event.text} {_share(event)}")
        elif event.kind == "count":
            left_s = self._estimate.left_s(event.done, event.total, time.monotonic())
            if time.monotonic() - self._spoken > _PLAIN_INTERVAL_S:
                self._say(f".. {count_text(event, left_s)}")

    def _say(self, line: str) -> None:
        self._spoken = time.monotonic()
        self._print(shorten(line))

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def shorten(text: str, width: int = 110) -> str:
    """Fold a command of many lines into one line that fits; the log has it whole."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _share(event: Event) -> str:
    done = f"{event.done / 1e6:.0f} MB"
    return f"{done} of {event.total / 1e6:.0f} MB" if event.total else done


@contextmanager
def _live(stream: TextIO, *, verbose: bool) -> Iterator[OnEvent]:
    """Finished steps stand; below them a spinner with the newest line of the running one."""
    from rich.console import Console  # noqa: PLC0415 -- only where something is shown live
    from rich.markup import escape  # noqa: PLC0415

    console = Console(file=stream, highlight=False)
    step, estimate = "", Estimate()
    with console.status("") as status:

        def on_event(event: Event) -> None:
            nonlocal step
            if event.kind == "step":
                step = shorten(event.text, console.width - 4)
                console.print(f"[bold]→[/] {escape(step)}")
                status.update(escape(step))
            elif event.kind == "done":
                console.print(f"[green]✓[/] {escape(shorten(event.text, console.width - 4))}")
            elif event.kind == "warning":
                console.print(f"[yellow]![/] {escape(event.text)}")
            elif event.kind == "bytes":
                status.update(escape(f"{event.text} {_share(event)}"))
            elif event.kind == "count":
                left_s = estimate.left_s(event.done, event.total, time.monotonic())
                status.update(escape(shorten(count_text(event, left_s), console.width - 4)))
            elif verbose:
                console.print(f"  [dim]{escape(event.text)}[/]")
            else:
                status.update(f"{escape(step)} [dim]{escape(event.text[-100:])}[/]")

        yield on_event
