"""Progress, as data: long work takes one ``on_event`` callable, ``report`` makes it text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple


class Event(NamedTuple):
    """Something that happened in long work."""

    kind: Literal["step", "log", "bytes", "count", "metric", "warning", "done"]
    """``step``: a new piece of work begins. ``log``: a line of a tool. ``bytes``: ``done`` of
    ``total`` bytes. ``count``: ``done`` of ``total`` commands of a step. ``metric``: training
    numbers in ``numbers``. ``done``: the step ended."""
    text: str
    done: int = 0
    total: int = 0
    """0 where the total is not known."""
    numbers: tuple[tuple[str, float], ...] = ()


OnEvent = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Discard an event: the ``on_event`` of a caller that shows nothing."""
