"""Why this and not that: the answer of ``envforge explain``, as text and as JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

from envforge.report import sentences
from envforge.report.conflict import origin_line
from envforge.report.groups import Group, group_json, groups
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
            {**group_json(group), "branches": branches}
            for group, branches in _most_first(explanation.rejections)
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
    for group, branches in _most_first(explanation.rejections):
        lines.append(f"  {branches:4}  {group.text}")
        lines.append(f"        {origin_line(group)}")
    return "\n".join(lines)


def _most_first(rejections: tuple[Rejection, ...]) -> list[tuple[Group, int]]:
    """Groups of the rules, each with the branches of the search that broke one of them."""
    counts = {rejection.rule.id: rejection.branches for rejection in rejections}
    found = [
        (group, sum(counts[rule.id] for rule in group.rules))
        for group in groups(rejection.rule for rejection in rejections)
    ]
    return sorted(found, key=lambda pair: -pair[1])
