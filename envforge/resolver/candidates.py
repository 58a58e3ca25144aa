"""Every candidate of a route, in the order of preference: the explicit, exhaustive search.

The axes are decided one after the other. A branch is left at the first axis where a rule breaks
and yielded as it stands there, with the rules it broke: so the same walk finds the best plan and
explains why there is none. Branches of a source build that break the same rules before any Python
is chosen are counted and yielded as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any

from msgspec.structs import replace

from envforge.capability.lookup import conda_risks, install_of, releases_matching, wheel_risks
from envforge.capability.models import CondaBuild, DistributionBuild, TorchRelease, Wheel
from envforge.resolver import lifts, rules
from envforge.resolver.ground import Ground, Place, Terrain
from envforge.resolver.model import (
    Broken,
    Candidate,
    PythonOrigin,
    Request,
    Resolution,
    RouteKind,
)
from envforge.values import DeviceCode, Support, version_key


class Search:
    """One release of one request."""

    def __init__(self, ground: Ground, release: TorchRelease) -> None:
        self.ground = ground
        self.release = release
        self.database = ground.database
        self.request = ground.request
        self._nowhere = Resolution(
            route="source", torch=release.version, support="none", evidence="", source=""
        )

    def left(self, broken: tuple[Broken, ...], branches: int = 1) -> Candidate:
        """Branches that are left before their axes are all decided."""
        return Candidate(self._nowhere, broken, branches)

    @cached_property
    def refused_cuda(self) -> rules.Refused:
        return rules.release_cuda(self.release, self.ground.versions_of_cuda)

    @cached_property
    def compiling(self) -> frozenset[str]:
        """Toolkits that compile this release for the card, and whose programs the driver starts."""
        return self.ground.compiling - self.refused_cuda.values

    @cached_property
    def places(self) -> list[Place]:
        """What is known to work comes first, then what is preferred whatever the release."""
        recommended = self.release.source_build.recommended_cuda
        rank = {version: known for known, version in enumerate(recommended)}
        compiling = self.compiling
        places = [place for place in self.ground.places if place.toolkit.version in compiling]
        if compiling.isdisjoint(rank):
            return places
        return sorted(places, key=lambda place: rank.get(place.toolkit.version, len(rank)))

    @cached_property
    def refused_gcc(self) -> rules.Refused:
        return rules.release_gcc(self.release, self.ground.compilers)

    @cached_property
    def refused_pythons(self) -> rules.Refused:
        return rules.release_python(self.release, self.ground.versions_of_python)

    @cached_property
    def refused_built_pythons(self) -> rules.Refused:
        return rules.release_python(self.release, self.ground.built_pythons)


def searches(terrain: Terrain, request: Request) -> Iterator[Search]:
    """Yield a search of each release that fits, newest first; UnknownName when none does."""
    ground = Ground(terrain, request)
    for release in releases_matching(terrain.database, request.torch):
        yield Search(ground, release)


def candidates(
    search: Search, route: RouteKind, python_origin: PythonOrigin = "distribution"
) -> Iterator[Candidate]:
    """Yield the candidates of ``route`` for the search's release, best first.

    With Pythons built from source there are only those that get as far as their Python: where the
    others are left, they are left with the distribution's Pythons, too.
    """
    if python_origin == "source":
        yield from _builds(search, python_origin)
    elif route != "cpu" and (broken := search.ground.unserved):
        yield search.left(broken)
    elif route in ("wheel", "wheel-variant"):
        yield from _wheels(search, route)
    elif route == "conda-forge":
        yield from _conda(search)
    elif route == "distribution":
        yield from _distribution(search)
    elif route == "source":
        yield from _left_early(search)
        yield from _builds(search, python_origin)
    else:
        yield from _cpu(search)


def possible(
    search: Search, route: RouteKind, python_origin: PythonOrigin = "distribution"
) -> Iterator[Candidate]:
    """Yield those candidates that break no rule, best first: what only explains is left out."""
    builds = route == "source"
    walk = _builds(search, python_origin) if builds else candidates(search, route, python_origin)
    yield from (found for found in walk if not found.broken)


def _may_compile(search: Search) -> bool:
    """Tell whether a toolkit, a host compiler and a Python are left, maybe on several platforms."""
    ground = search.ground
    if ground.unserved or not search.compiling:
        return False
    if ground.is_narrow and not any(
        toolkit in search.compiling and not compilers <= search.refused_gcc.values
        for toolkit, compilers in ground.compilers_beside.items()
    ):
        return False
    return _has_python(search)


def _has_python(search: Search) -> bool:
    """Tell whether the release knows one of the Pythons there are, or that can be built."""
    refused, built = search.refused_pythons.values, search.refused_built_pythons.values
    ground = search.ground
    return len(refused) < len(ground.versions_of_python) or len(built) < len(ground.built_pythons)


def _wheels_of(search: Search, route: RouteKind) -> Iterator[Wheel]:
    accepts = search.ground.accepts_cuda
    for wheel in search.database.wheels_of.get(search.release.version, ()):
        kind = "wheel" if wheel.variant is None else "wheel-variant"
        if kind == route and accepts(wheel.cuda):
            yield wheel


def _wheels(search: Search, route: RouteKind) -> Iterator[Candidate]:
    for wheel in _wheels_of(search, route):
        broken = (
            *rules.kernels(wheel, search.ground.card),
            *search.ground.driver(wheel.cuda),
        )
        if broken:
            yield search.left(broken)
        else:
            yield from _placed(search, wheel, partial(_offered, search, route, wheel))


def _offered(search: Search, route: RouteKind, wheel: Wheel, **place: Any) -> Resolution:
    capability = search.ground.card.compute_capability
    support = wheel.support_on(capability)
    risks = wheel_risks(search.database, wheel, capability)
    return Resolution(
        route=route,
        compute_capability=str(capability),
        torch=wheel.torch,
        support=support,
        evidence=wheel.evidence,
        source=wheel.source,
        cuda=wheel.cuda,
        variant=wheel.variant,
        codes=wheel.codes,
        notes=(*_jit(support), *_alone(search, wheel), *risks),
        **place,
    )


def _alone(search: Search, wheel: Wheel) -> tuple[str, ...]:
    comes_alone = wheel.variant and install_of(search.database, wheel.torch).wheel_alone
    return ("wheel-alone",) if comes_alone else ()


def _jit(support: Support) -> tuple[str, ...]:
    return ("ptx-jit",) if support == "ptx-jit" else ()


def _placed(
    search: Search, wheel: Wheel, resolution: Callable[..., Resolution]
) -> Iterator[Candidate]:
    """Put a wheel on each platform in turn, or leave it to the user's own machine."""
    if not search.request.placed and search.request.platform is None:
        yield _unplaced(search, wheel, resolution)
        return
    for platform, python in search.ground.pythons:
        if broken := tuple(rules.wheel_platform(wheel, platform, python.wheel_tag)):
            yield search.left(broken)
            continue
        place = {"platform": platform.name, "python": python.version}
        yield Candidate(resolution(**place, python_origin="distribution"), ())


