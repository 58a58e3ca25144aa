"""Progress of long work: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from envforge.events import Event, OnEvent, ignore

_PLAIN_INTERVAL_S = 10.0


@contextmanager
def progress(*, quiet: bool, stream: TextIO | None = None) -> Iterator[OnEvent]:
    """Give an ``on_event`` that shows progress on stderr for as long as the block runs."""
    target = stream or sys.stderr
    if quiet:
        yield ignore
    elif target.isatty():
        with _live(target) as on_event:
            yield on_event
    else:
        yield _Plain(target)


class _Plain:
    """One line a step; of bytes one line every ten seconds; a tool's own lines stay in its log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._spoken = 0.0

    def __call__(self, event: Event) -> None:
        if event.kind in ("step", "done", "warning"):
            mark = {"step": "->", "done": "ok", "warning": "!!"}[event.kind]
            self._say(f"{mark} {event.text}")
        elif event.kind == "bytes" and time.monotonic() - self._spoken > _PLAIN_INTERVAL_S:
            self._spoken = time.monotonic()
            self._say(f".. {event.text} {_share(event)}")

    def _say(self, line: str) -> None:
        print(shorten(line), file=self._stream, flush=True)


def shorten(text: str, width: int = 110) -> str:
    """Fold a command of many lines into one line that fits; the log has it whole."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _share(event: Event) -> str:
    done = f"{event.done / 1e6:.0f} MB"
    return f"{done} of {event.total / 1e6:.0f} MB" if event.total else done


@contextmanager
def _live(stream: TextIO) -> Iterator[OnEvent]:
    """Finished steps stand; below them a spinner with the newest line of the running one."""
    from rich.console import Console  # noqa: PLC0415 -- only where something is shown live
    from rich.markup import escape  # noqa: PLC0415

    console = Console(file=stream, highlight=False)
    step = ""
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
            else:
                status.update(f"{escape(step)} [dim]{escape(event.text[-100:])}[/]")

        yield on_event
