"""What all releases of one request stand on: worked out once, and only when it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property

from envforge.capability.database import Database
from envforge.capability.lookup import Card, matcher
from envforge.capability.models import Architecture, CudaToolkit, Platform, PlatformPython
from envforge.resolver import rules
from envforge.resolver.model import Broken, Request
from envforge.values import version_key

Site = tuple[tuple[bool, ...], tuple[str, ...], bool]
"""Of a toolkit: what rules say to it, the platforms that ship it, whether others can have it."""

Hosts = tuple[rules.Grouped, rules.Axis]
"""Of the places with a toolkit: the rules that some break, the host compilers of the others."""

AXES_OF_PLACE = ("route", "cuda", "cuda_origin", "platform", "glibc")
AXES_OF_BUILT_PYTHON = ("route", "python_origin", "python", "platform")


class Terrain:
    """What all requests stand on: an explanation asks several."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.on_places = rules.about(database, AXES_OF_PLACE)
        self.on_built_pythons = rules.about(database, AXES_OF_BUILT_PYTHON)
        self._places: dict[str, tuple[Place, ...]] = {}
        self._sites: dict[str, Site] = {}
        self._broken: dict[tuple[tuple[bool, ...], str, str], tuple[Broken, ...]] = {}
        self._refused_built: dict[tuple[str, str], tuple[Broken, ...]] = {}
        self._refused_gcc: dict[str, rules.Refused] = {}
        self._compilers = frozenset(
            row.version for platform in database.platforms for row in platform.compilers
        )

    def places(self, toolkit: CudaToolkit) -> tuple[Place, ...]:
        """Every platform that can have the toolkit, in the order of the data."""
        found = self._places.get(toolkit.version)
        if found is None:
            found = self._places[toolkit.version] = tuple(self._found(toolkit))
        return found

    def site(self, toolkit: CudaToolkit) -> Site:
        """Return what decides about its places; few toolkits differ in it.

        Hosts are counted for each site: for each toolkit, explanations took up to a fifth longer.
        """
        found = self._sites.get(toolkit.version)
        if found is None:
            held = rules.answers(self.on_places, "cuda", toolkit.version)
            owners = self._owners.get(toolkit.version, ())
            found = self._sites[toolkit.version] = (held, owners, toolkit.runfile is not None)
        return found

    def broken(self, place: Place) -> tuple[Broken, ...]:
        """Return the rules that a place breaks: of alike toolkits, one is asked."""
        platform = place.platform
        key = (self.site(place.toolkit)[0], place.origin, platform.name)
        found = self._broken.get(key)
        if found is None:
            cuda = place.toolkit.version
            values = ("source", cuda, place.origin, platform.name, platform.glibc)
            axes = dict(zip(AXES_OF_PLACE, values, strict=True))
            found = self._broken[key] = rules.general(self.on_places, axes)
        return found

    def refused_built(self, platform: Platform, python: str) -> tuple[Broken, ...]:
        """Return what the platform's libraries have against building that Python."""
        key = (platform.name, python)
        found = self._refused_built.get(key)
        if found is None:
            values = ("source", "source", python, platform.name)
            axes = dict(zip(AXES_OF_BUILT_PYTHON, values, strict=True))
            found = self._refused_built[key] = rules.general(self.on_built_pythons, axes)
        return found

    def refused_gcc(self, toolkit: CudaToolkit) -> rules.Refused:
        """Host compilers of any platform that the toolkit's headers refuse."""
        found = self._refused_gcc.get(toolkit.version)
        if found is None:
            found = rules.host_compiler(toolkit, self._compilers)
            self._refused_gcc[toolkit.version] = found
        return found

    @cached_property
    def _owners(self) -> Mapping[str, tuple[str, ...]]:
        """Toolkit -> the platforms that ship it."""
        found: dict[str, tuple[str, ...]] = {}
        for platform in self.database.platforms:
            if platform.cuda is not None:
                version = platform.cuda.version
                found[version] = (*found.get(version, ()), platform.name)
        return found

    def _found(self, toolkit: CudaToolkit) -> Iterator[Place]:
        for rank, platform in enumerate(self.database.platforms):
            if platform.cuda is not None and platform.cuda.version == toolkit.version:
                yield Place(self, rank, platform, toolkit, "distribution")
            if toolkit.runfile is not None:
                yield Place(self, rank, platform, toolkit, "runfile")


