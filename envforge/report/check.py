"""The answer of ``envforge check``, as text and as JSON."""

from __future__ import annotations

from typing import Any

import click

from envforge.capability.database import Database
from envforge.capability.lookup import memory_of, pip_arguments
from envforge.check import CheckedCard, CheckReport
from envforge.errors import UsageError
from envforge.hardware.cards import DetectedGpu
from envforge.report import sentences
from envforge.report.conflict import conflict_json, origin_line
from envforge.report.findings import finding_json, finding_text
from envforge.report.groups import groups
from envforge.resolver.model import Conflict, Resolution

SCHEMA = "envforge.check/1"


def check_json(report: CheckReport, database: Database) -> dict[str, Any]:
    """The document of schema ``envforge.check/1``."""
    return {
        "schema": SCHEMA,
        "host": report.host._asdict(),
        "cards": [
            *(_card_json(checked, database) for checked in report.cards),
            *(_unidentified_json(card, report) for card in report.unidentified),
        ],
        "findings": [finding_json(row) for row in report.findings if row.card is None],
    }


def _unidentified_json(card: DetectedGpu, report: CheckReport) -> dict[str, Any]:
    """A card without a place in the database has no routes, and says so."""
    unknown = ("chip", "compute_capability", "architecture", "last_driver_branch", "conflict")
    found = [finding_json(row) for row in report.findings if row.card == card.address]
    return {
        **dict.fromkeys(unknown),
        "name": card.name,
        "pci_id": card.pci_id,
        "detected_by": card.detected_by,
        "routes": [],
        "findings": found if card.address else [],
        **_machine_json(card),
    }


def _machine_json(card: DetectedGpu | None) -> dict[str, Any]:
    fields = ("address", "uuid", "memory_mib", "driver_bound", "visible", "mig")
    return {field: getattr(card, field) if card else None for field in fields}


def _card_json(checked: CheckedCard, database: Database) -> dict[str, Any]:
    card, architecture = checked.card, checked.architecture
    return {
        "name": card.name,
        "pci_id": card.pci_id,
        "chip": card.chip,
        "compute_capability": str(card.compute_capability),
        "architecture": architecture.name,
        "last_driver_branch": architecture.last_driver_branch,
        "detected_by": checked.detected_by,
        "memory_variants_mib": list(memory_of(database, card)),
        "routes": [_route_json(route, checked, database) for route in _all_routes(checked)],
        "conflict": conflict_json(checked.conflict) if checked.conflict else None,
        "findings": [finding_json(row) for row in checked.findings],
        **_machine_json(checked.detected),
    }


def _all_routes(checked: CheckedCard) -> list[Resolution]:
    return [*checked.routes, *([checked.left] if checked.left else [])]


def _route_json(route: Resolution, checked: CheckedCard, database: Database) -> dict[str, Any]:
    return {
        "kind": route.route,
        "torch": route.torch,
        "cuda": route.cuda,
        "python": route.python,
        "python_origin": route.python_origin,
        "platform": route.platform,
        "support": route.support,
        "evidence": route.evidence,
        "command": _command(route, checked, database),
        "notes": [sentences.note_text(key, database.risks) for key in route.notes],
        "gcc": route.gcc,
        "cuda_origin": route.cuda_origin,
        "codes": list(route.codes),
        "source": route.source,
    }


def _command(route: Resolution, checked: CheckedCard, database: Database) -> str:
    flag = checked.card.pci_id or f"sm_{checked.card.compute_capability.number}"
    pip = pip_arguments(database, route.torch, route.variant)
    return sentences.route_command(route, None if route.route == "cpu" else flag, pip)


def check_text(report: CheckReport, database: Database, *, sources: bool = False) -> str:
    """Several paragraphs: the host, then each card with its routes.

    ``sources``: also whose word each route and each rule is.
    """
    host = report.host
    driver = f"NVIDIA driver {host.driver}" if host.driver else "no NVIDIA driver loaded"
    lines = [f"{host.distribution or 'this machine'} · kernel {host.kernel} · {driver}"]
    for checked in report.cards:
        lines += ["", *_card_lines(checked, database, sources=sources)]
    lines += [f"  ! {finding_text(row)}" for row in report.findings if row.card is None]
    for card in report.unidentified:
        lines += ["", *_unidentified_lines(card, report)]
    if not report.cards and not report.unidentified:
        lines += [
            "",
            "No NVIDIA card found (sysfs lists no PCI GPU of vendor 10de).",
            "For a card in another machine: envforge check --gpu gtx760",
        ]
    return "\n".join(lines)


