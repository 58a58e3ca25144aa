"""Which cards ``CUDA_VISIBLE_DEVICES`` leaves to a CUDA program, as far as it can be known.

https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html; what
the guide leaves open (repeated entries, ``1gpu2``, upper case) is read as driver 580 was seen to
read it: docs/verification/2026-11-22-h200-detection.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal, NamedTuple

from envforge.hardware.finding import Finding

Kind = Literal["all", "indices", "uuids", "mig"]
_PREFIXES: tuple[tuple[str, Kind], ...] = (("GPU-", "uuids"), ("MIG-", "mig"))
_INDEX = re.compile(r"\s*\+?([0-9]{1,9})")
_MIG_OF_CARD = re.compile(r"MIG-gpu-([0-9a-f-]+)/[0-9]+/[0-9]+\Z")
_FULL_UUID = len("GPU-00000000-0000-0000-0000-000000000000")


class Candidate(NamedTuple):
    """What the mapping needs to know of a card that CUDA could see."""

    uuid: str | None
    mig: bool | None = None


class Selection(NamedTuple):
    """The value of the variable, taken apart."""

    kind: Kind
    entries: tuple[str, ...] = ()
    ignored: str = ""
    """From the first bad entry on: there the list ends."""
    repeated: bool = False


class Visible(NamedTuple):
    """One flag per candidate; None where nobody can tell."""

    flags: tuple[bool | None, ...]
    findings: tuple[Finding, ...] = ()


def parse_visible(value: str | None) -> Selection:
    """Read ``CUDA_VISIBLE_DEVICES``; None (not set) selects all cards, an empty value none."""
    if value is None:
        return Selection("all")
    prefix, kind = next(
        ((prefix, kind) for prefix, kind in _PREFIXES if value.startswith(prefix)), ("", "indices")
    )
    entries: list[str] = []
    parts = value.split(",")
    for position, part in enumerate(parts):
        entry = _entry(part, prefix)
        if entry is None:
            return Selection(kind, tuple(entries), ",".join(parts[position:]))
        if entry in entries:
            return Selection(kind, repeated=True)
        entries.append(entry)
    return Selection(kind, tuple(entries))


def _entry(part: str, prefix: str) -> str | None:
    """An index is the number that the entry begins with, as for strtoul: ``1gpu2`` is 1."""
    if prefix:
        return prefix + part[len(prefix) :].strip().lower() if part.startswith(prefix) else None
    match = _INDEX.match(part)
    return str(int(match[1])) if match else None


def visible_cards(candidates: Sequence[Candidate], environ: Mapping[str, str]) -> Visible:
    """Map ``CUDA_VISIBLE_DEVICES`` to the candidates, which come in bus order."""
    value = environ.get("CUDA_VISIBLE_DEVICES")
    selection = parse_visible(value)
    if value is None or not candidates:
        return Visible((True,) * len(candidates))
    facts = {"value": value}
    if selection.repeated:
        return Visible(_flags(candidates, set()), (Finding("visible-repeated", None, facts),))
    if not selection.entries:
        return Visible(_flags(candidates, set()), _hidden(facts))
    if selection.kind == "indices":
        return _by_index(candidates, selection, facts, environ.get("CUDA_DEVICE_ORDER"))
    if selection.kind == "uuids":
        return _by_uuid(candidates, selection, facts)
    return _by_mig(candidates, selection, facts)


def _by_index(
    candidates: Sequence[Candidate], selection: Selection, facts: dict[str, str], order: str | None
) -> Visible:
    """An index means a known card only in bus order; by default CUDA puts the fastest first."""
    count = len(candidates)
    numbers = [int(entry) for entry in selection.entries]
    good = next((n for n, number in enumerate(numbers) if number >= count), len(numbers))
    chosen = set(numbers[:good])
    ignored = ",".join([*selection.entries[good:], *filter(None, [selection.ignored])])
    if not chosen:
        return Visible(_flags(candidates, set()), _hidden(facts))
    findings = _ignored(facts, ignored)
    mig = any(card.mig for card in candidates)
    ordered = order == "PCI_BUS_ID" and not mig
    if ordered or len(chosen) == count:
        return Visible(_flags(candidates, chosen), findings)
    unknown = {**facts, "selected": str(len(chosen)), "cards": str(count)}
    unknown["order"] = "MIG" if mig else order or "FASTEST_FIRST"
    return Visible((None,) * count, (*findings, Finding("visible-order-unknown", None, unknown)))


def _by_uuid(
    candidates: Sequence[Candidate], selection: Selection, facts: dict[str, str]
) -> Visible:
    """A UUID may be cut short as long as it fits one card; the first bad one ends the list."""
    nameless = {n for n, card in enumerate(candidates) if card.uuid is None}
    chosen: set[int] = set()
    for position, entry in enumerate(selection.entries):
        fits = {n for n, card in enumerate(candidates) if (card.uuid or "").startswith(entry)}
        if nameless and (len(entry) < _FULL_UUID or not fits):
            unmapped = Finding("visible-unmapped", None, {**facts, "entry": entry})
            return Visible(_flags(candidates, chosen, unsure=nameless | fits), (unmapped,))
        if len(fits) != 1:
            rest = [*selection.entries[position:], *filter(None, [selection.ignored])]
            found = _ignored(facts, ",".join(rest)) if chosen else _hidden(facts)
            return Visible(_flags(candidates, chosen), found)
        if fits <= chosen:
            return Visible(_flags(candidates, set()), (Finding("visible-repeated", None, facts),))
        chosen |= fits
    return Visible(_flags(candidates, chosen), _ignored(facts, selection.ignored))


def _by_mig(
    candidates: Sequence[Candidate], selection: Selection, facts: dict[str, str]
) -> Visible:
    """CUDA enumerates one instance only; since 470 its UUID no longer tells the card."""
    first, *others = selection.entries
    findings = _ignored(facts, ",".join([*others, *filter(None, [selection.ignored])]))
    possible = {n for n, card in enumerate(candidates) if card.mig is not False}
    if match := _MIG_OF_CARD.match(first):
        named = {n for n in possible if candidates[n].uuid == f"GPU-{match[1]}"}
        possible = named or {n for n in possible if candidates[n].uuid is None}
    if not possible:
        return Visible(_flags(candidates, set()), _hidden(facts))
    sole = candidates[min(possible)]
    if len(possible) == 1 and sole.mig and (sole.uuid or not match):
        return Visible(_flags(candidates, possible), findings)
    unmapped = Finding("visible-unmapped", None, {**facts, "entry": first})
    return Visible(_flags(candidates, set(), unsure=possible), (*findings, unmapped))


def _flags(
    candidates: Sequence[Candidate],
    chosen: AbstractSet[int],
    unsure: AbstractSet[int] = frozenset(),
) -> tuple[bool | None, ...]:
    return tuple(None if n in unsure - chosen else n in chosen for n in range(len(candidates)))


def _hidden(facts: dict[str, str]) -> tuple[Finding, ...]:
    return (Finding("visible-none", None, facts),)


def _ignored(facts: dict[str, str], ignored: str) -> tuple[Finding, ...]:
    return (Finding("visible-ignored", None, {**facts, "ignored": ignored}),) if ignored else ()
