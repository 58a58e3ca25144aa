"""Why this and not that: the answer of ``envforge explain``, as text and as JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

from envforge.report import sentences
from envforge.resolver.model import Rejection, Request, Resolution

SCHEMA = "envforge.explain/1"


class Explanation(NamedTuple):
    """A request that can be satisfied, and every rule that left other branches behind."""

    request: Request
    resolution: Resolution
    rejections: tuple[Rejection, ...]


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """The document of schema ``envforge.explain/1``."""
    return {
        "schema": SCHEMA,
        "resolution": explanation.resolution,
        "rejections": [
            {
                "id": rejection.rule.id,
                "text": sentences.rule_text(rejection.rule),
                "source": rejection.rule.source,
                "evidence": rejection.rule.evidence,
                "branches": rejection.branches,
            }
            for rejection in explanation.rejections
        ],
    }


def explanation_text(explanation: Explanation) -> str:
    """What was chosen, its source, and what was left behind for which rule."""
    chosen = explanation.resolution
    card = sentences.card_flag(explanation.request)
    lines = [
        click.style(sentences.summary(chosen), bold=True),
        f"  {chosen.evidence} · {chosen.source}",
        f"  $ {sentences.build_command(chosen, card)}",
    ]
    if explanation.rejections:
        lines.append("left behind on the way (branches of the search):")
    for rejection in explanation.rejections:
        lines.append(f"  {rejection.branches:4}  {sentences.rule_text(rejection.rule)}")
        rule = rejection.rule
        lines.append(click.style(f"        {rule.id} · {rule.evidence} · {rule.source}", dim=True))
    return "\n".join(lines)
