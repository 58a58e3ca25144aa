"""What a dying training says: a table of its words, and what each of them means.

The table is ``messages.yaml`` beside this file: data with sources, read strictly.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from envforge import documents

TABLE = Path(__file__).with_name("messages.yaml")

Cause = Literal["gpu-oom", "host-oom", "shm", "open-files", "data"]
"""What the words of a training can tell; every other reason is seen from outside it."""


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shape of words. ``pattern`` is searched in one line of output."""

    id: str
    reason: Cause
    pattern: str
    source: str
    evidence: Literal["measured", "vendor-docs", "upstream", "third-party", "inferred"]

    def __post_init__(self) -> None:
        """Refuse a pattern that is none; ValueError becomes a fault of this row."""
        documents.compile_pattern(self.pattern)


class Death(NamedTuple):
    """Words of a death that were seen."""

    message: Message
    line: str


@cache
def load_messages(path: Path = TABLE) -> tuple[tuple[Message, re.Pattern[str]], ...]:
    """Read the table; DocumentError with every faulty row."""
    document = documents.load_yaml(path)
    rows = documents.convert_rows(document, "messages", Message, str(path))
    return tuple((row, re.compile(row.pattern)) for row in rows)


@cache
def _any_of_them() -> re.Pattern[str]:
    """All patterns in one: nearly every line of a log is none, and is looked at only once."""
    return re.compile("|".join(f"(?:{row.pattern})" for row, _ in load_messages()))


def find_death(line: str) -> Death | None:
    """Find the first row of the table that ``line`` matches."""
    if not _any_of_them().search(line):
        return None
    return next((Death(row, line) for row, form in load_messages() if form.search(line)), None)


def weightiest(deaths: list[Death]) -> Death | None:
    """Choose among the words of one death: a worker's traceback names the dataset, too."""
    order = [row.id for row, _ in load_messages()]
    return min(deaths, key=lambda death: order.index(death.message.id), default=None)
