"""Bring the files of the capability database into their canonical form.

    python scripts/format_data.py            rewrites what is not canonical
    python scripts/format_data.py --check    names it and exits 1

A folder beside those is formatted instead of ``envforge/capability/data``.

Canonical: the comments at the head of the file, then one record after the other; fields in the
order of their record, ``evidence`` and ``source`` last, defaults left out. A record that fits is
one line; else each field is, and each record inside it. So a change of one fact is one line of a
diff, and two people who add the same fact write the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from envforge.capability.models import Fact
from envforge.capability.tables import DATA, read_table

WIDTH = 120
"""A record longer than this gets a line for each field."""
ROW_WIDTH = 180
"""A record inside a record, with lists in it, that is longer gets a line for each field."""
LIST_WIDTH = 160
"""A list longer than this gets a line for each item."""
_PLAIN = re.compile(r"[A-Za-z_/][\w./+()=@-]*(?: [\w./+()=@-]+)*\Z", re.ASCII)
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def main(arguments: list[str]) -> int:
    folders = [Path(argument) for argument in arguments if argument != "--check"] or [DATA]
    paths = [path for folder in folders for path in sorted(folder.glob("*.yaml"))]
    wrong = [path for path in paths if path.read_text(encoding="utf-8") != canonical(path)]
    for path in wrong:
        print(f"{path.name} is not in its canonical form")
        if "--check" not in arguments:
            path.write_text(canonical(path), encoding="utf-8")
    return 1 if wrong and "--check" in arguments else 0


def canonical(path: Path) -> str:
    table = read_table(path)
    document = {path.stem: plain(table)} if isinstance(table, tuple) else plain(table, head=True)
    return head_of(path.read_text(encoding="utf-8")) + dump(document)


def head_of(text: str) -> str:
    lines = text.splitlines(keepends=True)
    count = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:count])


def write_rows(path: Path, rows: list[Any]) -> None:
    """Write the rows of a file that exists, keeping the comments at its head."""
    head = head_of(path.read_text(encoding="utf-8"))
    path.write_text(head + dump({path.stem: rows}), encoding="utf-8")
    path.write_text(canonical(path), encoding="utf-8")


def plain(value: Any, *, head: bool = False) -> Any:
    """Turn records into plain data; ``head``: a file's own facts come before its rows."""
    if isinstance(value, msgspec.Struct):
        if type(value).__struct_config__.array_like:
            return list(msgspec.to_builtins(value))
        return {name: plain(getattr(value, name)) for name in _fields(value, head=head)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _fields(record: msgspec.Struct, *, head: bool) -> Iterator[str]:
    facts = ["evidence", "source"] if isinstance(record, Fact) else []
    own = [name for name in record.__struct_fields__ if name not in facts]
    defaults = {
        field.name: [] if field.default == () else field.default
        for field in msgspec.structs.fields(record)
    }
    for name in [*facts, *own] if head else [*own, *facts]:
        value = getattr(record, name)
        if value not in ((), {}) and value != defaults[name]:
            yield name


def dump(document: dict[str, Any]) -> str:
    return "".join(f"{line}\n" for line in _mapping(document, "", top=True))


def _mapping(value: dict[str, Any], indent: str, *, top: bool = False) -> Iterator[str]:
    for key, item in value.items():
        if _is_inline(item) and not (top and isinstance(item, list)):
            yield f"{indent}{_scalar(key)}: {_flow(item)}"
        else:
            yield f"{indent}{_scalar(key)}:"
            block = _mapping(item, indent + "  ") if isinstance(item, dict) else _list(item, indent)
            yield from block


def _list(items: list[Any], indent: str) -> Iterator[str]:
    for item in items:
        if not isinstance(item, dict) or len(_flow(item)) <= WIDTH or (indent and _is_row(item)):
            yield f"{indent}- {_flow(item)}"
        else:
            first, *rest = _mapping(item, indent + "  ")
            yield f"{indent}- {first.strip()}"
            yield from rest


def _is_inline(value: Any) -> bool:
    if isinstance(value, list):
        return len(_flow(value)) <= LIST_WIDTH and not any(isinstance(i, dict) for i in value)
    return not isinstance(value, dict) or len(_flow(value)) <= WIDTH


def _is_row(record: dict[str, Any]) -> bool:
    """A small record inside another stays one line, however long its hash is."""
    if any(isinstance(item, list) for item in record.values()):
        return len(_flow(record)) <= ROW_WIDTH
    return not any(isinstance(item, dict) for item in record.values())


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{_scalar(key)}: {_flow(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        is_plain = _PLAIN.match(value) and value.lower() not in _RESERVED
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