def _unidentified_lines(card: DetectedGpu, report: CheckReport) -> list[str]:
    name = click.style(card.name or "unknown card", bold=True)
    known = [card.pci_id, card.address, f"found by {card.detected_by}"]
    lines = [name, "  " + " · ".join(filter(None, known))]
    if card.address:
        own = [row for row in report.findings if row.card == card.address]
        lines += [f"  ! {finding_text(row)}" for row in own]
    lines.append("  if you know its compute capability: envforge check --gpu sm_75")
    return lines


def pip_line(report: CheckReport, database: Database) -> str:
    """What to give to ``pip install`` for the best wheel of all cards at hand, on one line.

    UsageError where no card, or no single wheel, is there to speak of.
    """
    lines = {_pip_words(checked, database) for checked in report.cards}
    if len(lines) != 1 or None in lines:
        raise UsageError(
            "no wheel serves every card that was judged",
            hint="envforge check shows the other routes",
        )
    return str(lines.pop())


def _pip_words(checked: CheckedCard, database: Database) -> str | None:
    for route in checked.routes:
        if route.route in ("wheel", "wheel-variant"):
            return _command(route, checked, database).partition(" -m pip install ")[2]
    return None


def _card_lines(checked: CheckedCard, database: Database, *, sources: bool) -> list[str]:
    card, architecture = checked.card, checked.architecture
    last = architecture.last_driver_branch
    identity = [
        card.pci_id,
        card.chip,
        f"compute capability {card.compute_capability} ({architecture.name})",
        _memory_text(memory_of(database, card)),
        f"last driver branch {last}" if last else "served by the newest driver branch",
        f"found by {checked.detected_by}",
    ]
    lines = [click.style(card.name, bold=True), "  " + " · ".join(filter(None, identity))]
    lines += [f"  ! {finding_text(row)}" for row in checked.findings]
    lines.append("")
    for route in _all_routes(checked):
        lines += _route_lines(route, checked, database)
        lines += [click.style(f"  {'':<14}   {route.source}", dim=True)] if sources else []
    if checked.conflict is not None:
        lines += _no_route_lines(checked.conflict, sources=sources)
    return lines


def _memory_text(sizes_mib: tuple[int, ...]) -> str:
    """``2 or 4 GiB``: a name is sold with several memories."""
    if not sizes_mib:
        return ""
    return " or ".join(f"{size / 1024:g}" for size in sizes_mib) + " GiB"


def _route_lines(route: Resolution, checked: CheckedCard, database: Database) -> list[str]:
    colour = "yellow" if route.notes else "green"
    kind = click.style(f"{route.route:<14}", fg=colour)
    facts = [f"torch {route.torch:<7}", f"CUDA {route.cuda:<9}" if route.route != "cpu" else ""]
    facts += [f"Python {route.python:<5}" if route.python else "", route.platform or ""]
    line = f"  {kind} {' '.join(filter(None, facts))}".rstrip()
    lines = [f"{line}  {click.style(f'{_support(route)}, {route.evidence}', dim=True)}"]
    lines += [
        f"  {'':<14} ! {sentences.note_text(key, database.risks)}"
        for key in route.notes
        if key != "cpu"
    ]
    lines.append(f"  {'':<14} $ {_command(route, checked, database)}")
    return lines


def _support(route: Resolution) -> str:
    if route.route == "cpu":
        return "on the CPU, not on the card"
    if route.route == "source":
        return f"to be compiled for {' '.join(route.codes)}"
    return {"native": "machine code of the card", "ptx-jit": "PTX only"}.get(route.support, "")


def _no_route_lines(conflict: Conflict, *, sources: bool) -> list[str]:
    lines = ["  no PyTorch computes on this card:"]
    for group in groups(conflict.rules):
        lines.append(f"    - {group.text}")
        lines += [f"      {origin_line(group)}"] if sources else []
    return lines
