"""Memory tiers: which values a card of so much memory gets."""

from __future__ import annotations

import re

from envforge.errors import UsageError
from envforge.recipes.document import MemoryTier, Recipe

_SIZE = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,7})?)\s*(MiB|GiB|M|G|MB|GB)?\Z", re.IGNORECASE)
_SLACK_MIB = 256
"""A card that is sold with 4 GB reports less: the driver keeps some of it."""


def parse_memory_mib(text: str) -> int:
    """Read ``4GiB``, ``4G``, ``3500MiB``: MiB; UsageError for anything else. No unit is GiB."""
    found = _SIZE.match(text.strip())
    if found is None or float(found[1]) <= 0:
        raise UsageError(f"{text!r} is no size of memory", hint="write it as 4GiB or 3500MiB")
    factor = 1 if (found[2] or "g").lower().startswith("m") else 1024
    return round(float(found[1]) * factor)


def tier_for(recipe: Recipe, memory_mib: int | None) -> MemoryTier | None:
    """Take the largest tier that such a card has room for, or the smallest there is.

    None where the recipe has none, or the memory is not known: upstream's own values stand then.
    """
    if memory_mib is None or not recipe.tiers:
        return None
    fitting = [
        tier for tier in recipe.tiers if parse_memory_mib(tier.memory) <= memory_mib + _SLACK_MIB
    ]
    return fitting[-1] if fitting else recipe.tiers[0]
