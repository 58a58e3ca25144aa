"""Every candidate of a route, in the order of preference: the explicit, exhaustive search.

The axes are decided one after the other. A branch is left at the first axis where a rule breaks
and yielded as it stands there, with the rules it broke: so the same walk finds the best plan and
explains why there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from envforge.capability.lookup import Card, conda_risks, matcher, wheel_risks
from envforge.capability.models import (
    Architecture,
    CudaToolkit,
    Database,
    Platform,
    PlatformPython,
    TorchRelease,
    Wheel,
)
from envforge.resolver import rules
from envforge.resolver.model import Broken, Candidate, Request, Resolution, RouteKind
from envforge.values import DeviceCode, Support, best_support, version_key


class Search(NamedTuple):
    """One release of one request."""

    database: Database
    request: Request
    release: TorchRelease

    @property
    def card(self) -> Card:
        """The card; a route that computes on one is never searched without it."""
        assert self.request.card is not None  # noqa: S101 -- callers choose the route by this
        return self.request.card

    @property
    def architecture(self) -> Architecture:
        return self.database.architectures[str(self.card.compute_capability)]


def candidates(search: Search, route: RouteKind) -> Iterator[Candidate]:
    """Yield the candidates of ``route`` for the search's release, best first."""
    if route != "cpu" and (broken := tuple(rules.desktop(search.architecture))):
        yield _left(search, broken)
    elif route in ("wheel", "wheel-variant"):
        yield from _wheels(search, route)
    elif route == "conda-forge":
        yield from _conda(search)
    elif route == "distribution":
        yield from _distribution(search)
    elif route == "source":
        yield from _source(search)
    else:
        yield from _cpu(search)


def _wheels_of(search: Search, route: RouteKind) -> Iterator[Wheel]:
    accepts = matcher("--cuda", search.request.cuda)
    for wheel in search.database.wheels:
        kind = "wheel" if wheel.variant is None else "wheel-variant"
        if wheel.torch == search.release.version and kind == route and accepts(wheel.cuda):
            yield wheel


def _wheels(search: Search, route: RouteKind) -> Iterator[Candidate]:
    for wheel in _wheels_of(search, route):
        capability = search.card.compute_capability
        support = wheel.support_on(capability)
        resolution = Resolution(
            route=route,
            compute_capability=str(search.card.compute_capability),
            torch=wheel.torch,
            support=support,
            evidence=wheel.evidence,
            source=wheel.source,
            cuda=wheel.cuda,
            variant=wheel.variant,
            codes=wheel.codes,
            notes=(*_jit(support), *wheel_risks(search.database, wheel, capability)),
        )
        broken = (
            *rules.kernels(wheel, search.card),
            *rules.driver(search.database, wheel.cuda, search.architecture, search.request.driver),
        )
        if broken:
            yield Candidate(resolution, broken)
        else:
            yield from _placed(search, wheel, resolution)


def _jit(support: Support) -> tuple[str, ...]:
    return ("ptx-jit",) if support == "ptx-jit" else ()


def _placed(search: Search, wheel: Wheel, resolution: Resolution) -> Iterator[Candidate]:
    """Put a wheel on each platform in turn, or leave it to the user's own machine."""
    if not search.request.placed and search.request.platform is None:
        yield from _unplaced(search, wheel, resolution)
        return
    for platform, python in _pythons(search):
        placed = _replace(resolution, platform=platform.name, python=python.version)
        broken = rules.wheel_platform(wheel, platform, python.wheel_tag)
        yield Candidate(placed, tuple(broken))


def _unplaced(search: Search, wheel: Wheel, resolution: Resolution) -> Iterator[Candidate]:
    accepts = matcher("--python", search.request.python)
    # a variant's own index carries the Pythons of the release
    published = [python_of_tag(file.tag) for file in wheel.files] or list(
        search.release.source_build.pythons
    )
    fitting = sorted({python for python in published if accepts(python)}, key=version_key)
    if fitting or not published:
        yield Candidate(_replace(resolution, python=fitting[-1] if fitting else None), ())


def python_of_tag(tag: str) -> str:
    """``cp310-cp310`` -> ``3.10``."""
    digits = tag.split("-", maxsplit=1)[0].removeprefix("cp")
    return f"{digits[0]}.{digits[1:]}"


def _replace(resolution: Resolution, **changes: str | None) -> Resolution:
    from msgspec.structs import replace  # noqa: PLC0415 -- needed by few requests

    return replace(resolution, **changes)


def _platforms(search: Search) -> Iterator[Platform]:
    for platform in search.database.platforms:
        if search.request.platform in (None, platform.name):
            yield platform


def _pythons(search: Search) -> Iterator[tuple[Platform, PlatformPython]]:
    accepts = matcher("--python", search.request.python)
    for platform in _platforms(search):
        for python in platform.pythons:
            if accepts(python.version):
                yield platform, python


def _conda(search: Search) -> Iterator[Candidate]:
    accepts = matcher("--cuda", search.request.cuda)
    for build in search.database.conda_builds:
        if build.torch != search.release.version or not accepts(build.cuda):
            continue
        if search.request.placed or search.request.platform or search.request.python:
            continue  # the channel brings its own Python; which ones is not recorded
        codes = [DeviceCode.parse(code) for code in build.codes]
        capability = search.card.compute_capability
        support = best_support(codes, capability)
        if support != "none":
            resolution = Resolution(
                route="conda-forge",
                compute_capability=str(search.card.compute_capability),
                torch=build.torch,
                support=support,
                evidence=build.evidence,
                source=build.source,
                cuda=build.cuda,
                codes=build.codes,
                notes=(*_jit(support), *conda_risks(search.database, build, capability)),
            )
            found = rules.driver(
                search.database, build.cuda, search.architecture, search.request.driver
            )
            yield Candidate(resolution, tuple(found))


