"""An error as a person or a program reads it: what, because, hint."""

from __future__ import annotations

from typing import Any

import click

from envforge.errors import EnvforgeError, Unsatisfiable
from envforge.report.conflict import conflict_json, conflict_lines


def error_json(error: EnvforgeError) -> dict[str, Any]:
    """``{"error": {"code", "message", ...}}``; an unsatisfiable request adds rules and ways out."""
    facts = error.facts()
    if isinstance(error, Unsatisfiable):
        facts.update(conflict_json(error.conflict))
    return {"error": facts}


def error_text(error: EnvforgeError) -> str:
    """Several lines for stderr."""
    lines = [f"{click.style('error:', fg='red', bold=True)} {error.code}: {error.what}"]
    if isinstance(error, Unsatisfiable):
        lines += conflict_lines(error.conflict)
    lines += [f"  {line}" for fact in error.because for line in fact.splitlines()]
    if error.hint:
        lines.append(f"{click.style('hint:', fg='cyan')} {error.hint}")
    return "\n".join(lines)
