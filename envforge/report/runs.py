"""Runs in a list."""

from __future__ import annotations

from collections.abc import Iterable

from envforge.report.duration import duration_text
from envforge.report.listing import Row, rows_text
from envforge.training.runs import Seen


def runs_text(runs: Iterable[Seen]) -> str:
    """One line a run: where, what, how far, how it stands."""
    rows = [_row(seen) for seen in runs]
    return rows_text(rows) if rows else "no runs"


def _row(seen: Seen) -> Row:
    record = seen.record
    last = record.attempts[-1] if record.attempts else None
    steps = "" if last is None or last.last_iteration is None else str(last.last_iteration)
    if last is not None and last.total_iterations:
        steps = f"{steps or 0}/{last.total_iterations}"
    return {
        "run": str(seen.folder),
        "recipe": record.recipe,
        "state": _state(seen),
        "steps": steps,
        "attempts": str(len(record.attempts)),
        "last": (last.reason or "") if last else "",
    }


def _state(seen: Seen) -> str:
    """What is true now: a record that says RUNNING while nobody is at work was left by a kill."""
    if seen.held:
        last = seen.record.attempts[-1:]
        pace = last[0].seconds_per_iteration if last else None
        if not last or not pace or not last[0].total_iterations:
            return "running"
        left = last[0].total_iterations - (last[0].last_iteration or 0)
        return f"running, {duration_text(max(0, left) * pace)} left"
    return "killed" if seen.record.state == "RUNNING" else seen.record.state.lower()
