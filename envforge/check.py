"""What is this card, what runs on it, and why not the rest? The first of the three stories."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from envforge.capability.lookup import Card, architecture_of, find_card, find_device
from envforge.capability.models import Architecture, Database
from envforge.errors import Unsatisfiable
from envforge.hardware.host import Host, read_host
from envforge.resolver import Conflict, Request, Resolution, cpu_route, explain, routes


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


class CheckReport(NamedTuple):
    """The answer of ``envforge check``."""

    host: Host
    cards: tuple[CheckedCard, ...]


ListRoutes = Callable[[Database, Request], list[Resolution]]


def check(
    database: Database, gpu: str | None, request: Request, list_routes: ListRoutes = routes
) -> CheckReport:
    """Judge ``gpu`` (or every card of this machine) against ``request``.

    ``list_routes``: the newest release of each route, or ``all_routes``.

    UnknownName and AmbiguousName for a card that cannot be identified; Unsatisfiable when a
    named card has no route at all for what was asked.
    """
    host = read_host()
    found = identify(database, gpu)
    # the driver at hand judges the cards at hand, not one that was named for another machine
    driver = os.environ.get("ENVFORGE_DRIVER") if gpu else host.driver
    asked = request._replace(driver=request.driver or driver)
    cards = tuple(
        _judge(database, asked._replace(card=card), detected_by, list_routes)
        for card, detected_by in found
    )
    if gpu and cards[0].conflict is not None:
        raise Unsatisfiable(f"no PyTorch of this request computes on {gpu}", cards[0].conflict)
    return CheckReport(host, cards)


def identify(database: Database, gpu: str | None) -> list[tuple[Card, str]]:
    """Name the cards: ``--gpu``, then ``ENVFORGE_GPU``, then sysfs."""
    if gpu:
        return [(find_card(database, gpu), "--gpu")]
    if named := os.environ.get("ENVFORGE_GPU"):
        return [(find_card(database, named), "ENVFORGE_GPU")]
    from envforge.hardware.pci import find_gpus  # noqa: PLC0415 -- a named card needs no bus

    return [(find_device(database, function.id), "sysfs") for function in find_gpus()]


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
