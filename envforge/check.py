"""What is this card, what runs on it, and why not the rest? The first of the three stories."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from envforge.capability.database import Database
from envforge.capability.lookup import Card, architecture_of, find_card, find_device
from envforge.capability.models import Architecture
from envforge.errors import AmbiguousName, UnknownName, Unsatisfiable, UsageError
from envforge.hardware.host import Host, read_host
from envforge.resolver import Conflict, Request, Resolution, cpu_route, explain, routes

if TYPE_CHECKING:  # a named card needs no bus: at run time detection is loaded only to detect
    from envforge.hardware.cards import DetectedGpu
    from envforge.hardware.detect import Detection
    from envforge.hardware.finding import Finding


class CheckedCard(NamedTuple):
    """One card and every route to a PyTorch that computes on it, cheapest first."""

    card: Card
    architecture: Architecture
    detected_by: str
    routes: tuple[Resolution, ...]
    left: Resolution | None
    """What is left without the card: the CPU."""
    conflict: Conflict | None
    """Why there is no route at all."""
    detected: DetectedGpu | None = None
    """The card as this machine shows it; None where it was only named."""
    findings: tuple[Finding, ...] = ()
    """What stands between this card and CUDA on this machine."""


class CheckReport(NamedTuple):
    """The answer of ``envforge check``."""

    host: Host
    cards: tuple[CheckedCard, ...]
    unidentified: tuple[DetectedGpu, ...] = ()
    """Cards that are there, and that neither the database nor their driver can explain."""
    findings: tuple[Finding, ...] = ()
    """About the machine, and about the unidentified cards."""


ListRoutes = Callable[[Database, Request], list[Resolution]]


def check(
    database: Database,
    gpu: str | None,
    request: Request,
    list_routes: ListRoutes = routes,
    detection: Detection | None = None,
) -> CheckReport:
    """Judge ``gpu`` (or every card of this machine) against ``request``.

    ``list_routes``: the newest release of each route, or ``all_routes``; ``detection``: another
    machine's.

    UnknownName and AmbiguousName for a card that cannot be identified; Unsatisfiable when a
    named card has no route at all for what was asked.
    """
    if named := gpu or os.environ.get("ENVFORGE_GPU"):
        return _check_named(database, gpu, named, request, list_routes)
    from envforge.hardware.detect import detect  # noqa: PLC0415 -- a named card needs no bus

    found = detection or detect(known=database.devices)
    return _check_machine(database, request, list_routes, found)


def _check_named(
    database: Database, gpu: str | None, named: str, request: Request, list_routes: ListRoutes
) -> CheckReport:
    # the driver at hand judges the cards at hand, not one that was named for another machine
    host = read_host()
    supposed = host.driver if host.driver_detected_by == "ENVFORGE_DRIVER" else None
    asked = request._replace(card=find_card(database, named), driver=request.driver or supposed)
    checked = _judge(database, asked, "--gpu" if gpu else "ENVFORGE_GPU", list_routes)
    if gpu and checked.conflict is not None:
        raise Unsatisfiable(f"no PyTorch of this request computes on {gpu}", checked.conflict)
    return CheckReport(host, (checked._replace(findings=_supposed(database, checked, asked)),))


def _supposed(database: Database, checked: CheckedCard, asked: Request) -> tuple[Finding, ...]:
    """Judge the driver that a named card is supposed to run with."""
    if asked.driver is None or checked.architecture.tegra:
        return ()
    from envforge.hardware.judge import judge_driver  # noqa: PLC0415

    return tuple(judge_driver(asked.driver, checked.architecture, database.drivers))


def _check_machine(
    database: Database, request: Request, list_routes: ListRoutes, found: Detection
) -> CheckReport:
    named = [(detected, card_of(database, detected)) for detected in found.cards]
    cards = tuple(
        _judge_detected(database, request._replace(card=card), detected, found, list_routes)
        for detected, card in named
        if card is not None
    )
    from envforge.hardware.judge import judge_host  # noqa: PLC0415

    nameless = tuple(detected for detected, card in named if card is None)
    places = {card.address for card in nameless} | {None}
    rest = tuple(finding for finding in found.findings if finding.card in places)
    return CheckReport(found.host, cards, nameless, (*judge_host(found.host, database), *rest))


def identify(database: Database, gpu: str | None) -> list[tuple[Card, str]]:
    """Name the cards and the layer that did: ``--gpu``, ``ENVFORGE_GPU``, then this machine."""
    if gpu:
        return [(find_card(database, gpu), "--gpu")]
    if named := os.environ.get("ENVFORGE_GPU"):
        return [(find_card(database, named), "ENVFORGE_GPU")]
    from envforge.hardware.detect import detect  # noqa: PLC0415

    found = [(card_of(database, row), row.detected_by) for row in detect().cards]
    return [(card, layer) for card, layer in found if card is not None]


def sole_card(database: Database, gpu: str | None) -> Card:
    """Name the one card that is meant; UsageError where none or several different ones are."""
    cards = [card for card, _ in identify(database, gpu)]
    if len({card.compute_capability for card in cards}) != 1:
        here = ", ".join(card.name for card in cards) or "no card that is known"
        raise UsageError(
            "for which card?",
            because=(f"in this machine: {here}",),
            hint="name it: --gpu gtx760, or --cpu for none",
        )
    return cards[0]


def card_of(database: Database, detected: DetectedGpu) -> Card | None:
    """Name a card of this machine: by its id, else by what its driver or board says of it."""
    device = (detected.pci_id or "")[5:]
    if device in database.devices:
        return find_device(database, str(detected.pci_id))
    capability, name = detected.compute_capability, detected.name
    if capability and str(capability) in database.architectures:
        return Card(name or f"unknown card {detected.pci_id}", capability, None, detected.pci_id)
    try:
        return find_card(database, (name or "").removeprefix("NVIDIA ")) if name else None
    except (UnknownName, AmbiguousName):
        return None


def _judge_detected(
    database: Database,
    request: Request,
    detected: DetectedGpu,
    found: Detection,
    list_routes: ListRoutes,
) -> CheckedCard:
    """A driver that does not hold the card says nothing about what could run on it."""
    from envforge.hardware.judge import is_served, judge_card  # noqa: PLC0415

    host = found.host
    supposed = host.driver_detected_by == "ENVFORGE_DRIVER"
    served = is_served(detected, host)
    at_hand = host.driver if supposed or served else None
    asked = request._replace(driver=request.driver or at_hand, driver_holds_card=served)
    checked = _judge(database, asked, detected.detected_by, list_routes)
    own = [row for row in found.findings if row.card is not None and row.card == detected.address]
    judged = judge_card(detected, checked.architecture, host, database)
    return checked._replace(detected=detected, findings=(*own, *judged))


def _judge(
    database: Database, request: Request, detected_by: str, list_routes: ListRoutes
) -> CheckedCard:
    card = request.card
    assert card is not None  # noqa: S101 -- check() puts it there
    found = tuple(list_routes(database, request))
    return CheckedCard(
        card=card,
        architecture=architecture_of(database, card),
        detected_by=detected_by,
        routes=found,
        left=cpu_route(database, request),
        conflict=None if found else explain(database, request),
    )