def _distribution(search: Search) -> Iterator[Candidate]:
    request = search.request
    for build in search.database.distribution_builds:
        if build.torch != search.release.version or build.cuda is None:
            continue
        if request.platform not in (None, build.platform) or request.placed:
            continue
        if not _accepts(request, build.cuda, build.python):
            continue
        codes = [DeviceCode.parse(code) for code in build.codes]
        support = best_support(codes, search.card.compute_capability)
        if support != "none":
            resolution = Resolution(
                route="distribution",
                compute_capability=str(search.card.compute_capability),
                torch=build.torch,
                support=support,
                evidence=build.evidence,
                source=build.source,
                cuda=build.cuda,
                python=build.python,
                platform=build.platform,
                package=build.package,
                codes=build.codes,
                notes=_jit(support),
            )
            found = rules.driver(search.database, build.cuda, search.architecture, request.driver)
            yield Candidate(resolution, tuple(found))


def _accepts(request: Request, cuda: str, python: str) -> bool:
    return matcher("--cuda", request.cuda)(cuda) and matcher("--python", request.python)(python)


def _cpu(search: Search) -> Iterator[Candidate]:
    """Without a card any published wheel computes; its CUDA libraries stay unused."""
    for wheel in _wheels_of(search, "wheel"):
        resolution = Resolution(
            route="cpu",
            torch=wheel.torch,
            support="none",
            evidence=wheel.evidence,
            source=wheel.source,
            cuda=wheel.cuda,
            codes=wheel.codes,
            notes=("cpu",),
        )
        yield from _placed(search, wheel, resolution)


class _Place(NamedTuple):
    """A platform with a toolkit on it."""

    platform: Platform
    toolkit: CudaToolkit
    origin: str


def _source(search: Search) -> Iterator[Candidate]:
    capability = str(search.card.compute_capability)
    broken = (
        *rules.release_capability(search.release, search.card),
        *rules.general(search.database, {"route": "source", "compute_capability": capability}),
    )
    if broken:
        yield _left(search, broken)
        return
    places: list[_Place] = []
    accepts = matcher("--cuda", search.request.cuda)
    for toolkit in search.database.toolkits:
        if not accepts(toolkit.version):
            continue
        if broken := _toolkit_rules(search, toolkit):
            yield _left(search, broken)
        else:
            places.extend(_places(search, toolkit))
    for place in sorted(places, key=lambda place: _preference(search, place)):
        yield from _compiled(search, place)


def _left(search: Search, broken: tuple[Broken, ...]) -> Candidate:
    """A branch that is left before its axes are all decided."""
    resolution = Resolution(
        route="source", torch=search.release.version, support="none", evidence="", source=""
    )
    return Candidate(resolution, broken)


def _toolkit_rules(search: Search, toolkit: CudaToolkit) -> tuple[Broken, ...]:
    compiles = (
        *rules.nvcc(search.architecture, toolkit),
        *rules.release_cuda(search.release, toolkit),
    )
    driver = search.request.driver
    return compiles or tuple(
        rules.driver(search.database, toolkit.version, search.architecture, driver)
    )


def _places(search: Search, toolkit: CudaToolkit) -> Iterator[_Place]:
    for platform in _platforms(search):
        if platform.cuda is not None and platform.cuda.version == toolkit.version:
            yield _Place(platform, toolkit, "distribution")
        if toolkit.runfile is not None:
            yield _Place(platform, toolkit, "runfile")


def _preference(search: Search, place: _Place) -> tuple[object, ...]:
    """What is known to work, then what was built here, then no vendor download, then newest."""
    recommended = search.release.source_build.recommended_cuda
    version = place.toolkit.version
    return (
        recommended.index(version) if version in recommended else len(recommended),
        not place.platform.built,
        place.origin != "distribution",
        search.database.platforms.index(place.platform),
        tuple(-part for part in version_key(version)),
    )


def _compiled(search: Search, place: _Place) -> Iterator[Candidate]:
    axes = {
        "route": "source",
        "cuda": place.toolkit.version,
        "cuda_origin": place.origin,
        "platform": place.platform.name,
        "glibc": place.platform.glibc,
    }
    if broken := tuple(rules.general(search.database, axes)):
        yield _left(search, broken)
        return
    accepts = matcher("--gcc", search.request.gcc)
    for gcc in filter(accepts, _compilers(place)):
        if broken := tuple(rules.host_compiler(search.release, place.toolkit, gcc)):
            yield _left(search, broken)
        else:
            yield from _with_python(search, place, gcc)


def _with_python(search: Search, place: _Place, gcc: str) -> Iterator[Candidate]:
    accepts = matcher("--python", search.request.python)
    for python in place.platform.pythons:
        if accepts(python.version):
            broken = rules.release_python(search.release, python.version)
            yield Candidate(_built(search, place, gcc, python.version), tuple(broken))


def _compilers(place: _Place) -> list[str]:
    """The compiler the distribution pairs with its own CUDA first."""
    versions = [compiler.version for compiler in place.platform.compilers]
    if place.origin == "distribution" and place.platform.cuda is not None:
        versions.sort(key=lambda version: version != place.platform.cuda.gcc)  # type: ignore[union-attr]
    return versions


def _built(search: Search, place: _Place, gcc: str, python: str) -> Resolution:
    capability = search.card.compute_capability
    codes = [str(DeviceCode("sm", capability))]
    if search.request.ptx:
        codes.append(str(DeviceCode("compute", capability)))
    notes = () if place.platform.built else ("not-built-yet",)
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
        platform=place.platform.name,
        codes=tuple(codes),
        notes=notes,
    )
