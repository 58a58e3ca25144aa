"""What the resolver takes and gives: values only."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from envforge.capability.lookup import Card
from envforge.values import Support

RouteKind = Literal["wheel", "wheel-variant", "conda-forge", "distribution", "source", "cpu"]
ROUTES: tuple[RouteKind, ...] = (
    "wheel",
    "wheel-variant",
    "conda-forge",
    "distribution",
    "source",
    "cpu",
)
"""Cheapest first. ``cpu`` never satisfies a card: it is used only when it is asked for."""


PythonOrigin = Literal["distribution", "source"]
"""Where the Python of a plan comes from: what the platform's archive has is always preferred."""


def python_origins(route: RouteKind) -> tuple[PythonOrigin, ...]:
    """Return where a route's Python may come from: only a source build can bring its own."""
    return ("distribution", "source") if route == "source" else ("distribution",)


class Request(NamedTuple):
    """What the user wants. Version fields hold what was typed, ``10.1`` or ``>=1.8,<2``."""

    card: Card | None = None
    """None only for the route ``cpu``."""
    torch: str | None = None
    cuda: str | None = None
    gcc: str | None = None
    python: str | None = None
    platform: str | None = None
    route: RouteKind | None = None
    driver: str | None = None
    """The driver of the machine that will compute; None assumes the card's last branch."""
    driver_holds_card: bool = False
    """The driver is loaded and holds the card: no table is asked whether it knows it."""
    ptx: bool = False
    placed: bool = False
    """A platform of the database must carry it (an image is to be built), not just any machine."""


class Resolution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to a working PyTorch. Fields a route does not decide are None or empty."""

    route: RouteKind
    torch: str
    support: Support
    evidence: str
    source: str
    cuda: str | None = None
    cuda_origin: Literal["distribution", "runfile"] | None = None
    gcc: str | None = None
    python: str | None = None
    python_origin: PythonOrigin | None = None
    platform: str | None = None
    variant: str | None = None
    """Of the wheel: None is the default one, ``cu118`` comes from its own index."""
    package: str | None = None
    """Of the distribution."""
    compute_capability: str | None = None
    """Of the card it is for; None on the CPU."""
    codes: tuple[str, ...] = ()
    """Machine code the result carries (or, of a source build, is to carry)."""
    notes: tuple[str, ...] = ()
    """Keys of risks that ``report`` words: ``ptx-jit``, ``not-built-yet``, ``sub-default`` ..."""


class Broken(NamedTuple):
    """A rule that a candidate breaks, with the facts ``report`` makes a sentence of."""

    id: str
    kind: str
    facts: tuple[tuple[str, str], ...]
    source: str
    evidence: str


class Candidate(msgspec.Struct, frozen=True):
    """A resolution and the rules that forbid it; none broken: it is possible."""

    resolution: Resolution
    broken: tuple[Broken, ...]
    branches: int = 1
    """How many branches of the search are left here, all for these rules."""


class Rejection(NamedTuple):
    """A rule and the number of branches of the search that broke it."""

    rule: Broken
    branches: int


class Relaxation(NamedTuple):
    """What leaving out one part of the request would give."""

    drop: str
    gives: Resolution
    pip: tuple[str, ...]
    """What pip is given for it; empty where it takes no wheel."""


class Toolkits(NamedTuple):
    """What nvcc says to the card, of the toolkits the asked release could be built with."""

    release_range: str
    compiling: tuple[str, ...]
    refusing: tuple[str, ...]
    card_range: str
    source: str


class Conflict(NamedTuple):
    """Why nothing fits: a minimal set of rules that together forbid every candidate."""

    request: Request
    rules: tuple[Broken, ...]
    toolkits: Toolkits | None
    """None where the request allows several releases, or computes on no card."""
    relaxations: tuple[Relaxation, ...]
    considered: int
