"""An error as a person or a program reads it: what, because, hint."""

from __future__ import annotations

from typing import Any

import click

from envforge.errors import EnvforgeError, Unsatisfiable
from envforge.report import sentences
from envforge.resolver.model import Conflict


def error_json(error: EnvforgeError) -> dict[str, Any]:
    """``{"error": {"code", "message", ...}}``; an unsatisfiable request adds rules and ways out."""
    facts = error.facts()
    if isinstance(error, Unsatisfiable):
        facts.update(sentences.conflict_json(error.conflict))
    return {"error": facts}


def error_text(error: EnvforgeError) -> str:
    """Several lines for stderr."""
    lines = [f"{click.style('error:', fg='red', bold=True)} {error.code}: {error.what}"]
    if isinstance(error, Unsatisfiable):
        lines += _conflict_lines(error.conflict)
    lines += [f"  {line}" for fact in error.because for line in fact.splitlines()]
    if error.hint:
        lines.append(f"{click.style('hint:', fg='cyan')} {error.hint}")
    return "\n".join(lines)


def _conflict_lines(conflict: Conflict) -> list[str]:
    lines = []
    if not conflict.rules:
        lines.append("  no release, platform or build in the database has this combination")
    for rule in conflict.rules:
        lines.append(f"  - {sentences.rule_text(rule)}")
        lines.append(click.style(f"    {rule.id} · {rule.evidence} · {rule.source}", dim=True))
    if conflict.toolkits is not None:
        lines += [
            f"  - {line}" for line in sentences.toolkit_lines(conflict.toolkits, conflict.request)
        ]
    if conflict.relaxations:
        lines.append("what could give way:")
        for relaxation in conflict.relaxations:
            lines.append(f"  {sentences.relaxation_text(relaxation, conflict.request)}")
    return lines
