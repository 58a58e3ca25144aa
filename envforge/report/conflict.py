"""Why nothing fits and what could give way: as lines and as JSON."""

from __future__ import annotations

from typing import Any

import click

from envforge.report import sentences
from envforge.report.groups import Group, group_json, groups
from envforge.resolver.model import Conflict


def conflict_json(conflict: Conflict) -> dict[str, Any]:
    """The machine-readable form of an unsatisfiable request."""
    toolkits = conflict.toolkits
    return {
        "rules": [group_json(group) for group in groups(conflict.rules)],
        "relaxations": [
            {"drop": item.drop, "gives": sentences.relaxation_text(item, conflict.request)}
            for item in conflict.relaxations
        ],
        "toolkits": {"compiling": list(toolkits.compiling), "refusing": list(toolkits.refusing)}
        if toolkits
        else None,
        "considered": conflict.considered,
    }


def conflict_lines(conflict: Conflict) -> list[str]:
    """The rules with their sources, then what could give way."""
    lines = []
    if not conflict.rules:
        lines.append("  no release, platform or build in the database has this combination")
    for group in groups(conflict.rules):
        lines.append(f"  - {group.text}")
        lines.append(f"    {origin_line(group)}")
    if conflict.toolkits is not None:
        lines += [
            f"  - {line}" for line in sentences.toolkit_lines(conflict.toolkits, conflict.request)
        ]
    if conflict.relaxations:
        lines.append("what could give way:")
        for relaxation in conflict.relaxations:
            lines.append(f"  {sentences.relaxation_text(relaxation, conflict.request)}")
    return lines


def origin_line(group: Group) -> str:
    """Id, evidence and source of a rule; of several where to read each."""
    several = f"{len(group.sources)} sources; each rule with its own: --json"
    facts = [group.id, group.evidence, several if len(group.rules) > 1 else group.source]
    return click.style(" · ".join(facts), dim=True)
