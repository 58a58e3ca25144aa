"""Small programs that run where the training will: they look, make examples, compile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from envforge.training.job import Mounted


class Errand(NamedTuple):
    """What to run, as the place of execution sees it. No network; it is waited for."""

    argv: tuple[str, ...]
    mounts: tuple[Mounted, ...] = ()
    environment: Mapping[str, str] = {}
    workdir: str | None = None
    cards: bool = False
    """Whether it needs the cards."""
