"""Request + Database -> Resolution, or a Conflict that explains itself. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from envforge.capability.database import Database
from envforge.capability.lookup import find_platform, matcher, pip_arguments, releases_matching
from envforge.capability.models import in_range
from envforge.errors import Unsatisfiable
from envforge.resolver.candidates import Search, candidates, possible, searches
from envforge.resolver.ground import Terrain
from envforge.resolver.model import (
    ROUTES,
    Broken,
    Candidate,
    Conflict,
    PythonOrigin,
    Rejection,
    Relaxation,
    Request,
    Resolution,
    RouteKind,
    Toolkits,
    python_origins,
)

__all__ = [
    "ROUTES",
    "Conflict",
    "Request",
    "Resolution",
    "RouteKind",
    "all_routes",
    "cpu_route",
    "explain",
    "rejections",
    "resolve",
    "routes",
]

_DROPPABLE = ("torch", "cuda", "gcc", "python", "platform", "route", "driver")
_SPECIFIC_FIRST = (
    "tegra",
    "wheel-glibc",
    "wheel-python",
    "torch-python",
    "cuda-gcc",
    "torch-gcc",
    "driver-at-hand",
    "first-driver",
    "last-driver",
    "torch-capability",
    "kernels",
    "shipped-kernels",
    "nvcc",
    "torch-cuda",
    "general",
)
"""Order in which rules are tried to be left out: what stays is the more general reason."""


def resolve(database: Database, request: Request) -> Resolution:
    """Return the cheapest route to the newest release that fits; Unsatisfiable with the Conflict.

    UnknownName when no known release fits ``request.torch``.
    """
    _refuse_unknown(database, request)
    terrain = Terrain(database)
    asked = tuple(searches(terrain, request))
    found = _cheapest(asked, request)
    if found is None:
        raise Unsatisfiable("nothing fits this request", _explain(terrain, request, asked))
    return found


def routes(database: Database, request: Request) -> list[Resolution]:
    """Return the newest release of every route that fits, cheapest route first."""
    _refuse_unknown(database, request)
    asked = tuple(searches(Terrain(database), request))
    found = [_newest(asked, route) for route in _routes(request)]
    return [resolution for resolution in found if resolution is not None]


def all_routes(database: Database, request: Request) -> list[Resolution]:
    """Return every release of every route that fits: cheapest route first, newest release first."""
    _refuse_unknown(database, request)
    asked = tuple(searches(Terrain(database), request))
    return [
        found
        for route in _routes(request)
        for search in asked
        if (found := _any_origin(search, route)) is not None
    ]


def cpu_route(database: Database, request: Request) -> Resolution | None:
    """Return what is left without the card, or None."""
    return _on_the_cpu(Terrain(database), request)


def _on_the_cpu(terrain: Terrain, request: Request) -> Resolution | None:
    cardless = request._replace(card=None, route=None, cuda=None)
    return _newest(tuple(searches(terrain, cardless)), "cpu")


def _refuse_unknown(database: Database, request: Request) -> None:
    """Read every part of the request, also those that the chosen route does not ask for."""
    for option in ("cuda", "gcc", "python", "driver"):
        matcher(f"--{option}", getattr(request, option))
    if request.platform is not None:
        find_platform(database, request.platform)


def _routes(request: Request) -> Iterator[RouteKind]:
    for route in ROUTES:
        if (route == "cpu") != (request.card is None):
            continue  # the CPU never satisfies a card
        if request.route in (None, route):
            yield route


def _cheapest(asked: Sequence[Search], request: Request) -> Resolution | None:
    found = (_newest(asked, route) for route in _routes(request))
    return next((resolution for resolution in found if resolution is not None), None)


def _newest(asked: Sequence[Search], route: RouteKind) -> Resolution | None:
    for origin in python_origins(route):
        for search in asked:
            found = _first(search, route, origin)
            if found is not None:
                return found
    return None


def _first(search: Search, route: RouteKind, origin: PythonOrigin) -> Resolution | None:
    return next((found.resolution for found in possible(search, route, origin)), None)


def _any_origin(search: Search, route: RouteKind) -> Resolution | None:
    found = (_first(search, route, origin) for origin in python_origins(route))
    return next((resolution for resolution in found if resolution is not None), None)


def explain(database: Database, request: Request) -> Conflict:
    """Say why nothing fits: walk the whole space and reduce the rules to a minimal set."""
    terrain = Terrain(database)
    return _explain(terrain, request, tuple(searches(terrain, request)))


def _explain(terrain: Terrain, request: Request, asked: Sequence[Search]) -> Conflict:
    space = _space(asked, request)
    reasons = {id(candidate.broken): candidate.broken for candidate in space}.values()
    sets = {frozenset(rule.id for rule in broken) for broken in reasons}
    by_id = {rule.id: rule for broken in reasons for rule in broken}
    minimal = _minimal(sets, sorted(by_id.values(), key=_deletion_order))
    return Conflict(
        request=request,
        rules=tuple(by_id[id_] for id_ in minimal),
        toolkits=_toolkits(terrain.database, request),
        relaxations=tuple(_relaxations(terrain, request)),
        considered=sum(candidate.branches for candidate in space),
    )


def rejections(database: Database, request: Request) -> tuple[Rejection, ...]:
    """Return every rule that a branch of the search broke, and how many broke it, most first."""
    _refuse_unknown(database, request)
    rules: dict[str, Broken] = {}
    counts: Counter[str] = Counter()
    for candidate in _space(tuple(searches(Terrain(database), request)), request):
        for rule in candidate.broken:
            rules[rule.id] = rule
            counts[rule.id] += candidate.branches
    return tuple(Rejection(rules[id_], count) for id_, count in counts.most_common())


def _toolkits(database: Database, request: Request) -> Toolkits | None:
    """Of the toolkits the release could be built with: which compile for the card at all."""
    releases = releases_matching(database, request.torch)
    if request.card is None or len(releases) != 1:
        return None
    bounds = releases[0].source_build.cuda
    architecture = database.architectures[str(request.card.compute_capability)]
    known = [row.version for row in reversed(database.toolkits) if in_range(row.version, bounds)]
    return Toolkits(
        release_range=bounds,
        compiling=tuple(version for version in known if in_range(version, architecture.cuda)),
        refusing=tuple(version for version in known if not in_range(version, architecture.cuda)),
        card_range=architecture.cuda,
        source=architecture.source,
    )


def _space(asked: Sequence[Search], request: Request) -> list[Candidate]:
    """Walk it in the order of preference: cheapest route first, newest release first.

    A Python built from source comes after every plan with one of a distribution.
    """
    found: list[Candidate] = []
    for route in _routes(request):
        for origin in python_origins(route):
            for search in asked:
                found += candidates(search, route, origin)
    return found


def _deletion_order(rule: Broken) -> tuple[int, str]:
    return (_SPECIFIC_FIRST.index(rule.kind), rule.id)


def _minimal(sets: set[frozenset[str]], rules: list[Broken]) -> list[str]:
    """Deletion filter: leave out each rule in turn; it stays only if a candidate gets free."""
    left = {broken: len(broken) for broken in sets}
    sets_with = defaultdict[str, list[frozenset[str]]](list)
    for broken in sets:
        for id_ in broken:
            sets_with[id_].append(broken)
    kept = []
    for rule in rules:
        breaking = sets_with[rule.id]
        if any(left[broken] == 1 for broken in breaking):
            kept.append(rule.id)
            continue
        for broken in breaking:
            left[broken] -= 1
    return kept


def _relaxations(terrain: Terrain, request: Request) -> Iterator[Relaxation]:
    """For each part of the request: what the request without it gives."""
    for part in _DROPPABLE:
        if getattr(request, part) is None:
            continue
        relaxed = Request(**{**request._asdict(), part: None})
        found = _cheapest(tuple(searches(terrain, relaxed)), relaxed)
        if found is not None:
            yield _relaxation(terrain.database, part, found)
    if request.card is not None:
        left = _on_the_cpu(terrain, request._replace(platform=None, python=None))
        if left is not None:
            yield _relaxation(terrain.database, "gpu", left)


def _relaxation(database: Database, drop: str, gives: Resolution) -> Relaxation:
    takes_wheel = gives.route in ("wheel", "wheel-variant")
    pip = pip_arguments(database, gives.torch, gives.variant) if takes_wheel else ()
    return Relaxation(drop, gives, pip)