def _unplaced(search: Search, wheel: Wheel, resolution: Callable[..., Resolution]) -> Candidate:
    accepts = search.ground.accepts_python
    # a variant's own index carries the Pythons of the release
    published = [python_of_tag(file.tag) for file in wheel.files] or list(
        search.release.source_build.pythons
    )
    if not published:
        return Candidate(resolution(), ())
    if broken := tuple(rules.wheel_python(wheel, published, accepts)):
        return search.left(broken)
    newest = max(filter(accepts, published), key=version_key)
    return Candidate(resolution(python=newest), ())


def python_of_tag(tag: str) -> str:
    """``cp310-cp310`` -> ``3.10``."""
    digits = tag.split("-", maxsplit=1)[0].removeprefix("cp")
    return f"{digits[0]}.{digits[1:]}"


def _conda(search: Search) -> Iterator[Candidate]:
    request, ground = search.request, search.ground
    if request.placed or request.platform:
        return  # the channel brings its own base
    for build in search.database.conda_of.get(search.release.version, ()):
        pythons = [python for python in build.pythons if ground.accepts_python(python)]
        if not pythons or not ground.accepts_cuda(build.cuda):
            continue
        if broken := _shipped_rules(search, "conda-forge", build):
            yield search.left(broken)
        else:
            shipped = _shipped(search, "conda-forge", build)
            risks = conda_risks(search.database, build, ground.card.compute_capability)
            notes = (*shipped.notes, *risks)
            yield Candidate(replace(shipped, notes=notes, python=pythons[-1]), ())


def _distribution(search: Search) -> Iterator[Candidate]:
    request, ground = search.request, search.ground
    for build in search.database.distribution_builds:
        if build.torch != search.release.version or build.cuda is None or request.placed:
            continue
        if request.platform not in (None, build.platform):
            continue
        if not (ground.accepts_cuda(build.cuda) and ground.accepts_python(build.python)):
            continue
        if broken := _shipped_rules(search, "distribution", build):
            yield search.left(broken)
        else:
            place = {"python": build.python, "platform": build.platform, "package": build.package}
            shipped = replace(_shipped(search, "distribution", build), **place)
            yield Candidate(replace(shipped, python_origin="distribution"), ())


def _shipped_rules(
    search: Search, route: RouteKind, build: CondaBuild | DistributionBuild
) -> tuple[Broken, ...]:
    driver = search.ground.driver(build.cuda) if build.cuda else ()
    return (*rules.shipped_kernels(build, route, search.ground.card), *driver)


def _shipped(search: Search, route: RouteKind, build: CondaBuild | DistributionBuild) -> Resolution:
    """Describe a build that somebody else ships."""
    capability = search.ground.card.compute_capability
    support = build.support_on(capability)
    return Resolution(
        route=route,
        compute_capability=str(capability),
        torch=build.torch,
        support=support,
        evidence=build.evidence,
        source=build.source,
        cuda=build.cuda,
        codes=build.codes,
        notes=_jit(support),
    )


