"""What the tables of others are compared with, and how (facts only, typed in with their source).

Every disagreement is listed with the reason for our side, and the list is exact: a new one fails,
and so does one that has vanished.
"""

from __future__ import annotations

from collections.abc import Iterable

from envforge.capability.load import load
from envforge.values import version_key

DATABASE = load()
TOOLKITS = {row.version: row for row in DATABASE.toolkits}
RELEASES = {row.version: row for row in DATABASE.releases}

CP311 = "the package index carries cp311 files of 1.13 (measured; pytorch issue 91543)"
"""A disagreement that two tables share."""


def series(version: str, parts: int = 2) -> str:
    """``11.2.2`` -> ``11.2``."""
    return ".".join(version.split(".")[:parts])


def between(version: str, bounds: str) -> bool:
    """Spack's ``10.2:12.3``: both ends included, ``12.3`` means all of 12.3."""
    low, _, high = bounds.partition(":")
    key = version_key(version)
    if low and key < version_key(low):
        return False
    return not high or key[: len(version_key(high))] <= version_key(high)


def assert_exactly(found: Iterable, listed: dict) -> None:
    """The disagreements found are the listed ones, no more and no fewer."""
    found = set(found)
    assert found - set(listed) == set(), "new disagreement"
    assert set(listed) - found == set(), "no disagreement any more: strike it off the list"
    assert all(listed.values())
