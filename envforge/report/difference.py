"""The answer of ``envforge inspect --diff``, as text and as JSON."""

from __future__ import annotations

from typing import Any

import click

from envforge.binaries.difference import CodeDifference, LibraryDifference
from envforge.inspect import Difference
from envforge.report.inspect import remark_lines
from envforge.values import ComputeCapability, Support

SCHEMA = "envforge.inspect-diff/1"


def difference_json(found: Difference) -> dict[str, Any]:
    """The document of schema ``envforge.inspect-diff/1``."""
    subjects = found.first.subject, found.second.subject
    return {
        "schema": SCHEMA,
        "a": subjects[0].path,
        "b": subjects[1].path,
        "same": not found.libraries,
        "files": [_library_json(library) for library in found.libraries],
        "verdicts": {
            str(card): {"a": first, "b": second} for card, first, second in _changed(found)
        },
        "unreadable": [reason for subject in subjects for reason in subject.unreadable],
    }


def _library_json(library: LibraryDifference) -> dict[str, Any]:
    return {
        "name": library.name,
        "a": library.first,
        "b": library.second,
        "roles": {role: _codes_json(codes) for role, codes in library.roles.items()},
        "images": _codes_json(library.images),
    }


def _codes_json(codes: CodeDifference) -> dict[str, Any]:
    return {"only_a": list(codes.only_first), "only_b": list(codes.only_second)}


def difference_text(found: Difference) -> str:
    """What each library of A (-) and B (+) has alone, then the cards whose verdict changes."""
    first, second = found.first.subject, found.second.subject
    lines = [f"- {first.path}", f"+ {second.path}", ""]
    for library in found.libraries:
        lines += _library_lines(library)
    if not found.libraries:
        lines.append("the same code in every library")
    lines += [
        f"on compute capability {card}: {before} -> {after}"
        for card, before, after in _changed(found)
    ]
    return "\n".join(lines + remark_lines(first.unreadable + second.unreadable))


def _library_lines(library: LibraryDifference) -> list[str]:
    alone = "  only in A" if library.second is None else ""
    alone = "  only in B" if library.first is None else alone
    rows = dict(library.roles)
    told = [tuple(map(set, codes)) for codes in rows.values()]
    if tuple(map(set, library.images)) not in told:
        rows["any image"] = library.images
    return [
        click.style(library.name, bold=True) + alone,
        *(_codes_line(role, codes) for role, codes in rows.items() if any(codes)),
    ]


def _codes_line(role: str, codes: CodeDifference) -> str:
    marked = [f"-{code}" for code in codes.only_first] + [f"+{code}" for code in codes.only_second]
    return f"  {role:<15} {' '.join(marked)}"


def _changed(found: Difference) -> list[tuple[ComputeCapability, Support, Support]]:
    """Return the cards that the two are judged differently for; no device code runs on none."""
    first, second = (
        {one.card: one.support for one in side.verdicts} for side in (found.first, found.second)
    )
    rows = [(card, first.get(card, "none"), second.get(card, "none")) for card in first | second]
    return [row for row in rows if row[1] != row[2]]
