"""What became of every build of a matrix."""

from __future__ import annotations

from typing import Any

from envforge.matrix import Row
from envforge.report.duration import duration_text
from envforge.report.errors import error_json, error_text
from envforge.report.listing import rows_text


def matrix_text(rows: list[Row]) -> str:
    """A table of all, then why some failed."""
    table = rows_text(
        [
            {
                "build": row.name,
                "outcome": row.outcome,
                "took": duration_text(row.seconds),
                "image": row.image or "",
            }
            for row in rows
        ]
    )
    failed = [f"{row.name}: {error_text(row.error)}" for row in rows if row.error]
    return "\n\n".join([table, *failed])


def matrix_json(rows: list[Row]) -> dict[str, Any]:
    """The document of schema ``envforge.matrix/1``."""
    return {"schema": "envforge.matrix/1", "builds": [_row_json(row) for row in rows]}


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "outcome": row.outcome,
        "lock": str(row.lock),
        "image": row.image,
        "seconds": round(row.seconds, 1),
        **(error_json(row.error) if row.error else {}),
    }
