"""Time, as an argument."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """What a run needs to know of time."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""


class SystemClock:
    """This machine's time."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        """Return seconds that only ever grow."""
        return time.monotonic()


def stamp(moment: datetime) -> str:
    """``2026-11-22T15:35:00Z``, as it stands in a run's record."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