class Ground:
    """A request without its release."""

    def __init__(self, terrain: Terrain, request: Request) -> None:
        self.terrain = terrain
        self.database = terrain.database
        self.request = request
        self.accepts_cuda = matcher("--cuda", request.cuda)
        self.accepts_gcc = matcher("--gcc", request.gcc)
        self.accepts_python = matcher("--python", request.python)
        self._drivers: dict[str, tuple[Broken, ...]] = {}
        self._compilers: dict[Place, tuple[str, ...]] = {}
        self._hosts: dict[Site, Hosts] = {}

    @property
    def card(self) -> Card:
        """The card; a route that computes on one is never searched without it."""
        assert self.request.card is not None  # noqa: S101 -- callers choose the route by this
        return self.request.card

    @cached_property
    def architecture(self) -> Architecture:
        return self.database.architectures[str(self.card.compute_capability)]

    @cached_property
    def unserved(self) -> tuple[Broken, ...]:
        """What no route can mend: a card of another kind of machine, a driver older than it."""
        driver = None if self.request.driver_holds_card else self.request.driver
        desktop = tuple(rules.desktop(self.architecture))
        return desktop or tuple(rules.driver_of_card(self.database, self.architecture, driver))

    @cached_property
    def uncompiled(self) -> tuple[Broken, ...]:
        """What forbids every source build for the card, whatever the release."""
        axes = {"route": "source", "compute_capability": str(self.card.compute_capability)}
        return rules.general(rules.about(self.database, axes), axes)

    def driver(self, cuda: str) -> tuple[Broken, ...]:
        """Apply the driver's rule to programs of this CUDA."""
        found = self._drivers.get(cuda)
        if found is None:
            found = self._drivers[cuda] = tuple(
                rules.driver(self.database, cuda, self.architecture, self.request.driver)
            )
        return found

    @cached_property
    def platforms(self) -> tuple[Platform, ...]:
        asked = self.request.platform
        return tuple(row for row in self.database.platforms if asked in (None, row.name))

    @cached_property
    def pythons(self) -> tuple[tuple[Platform, PlatformPython], ...]:
        return tuple(
            (platform, python)
            for platform in self.platforms
            for python in platform.pythons
            if self.accepts_python(python.version)
        )

    @cached_property
    def pythons_of(self) -> Mapping[str, list[str]]:
        """Platform -> its Pythons that are asked for; none that has none of them."""
        found: dict[str, list[str]] = {}
        for platform, python in self.pythons:
            found.setdefault(platform.name, []).append(python.version)
        return found

    @cached_property
    def versions_of_python(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(python.version for _, python in self.pythons))

    @cached_property
    def built_pythons(self) -> tuple[str, ...]:
        """Pythons that can be built from source, in the order of the data."""
        known = (python.version for python in self.database.pythons.versions)
        return tuple(filter(self.accepts_python, known))

    @cached_property
    def toolkits(self) -> Mapping[str, CudaToolkit]:
        return {
            toolkit.version: toolkit
            for toolkit in self.database.toolkits
            if self.accepts_cuda(toolkit.version)
        }

    @cached_property
    def versions_of_cuda(self) -> frozenset[str]:
        return frozenset(self.toolkits)

    @cached_property
    def axis_of_cuda(self) -> rules.Axis:
        return rules.Axis(dict.fromkeys(self.toolkits, 1))

    @cached_property
    def nvcc(self) -> rules.Refused:
        return rules.nvcc(self.architecture, self.versions_of_cuda)

    @cached_property
    def compilers(self) -> frozenset[str]:
        found = {compiler.version for row in self.platforms for compiler in row.compilers}
        return frozenset(filter(self.accepts_gcc, found))

    @cached_property
    def compilers_on(self) -> Mapping[str, list[str]]:
        """Platform -> its host compilers that are asked for."""
        return {
            platform.name: [
                row.version for row in platform.compilers if row.version in self.compilers
            ]
            for platform in self.platforms
        }

    @property
    def is_narrow(self) -> bool:
        """Host compilers or platforms were chosen: only then is it worth looking at each place."""
        return bool(self.request.gcc or self.request.platform)

    @cached_property
    def undriven(self) -> Mapping[str, tuple[Broken, ...]]:
        """Toolkits that compile for the card, and whose programs the driver does not start."""
        compiling = (toolkit for toolkit in self.toolkits if toolkit not in self.nvcc.values)
        return {toolkit: broken for toolkit in compiling if (broken := self.driver(toolkit))}

    @cached_property
    def compiling(self) -> frozenset[str]:
        """Toolkits that compile for the card, and whose programs the driver starts."""
        return self.versions_of_cuda.difference(self.nvcc.values, self.undriven)

    @cached_property
    def compilers_beside(self) -> Mapping[str, set[str]]:
        """Toolkit of those -> the host compilers beside which some platform has it.

        A platform without a Python that is asked for has none of them.
        """
        found: dict[str, set[str]] = {}
        for place in self.places:
            name, toolkit = place.platform.name, place.toolkit
            asked = self.compilers_on[name]
            if not asked or place.broken or not (self.built_pythons or name in self.pythons_of):
                continue
            accepted = set(asked) - self.terrain.refused_gcc(toolkit).values
            found.setdefault(toolkit.version, set()).update(accepted)
        return found

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every platform with every toolkit that compiles, best first, whatever rule it breaks."""
        found = (
            place
            for toolkit in self.compiling
            for place in self.places_with(self.toolkits[toolkit])
        )
        return tuple(sorted(found, key=lambda place: place.preference))

    def places_with(self, toolkit: CudaToolkit) -> Iterator[Place]:
        """Yield the places with the toolkit that are asked for."""
        asked = self.request.platform
        return (
            place for place in self.terrain.places(toolkit) if asked in (None, place.platform.name)
        )

    def compilers_of(self, place: Place) -> tuple[str, ...]:
        """Return the place's host compilers that are asked for."""
        found = self._compilers.get(place)
        if found is None:
            asked = (gcc for gcc in place.compilers if gcc in self.compilers)
            found = self._compilers[place] = tuple(asked)
        return found

    def refused_with(self, toolkit: CudaToolkit, refused: rules.Refused) -> rules.Grouped:
        """Return what breaks a rule at its place with the toolkit, or at its host compiler there.

        ``refused``: host compilers that the release refuses.
        """
        site = self.terrain.site(toolkit)
        found = self._hosts.get(site)
        if found is None:
            found = self._hosts[site] = self._hosts_with(toolkit)
        broken_places, compilers = found
        return [*broken_places, *compilers.refused(self.terrain.refused_gcc(toolkit), refused)]

    def _hosts_with(self, toolkit: CudaToolkit) -> Hosts:
        broken_places, compilers = Counter[tuple[Broken, ...]](), Counter[str]()
        for place in self.places_with(toolkit):
            if place.broken:
                broken_places[place.broken] += 1
            else:
                compilers.update(self.compilers_on[place.platform.name])
        return list(broken_places.items()), rules.Axis(compilers)


class Place:
    """A platform with a toolkit on it."""

    def __init__(
        self, terrain: Terrain, rank: int, platform: Platform, toolkit: CudaToolkit, origin: str
    ) -> None:
        self.terrain = terrain
        self.platform = platform
        self.toolkit = toolkit
        self.origin = origin
        newest_first = tuple(-part for part in version_key(toolkit.version))
        self.preference = (not platform.built, origin != "distribution", rank, newest_first)
        """What was built here, then no vendor download, then newest."""

    def has_python(self, version: str) -> bool:
        """Tell whether the platform's own archive has that Python."""
        return any(python.version == version for python in self.platform.pythons)

    @cached_property
    def broken(self) -> tuple[Broken, ...]:
        return self.terrain.broken(self)

    @cached_property
    def compilers(self) -> tuple[str, ...]:
        """Host compilers; the one the distribution pairs with its own CUDA comes first."""
        versions = [compiler.version for compiler in self.platform.compilers]
        if self.origin == "distribution" and self.platform.cuda is not None:
            own = self.platform.cuda.gcc
            versions.sort(key=lambda version: version != own)
        return tuple(versions)
