"""What will be trained, before it is: the difference to upstream's own, the length, the patches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from envforge.recipes.difference import Difference
from envforge.report.duration import duration_text
from envforge.run import Preview
from envforge.run.staged import Staged

_WIDEST = 44


def preview_text(preview: Preview) -> str:
    """Say what a run would be."""
    variant = f" {preview.variant}" if preview.variant else ""
    lines = [click.style(f"{preview.recipe}{variant}, on torch {preview.torch}", bold=True)]
    if preview.upstream:
        lines.append(f"  {'upstream':<9} {preview.upstream} at {preview.commit[:12]}")
    lines += [f"  {'patch':<9} {name}" for name in preview.patches]
    if preview.tier:
        lines.append(f"  {'tier':<9} {preview.tier}")
    lines += _length_lines(preview)
    lines += difference_lines(preview.differences)
    lines.append(f"  {'command':<9} {click.style(' '.join(preview.command), dim=True)}")
    return "\n".join(lines)


def staged_text(staged: Staged) -> str:
    """Say what is about to be trained; empty for a recipe that is its own upstream."""
    lines = []
    checkout, examples = staged.checkout, staged.examples
    if checkout:
        origin = "" if checkout.origin == checkout.upstream else f", from {checkout.origin}"
        unsure = "" if checkout.verified else ", a copy: its commit was not verified"
        lines.append(
            f"  {'upstream':<9} {checkout.upstream} at {checkout.commit[:12]}{origin}{unsure}"
        )
        lines += [f"  {'patch':<9} {line}" for line in checkout.patches]
        lines += [f"  {'edit':<9} {line}" for line in checkout.edits]
    if staged.packages:
        lines.append(f"  {'packages':<9} {Path(staged.packages).name}, pinned by hash")
    if examples:
        counted = "" if examples.items is None else f", {examples.items} items"
        lines.append(f"  {'examples':<9} {examples.name}: {examples.origin}{counted}")
    lines += [f"  {'asset':<9} {each.name}: {each.origin}" for each in staged.assets]
    lines += _length_lines(staged)
    lines += difference_lines(staged.differences)
    return "\n".join(lines)


def _length_lines(told: Preview | Staged) -> list[str]:
    """``200 epochs, 80000 items, about 22 min 13 s ...``, and what there is that is shorter."""
    parts = []
    if told.epochs is not None:
        parts.append(f"{told.epochs} epochs")
    if told.steps is not None:
        parts.append(f"{told.steps} {'steps' if told.epochs is None else 'items'}")
    if told.estimated_s is not None:
        speed = f"at the speed measured on {told.estimated_on}"
        parts.append(f"about {duration_text(told.estimated_s)} {speed}")
    lines = [f"  {'length':<9} {', '.join(parts)}"] if parts else []
    return lines + [
        f"  {'':<9} {steps} steps with --set preset={name}, which sees fewer items"
        for name, steps in told.shorter.items()
    ]


def difference_lines(rows: Iterable[Difference]) -> list[str]:
    """Lay out setting, upstream's value, ours and why, one a line."""
    rows = list(rows)
    if not rows:
        return ["  nothing differs from upstream's own configuration"]
    cells = [(row.setting, _cut(row.upstream), _cut(row.ours), row.why) for row in rows]
    head = ("setting", "upstream", "ours", "why")
    widths = [max(len(row[column]) for row in (head, *cells)) for column in range(3)]
    lines = [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        + f"  {row[3]}"
        for row in (head, *cells)
    ]
    return [click.style(lines[0], underline=True), *lines[1:]]


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
