"""From a PCI device's name to the names people type.

pci.ids writes ``GF117M [GeForce 610M/710M/810M/820M / GT 620M/625M/630M/720M]``: a chip, then
marketing names, some of them shortened. A person writes ``gt720m``, ``"Tesla K40"`` or ``v100``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_BRANDS = ("geforce", "tesla", "quadro", "nvidia", "titan")
_BRACKET = re.compile(r"\[(.+)\]")


def normalise(name: str) -> str:
    """Reduce a card's name to lower-case letters and digits, without the maker's."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia")


def marketing_names(device_name: str) -> list[str]:
    """Spell out the marketing names inside the brackets of a pci.ids device name."""
    match = _BRACKET.search(device_name)
    names: list[str] = []
    for group in (match[1] if match else device_name).split(" / "):
        names.extend(_spell_out(group, names[-1] if names else ""))
    return names


def _spell_out(group: str, previous: str) -> Iterable[str]:
    """``GT 620M/625M`` -> ``GT 620M``, ``GT 625M``, with the brand of the name before."""
    head, *rest = group.strip().split("/")
    brand = previous.split(" ", maxsplit=1)[0]
    if brand.lower() in _BRANDS and head.split(" ")[0].lower() not in _BRANDS:
        head = f"{brand} {head}"
    yield head
    stem = head.rpartition(" ")[0]
    for short in rest:
        words = short.strip()
        # "640M LE" is short for "GT 640M LE"; words that begin otherwise are a name of their own
        is_short = " " not in words or words[0].isdigit()
        yield f"{stem} {words}".strip() if is_short else words


def keys_of(name: str) -> set[str]:
    """Normalise ``name`` with and without its brand, and every leading part that has a number.

    ``Tesla V100 PCIe 16GB`` is found as ``teslav100pcie16gb``, ``teslav100``, ``v100`` ...
    """
    words = name.split()
    starts = [0] + ([1] if words[0].lower() in _BRANDS and len(words) > 1 else [])
    keys = set()
    for start in starts:
        for end in range(start + 1, len(words) + 1):
            key = normalise("".join(words[start:end]))
            if any(character.isdigit() for character in key):
                keys.add(key)
    return keys


def index(devices: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Map every key to the ids it may mean; a whole name beats the start of a longer one."""
    whole: dict[str, set[str]] = {}
    partial: dict[str, set[str]] = {}
    for device_id, device_name in devices:
        for name in marketing_names(device_name):
            brandless = name.split(" ", 1)[1] if name.split(" ")[0].lower() in _BRANDS else name
            for key in {normalise(name), normalise(brandless)}:
                whole.setdefault(key, set()).add(device_id)
            for key in keys_of(name):
                partial.setdefault(key, set()).add(device_id)
    merged = {**partial, **whole}
    return {key: tuple(sorted(ids)) for key, ids in sorted(merged.items()) if key}
