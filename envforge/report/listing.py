"""What the database and this installation hold, as tables and as JSON."""

from __future__ import annotations

from typing import Any

Row = dict[str, str]


def rows_json(kind: str, rows: list[Row]) -> dict[str, Any]:
    """The document of schema ``envforge.list/1``."""
    return {"schema": "envforge.list/1", "kind": kind, "rows": rows}


def rows_text(rows: list[Row]) -> str:
    """A plain table; the columns are those of the first row."""
    if not rows:
        return "nothing matches"
    columns = list(rows[0])
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    lines = ["  ".join(column.replace("_", " ").ljust(widths[column]) for column in columns)]
    lines += ["  ".join(row[column].ljust(widths[column]) for column in columns) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
