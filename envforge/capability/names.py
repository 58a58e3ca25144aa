"""From a PCI device's name to the names people type.

pci.ids writes ``GF117M [GeForce 610M/710M/810M/820M / GT 620M/625M/630M/720M]``: a chip, then
marketing names, some of them shortened. A person writes ``gt720m``, ``"Tesla K40"`` or ``v100``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from envforge.capability.models import Device

_Ids = defaultdict[str, set[str]]
_BRANDS = ("geforce", "tesla", "quadro", "nvidia", "titan")
_SERIES = ("rtx", "gtx", "gt", "gts", "grid", "hgx")
# Compiled at first use: most calls need none of them.
_EDITION = r" (?:OEM|Rev\. ?\d|\d+ Cores|Pascal)\Z"
_QUALIFIER = (
    r"(?i)\b(?:\d+ ?GB|G?DDR\dX?|HBM\de?|SXM\d?|PCIe|NVL|with|Max-?Q|Design|Laptop|Mobile|GPU)\b"
)
_BRACKET = r"\[(.+)\]"


def normalise(name: str) -> str:
    """Reduce a card's name to lower-case letters and digits, without the maker's."""
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia")


def marketing_names(device_name: str) -> list[str]:
    """Spell out the marketing names inside the brackets of a pci.ids device name."""
    match = re.search(_BRACKET, device_name)
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


def _starts(words: list[str]) -> Iterable[list[str]]:
    """``GeForce RTX 2080 Ti``, ``RTX 2080 Ti``, ``2080 Ti``: as people shorten a name in front."""
    yield words
    if len(words) > 1 and words[0].lower() in _BRANDS:
        yield words[1:]
    rest = words[1:] if words[0].lower() in _BRANDS else words
    if len(rest) > 1 and rest[0].lower() in _SERIES:
        yield rest[1:]


def keys_of(name: str) -> set[str]:
    """Normalise every leading part of ``name`` that has a number, shortened in front or not.

    ``Tesla V100 PCIe 16GB`` is found as ``teslav100pcie16gb``, ``teslav100``, ``v100`` ...
    """
    keys = set()
    for words in _starts(name.split()):
        for end in range(1, len(words) + 1):
            key = normalise("".join(words[:end]))
            if len(key) > 1 and _has_digit(key):
                keys.add(key)
    return keys


def whole_keys(name: str) -> set[str]:
    """Normalise the whole of ``name``, shortened in front or not."""
    full, *shortened = (normalise("".join(words)) for words in _starts(name.split()))
    return {full, *(key for key in shortened if _has_digit(key) or _is_name(key))}


def _has_digit(key: str) -> bool:
    return any(character.isdigit() for character in key)


def _is_name(key: str) -> bool:
    """``ion``, ``titan``; not the ``X`` of a TITAN X, not ``RTX``."""
    return len(key) > 2 and key not in (*_SERIES, "mobile", "maxq")  # noqa: PLR2004


def index(devices: Iterable[Device]) -> dict[str, tuple[str, ...]]:
    """Map every key to the ids it may mean; a whole name beats the start of a longer one.

    A ``GT 630`` is one of three chips, two of them listed as ``GT 630 OEM`` and ``GT 630 Rev. 2``:
    what shops leave out of a name counts where it hides another compute capability.
    """
    capabilities: dict[str, str] = {}
    whole: _Ids = defaultdict(set)
    partial: _Ids = defaultdict(set)
    editions: _Ids = defaultdict(set)
    for device in devices:
        capabilities[device.id] = device.compute_capability
        for name in marketing_names(device.name):
            for keys, tier in (
                (whole_keys(name), whole),
                (keys_of(name), partial),
                (whole_keys(re.sub(_EDITION, "", name)), editions),
            ):
                for key in keys:
                    tier[key].add(device.id)
    merged = {**partial, **whole}
    for key, ids in editions.items():
        if {capabilities[i] for i in ids} != {capabilities[i] for i in merged.get(key, ())}:
            merged[key] = ids
    return {key: tuple(sorted(ids)) for key, ids in sorted(merged.items()) if key}


def without_qualifiers(name: str) -> str:
    """Leave out memory and form: ``H100 80GB HBM3``, ``RTX 2070 with Max-Q Design``."""
    return " ".join(re.sub(_QUALIFIER, " ", name).split())


def board_names(board: str) -> list[str]:
    """``GM20B (Tegra X1 / Jetson TX1, Nano)`` -> ``Tegra X1``, ``Jetson TX1``, ``Jetson Nano``."""
    inside = board.partition("(")[2].rstrip(")")
    names = re.split(r"\s*[/,]\s*", inside) if inside else []
    return [name if name.startswith(("Jetson", "Tegra")) else f"Jetson {name}" for name in names]