def _cpu(search: Search) -> Iterator[Candidate]:
    """Without a card any published wheel computes; its CUDA libraries stay unused."""
    for wheel in _wheels_of(search, "wheel"):
        without_card = partial(
            Resolution,
            route="cpu",
            torch=wheel.torch,
            support="none",
            evidence=wheel.evidence,
            source=wheel.source,
            cuda=wheel.cuda,
            codes=wheel.codes,
            notes=("cpu",),
        )
        yield from _placed(search, wheel, without_card)


def _left_early(search: Search) -> list[Candidate]:
    """Return what is left before any Python is chosen: all that breaks the same rules at once."""
    if broken := _release_rules(search):
        return [search.left(broken)]
    return [search.left(broken, branches) for broken, branches in _refused(search)]


def _refused(search: Search) -> rules.Grouped:
    """Go through toolkits, the places that have them, and the host compilers there."""
    ground = search.ground
    found = ground.axis_of_cuda.refused(ground.nvcc, search.refused_cuda)
    for undriven, broken in ground.undriven.items():
        if undriven not in search.refused_cuda.values:
            found.append((broken, 1))
    for version, toolkit in ground.toolkits.items():
        if version in search.compiling:
            found += ground.refused_with(toolkit, search.refused_gcc)
    return found


def _builds(search: Search, python_origin: PythonOrigin) -> Iterator[Candidate]:
    """Yield what gets as far as its Python.

    Most releases are nowhere near any: that is seen before their places are walked through.
    """
    if not _may_compile(search) or _release_rules(search):
        return
    with_python = _with_python if python_origin == "distribution" else _with_built_python
    yield from _lifted_last(
        candidate
        for place in search.places
        if not place.broken
        for candidate in with_python(search, place)
    )


def _lifted_last(found: Iterable[Candidate]) -> Iterator[Candidate]:
    """A Python the sources know is better than one a patch makes them take."""
    lifted = []
    for candidate in found:
        if not candidate.broken and lifts.needs_patch(candidate.resolution):
            lifted.append(candidate)
        else:
            yield candidate
    yield from lifted


def _compilers(search: Search, place: Place) -> Iterator[str]:
    """Yield the host compilers that compile the release there, best first."""
    refused = search.ground.terrain.refused_gcc(place.toolkit).values | search.refused_gcc.values
    for gcc in search.ground.compilers_of(place):
        if gcc not in refused:
            yield gcc


def _release_rules(search: Search) -> tuple[Broken, ...]:
    of_release = tuple(rules.release_capability(search.release, search.ground.card))
    return of_release + search.ground.uncompiled or _python_rules(search)


def _python_rules(search: Search) -> tuple[Broken, ...]:
    """A release that knows none of the Pythons there are is left before any toolkit is tried."""
    refused, refused_built = search.refused_pythons, search.refused_built_pythons
    asked_for_none = not (refused.values or refused_built.values)
    return () if asked_for_none or _has_python(search) else refused.broken


def _with_python(search: Search, place: Place) -> Iterator[Candidate]:
    pythons = search.ground.pythons_of.get(place.platform.name)
    if not pythons:
        return
    for gcc in _compilers(search, place):
        for python in pythons:
            if python in search.refused_pythons.values:
                yield search.left(search.refused_pythons.broken)
            else:
                yield Candidate(_built(search, place, gcc, python, "distribution"), ())


def _with_built_python(search: Search, place: Place) -> Iterator[Candidate]:
    for gcc in _compilers(search, place):
        for python in search.ground.built_pythons:
            if python not in search.refused_built_pythons.values and not place.has_python(python):
                broken = search.ground.terrain.refused_built(place.platform, python)
                if broken:
                    yield search.left(broken)
                else:
                    yield Candidate(_built(search, place, gcc, python, "source"), ())


def _built(
    search: Search, place: Place, gcc: str, python: str, python_origin: PythonOrigin
) -> Resolution:
    capability = search.ground.card.compute_capability
    codes = [str(DeviceCode("sm", capability))]
    if search.request.ptx:
        codes.append(str(DeviceCode("compute", capability)))
    notes: tuple[str, ...] = () if place.platform.built else ("not-built-yet",)
    notes += ("python-from-source",) if python_origin == "source" else ()
    notes += lifts.notes_of(search.release, python)
    return Resolution(
        route="source",
        compute_capability=str(capability),
        torch=search.release.version,
        support="native",
        evidence=search.release.source_build.evidence,
        source=search.release.source_build.source,
        cuda=place.toolkit.version,
        cuda_origin="distribution" if place.origin == "distribution" else "runfile",
        gcc=gcc,
        python=python,
        python_origin=python_origin,
        platform=place.platform.name,
        codes=tuple(codes),
        notes=notes,
    )
