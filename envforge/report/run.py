"""A run as one sees it: progress while it lasts, and what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

import click

from envforge.events import Event, OnEvent, ignore
from envforge.report.duration import duration_text
from envforge.training.record import LOG, RECORD, Attempt, RunRecord

_PLAIN_INTERVAL_S = 5.0
_SPEED = ("seconds_per_step", "left_s", "images_per_s", "memory_mib")


@contextmanager
def run_progress(*, quiet: bool, verbose: bool, stream: TextIO | None = None) -> Iterator[OnEvent]:
    """Give an ``on_event`` that shows a run on stderr: a live bar on a terminal, else lines.

    ``verbose`` adds the training's own lines that say nothing envforge understands.
    """
    target = stream or sys.stderr
    if quiet:
        yield ignore
    elif target.isatty():
        with _live(target, verbose=verbose) as on_event:
            yield on_event
    else:
        yield _Plain(target, verbose=verbose)


class _Plain:
    """Lines: of progress the first, the last, and one every few seconds between them."""

    def __init__(
        self, stream: TextIO, *, verbose: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._verbose = verbose
        self._clock = clock
        self._due = float("-inf")

    def __call__(self, event: Event) -> None:
        if event.kind == "metric":
            self._show_metric(event)
        elif event.kind == "warning":
            self._say(f"!! {event.text}")
        elif event.kind in ("step", "done") or self._verbose:
            self._say(event.text)

    def _show_metric(self, event: Event) -> None:
        now = self._clock()
        if self._verbose or now >= self._due or event.done == event.total:
            self._due = now + _PLAIN_INTERVAL_S
            self._say(f"step {_place(event)}  {metric_text(event)}")

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _place(event: Event) -> str:
    return f"{event.done}/{event.total}" if event.total else str(event.done)


def metric_text(event: Event) -> str:
    """``loss_g 1.2345  loss_d 0.6789  8.1 steps/s  34 s left``."""
    return "  ".join(part for part in (losses_text(event), pace_text(event)) if part)


def losses_text(event: Event) -> str:
    """``loss_g 1.2345  loss_d 0.6789``."""
    return "  ".join(f"{name} {value:.4f}" for name, value in event.numbers if name not in _SPEED)


def pace_text(event: Event) -> str:
    """``8.1 steps/s  32 images/s  34 s left  1692 MiB``, as far as it is known."""
    words: dict[str, Callable[[float], str]] = {
        "seconds_per_step": speed_text,
        "images_per_s": lambda value: f"{value:.1f} images/s",
        "left_s": lambda value: f"{duration_text(value)} left",
        "memory_mib": lambda value: f"{value:.0f} MiB",
    }
    known = dict(event.numbers)
    return "  ".join(text(known[name]) for name, text in words.items() if name in known)


def speed_text(seconds_per_step: float) -> str:
    """Steps a second, or seconds a step where it is slower than that."""
    if seconds_per_step >= 1:
        return f"{seconds_per_step:.1f} s/step"
    return f"{1 / max(seconds_per_step, 1e-6):.1f} steps/s"


@contextmanager
def _live(stream: TextIO, *, verbose: bool) -> Iterator[OnEvent]:
    """What has happened stands above; one line below moves."""
    from rich.console import Console  # noqa: PLC0415 -- only where something is shown live
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    console = Console(file=stream, highlight=False)
    columns = (
        TextColumn("{task.fields[place]}", markup=False),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[pace]}", markup=False),
        # what does not fit is cut: the losses stand in the log, the time left only here
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
    )
    shown = Progress(*columns, console=console, transient=True, expand=True, refresh_per_second=4)
    with shown:
        task = shown.add_task("", total=None, place="", pace="")

        def on_event(event: Event) -> None:
            if event.kind == "metric":
                shown.update(
                    task,
                    total=event.total or None,
                    completed=event.done,
                    description=losses_text(event),
                    place=_place(event),
                    pace=pace_text(event),
                )
            elif event.kind != "log" or verbose:
                style = "yellow" if event.kind == "warning" else None
                console.print(event.text, style=style, markup=False)

        yield on_event


def outcome_text(record: RunRecord) -> str:
    """What came of a run that succeeded, and where it lies."""
    last = record.last
    lines = [click.style(_headline(record), bold=True)]
    lines += _check_lines(record)
    lines += [f"  ! {fact}" for fact in last.because]
    trained = next((each for each in reversed(record.attempts) if each.losses), last)
    lines += [f"  {name:<11} {text}" for name, text in _loss_rows(trained)]
    lines.append(f"  {'torch':<11} {record.torch} of {record.image or record.python}")
    lines.append(f"  {'run':<11} {record.run_dir}")
    lines.append(f"  {'':<11} {'  '.join(_files(record))}")
    return "\n".join(lines)


def _headline(record: RunRecord) -> str:
    last = record.last
    parts = [f"{record.recipe} succeeded"]
    if last.last_iteration is not None:
        parts.append(f"{last.last_iteration} steps")
    if last.seconds_per_iteration is not None:
        parts.append(speed_text(last.seconds_per_iteration))
    parts.append(duration_text(sum(map(seconds_of, record.attempts))))
    if len(record.attempts) > 1:
        parts.append(f"{len(record.attempts)} attempts")
    return ", ".join(parts)


def seconds_of(attempt: Attempt) -> float:
    """How long an attempt lasted; one whose end nobody saw counts as nothing."""
    begun, ended = (
        datetime.fromisoformat(text.removesuffix("Z"))
        for text in (attempt.started, attempt.ended or attempt.started)
    )
    return (ended - begun).total_seconds()


def _check_lines(record: RunRecord) -> list[str]:
    outcomes = [check.outcome for check in record.checks]
    counts = [f"{outcomes.count(each)} {each}" for each in dict.fromkeys(outcomes)]
    return [f"  {'checks':<11} {', '.join(counts)}"] if counts else []


def _loss_rows(attempt: Attempt) -> Iterator[tuple[str, str]]:
    for name, loss in sorted(attempt.losses.items()):
        numbers = [
            "not a number" if value is None else f"{value:.4f}"
            for value in (loss.first, loss.last, loss.least)
        ]
        yield name, f"{numbers[0]} -> {numbers[1]} (least {numbers[2]})"


def _files(record: RunRecord) -> list[str]:
    names = ["report.html", RECORD, LOG, record.last.checkpoint, *record.show]
    return [name for name in names if name and (Path(record.run_dir) / name).exists()]
