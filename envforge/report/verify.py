"""What an image or a card was seen to do, in words."""

from __future__ import annotations

from typing import Any

import click

from envforge.image.verify import Verified
from envforge.report.listing import rows_text
from envforge.verify import Operator, Rehearsal, Training

_MILLI = 1000.0


def verified_json(seen: Verified) -> dict[str, Any]:
    """The document of schema ``envforge.verify/1``."""
    return {"schema": "envforge.verify/1", "verified": seen.checks, "packages": seen.packages}


def verified_text(seen: Verified) -> str:
    """One line a check."""
    lines = [f"  {check.name:<13} {check.seen}" for check in seen.checks]
    return "\n".join(["the image is what the lock says", *lines])


def rehearsal_text(rehearsal: Rehearsal) -> str:
    """A table of operators, the training, and what all of it proves."""
    standing, training = rehearsal.standing, rehearsal.training
    lines = [
        click.style(f"torch {standing.torch} (CUDA {standing.cuda}) on {standing.card}", bold=True),
        f"first kernel after {standing.ready_s:.2f} s, {standing.processes} processes at a time",
        "",
        rows_text([_row(row) for row in rehearsal.operators]),
        "",
        _training_text(training),
        "",
        *_meaning(rehearsal),
    ]
    return "\n".join(lines)


def _row(row: Operator) -> dict[str, str]:
    return {
        "operator": row.operator,
        "part": row.part,
        "precision": row.precision,
        "outcome": row.outcome,
        "error": "" if row.error is None else f"{row.error:.1e}",
        "first": "" if row.first_s is None else f"{row.first_s * _MILLI:.0f} ms",
        "again": "" if row.again_s is None else f"{row.again_s * _MILLI:.2f} ms",
        "said": row.said or "",
    }


def _training_text(training: Training) -> str:
    first, last = training.training[0], training.training[-1]
    return (
        f"training: loss {first:.4f} -> {last:.4f}, on the CPU {training.on_cpu[-1]:.4f};"
        f" {training.step_s * _MILLI:.2f} ms a step"
    )


def _meaning(rehearsal: Rehearsal) -> list[str]:
    rows = [row for row in rehearsal.operators if row.outcome != "absent"]
    count = f"{len(rows) - len(rehearsal.wrong)} of {len(rows)} operators computed rightly"
    if rehearsal.executed == "native":
        return [count, "the build has machine code for this very card: this was no rehearsal"]
    ptx = " ".join(code for code in rehearsal.codes if code.startswith("compute_"))
    executed = f"{count}: this card's driver compiled the {ptx} PTX that the build carries"
    if rehearsal.wrong:
        return [
            executed,
            "what computed wrongly here is not to be trusted on the older card either",
        ]
    return [executed, _SHOWN, _NOT_SHOWN]


_SHOWN = "shown: torch's own kernels, as they were compiled for the older card, compute rightly"
_NOT_SHOWN = (
    "not shown: its machine code itself, the kernels CUDA's libraries (cuBLAS, cuDNN, ...) choose"
    " on the older card, its driver, memory and speed"
)
