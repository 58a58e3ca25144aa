"""The rules, one function each: do these facts go together? Gives what is broken.

Each bound stands once, in its record; the id of its rule is made from the record's name. A rule
about a whole axis is asked once for all its values (:class:`Refused`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from envforge.capability.database import Database
from envforge.capability.lookup import Card, driver_floor, first_branch
from envforge.capability.models import (
    Architecture,
    CondaBuild,
    CudaToolkit,
    DistributionBuild,
    Fact,
    Platform,
    Rule,
    TorchRelease,
    Wheel,
    in_range,
)
from envforge.resolver.model import Broken, RouteKind
from envforge.values import version_key


class Refused(NamedTuple):
    """The values of one axis that a record refuses, and the rule it refuses all of them by."""

    values: frozenset[str]
    broken: tuple[Broken, ...]


Grouped = list[tuple[tuple[Broken, ...], int]]
"""Rules that are broken together, and how many times."""


class Axis:
    """How often each value of an axis stands somewhere; what two records refuse is counted."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = values
        self._counted: dict[tuple[frozenset[str], frozenset[str]], tuple[int, int, int]] = {}

    def refused(self, first: Refused, second: Refused) -> Grouped:
        """Return the rules that are broken, of one record or of both, and how often.

        Releases differ in their rules more than in what these refuse: that is counted once.
        """
        key = first.values, second.values
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted[key] = self._count(*key)
        both, only_first, only_second = counted
        found = [(first.broken + second.broken, both)] if both else []
        if only_first:
            found.append((first.broken, only_first))
        if only_second:
            found.append((second.broken, only_second))
        return found

    def _count(self, first: frozenset[str], second: frozenset[str]) -> tuple[int, int, int]:
        both = self._sum(first & second)
        return both, self._sum(first) - both, self._sum(second) - both

    def _sum(self, refused: frozenset[str]) -> int:
        return sum(map(self._values.__getitem__, refused & self._values.keys()))


def _broken(id_: str, kind: str, record: Fact, **facts: str) -> Broken:
    return Broken(id_, kind, tuple(facts.items()), record.source, record.evidence)


def desktop(architecture: Architecture) -> Iterator[Broken]:
    """The card must be one for x86-64 machines: every build the database knows is for those."""
    if architecture.tegra:
        yield _broken(
            f"compute-{architecture.compute_capability}-tegra",
            "tegra",
            architecture,
            compute_capability=architecture.compute_capability,
        )


def driver_of_card(
    database: Database, architecture: Architecture, has: str | None
) -> Iterator[Broken]:
    """The driver at hand must not be older than the card itself."""
    first = first_branch(architecture, database.drivers)
    if has is None or first is None or version_key(has)[0] >= version_key(first.branch)[0]:
        return
    yield _broken(
        f"compute-{architecture.compute_capability}-first-driver",
        "first-driver",
        first,
        compute_capability=architecture.compute_capability,
        architecture=architecture.name,
        branch=first.branch,
        driver=has,
    )


def kernels(wheel: Wheel, card: Card) -> Iterator[Broken]:
    """The wheel's own kernels must run on the card."""
    if wheel.support_on(card.compute_capability) == "none":
        name = f"wheel-{wheel.torch}" + (f"-{wheel.variant}" if wheel.variant else "")
        yield _broken(
            f"{name}-kernels",
            "kernels",
            wheel,
            torch=wheel.torch,
            variant=wheel.variant or "default",
            codes=" ".join(wheel.codes),
            compute_capability=str(card.compute_capability),
        )


def shipped_kernels(
    build: CondaBuild | DistributionBuild, route: RouteKind, card: Card
) -> Iterator[Broken]:
    """The kernels of a build that somebody else ships must run on the card."""
    if build.support_on(card.compute_capability) == "none":
        yield _broken(
            f"{route}-{build.torch}-cuda-{build.cuda}-kernels",
            "shipped-kernels",
            build,
            route=route,
            torch=build.torch,
            cuda=str(build.cuda),
            codes=" ".join(build.codes),
            compute_capability=str(card.compute_capability),
        )


def driver(
    database: Database, cuda: str, architecture: Architecture, has: str | None
) -> Iterator[Broken]:
    """The driver at hand, or else the card's last branch, must start programs of this CUDA."""
    floor = driver_floor(database, cuda)
    if floor is None:
        return
    if has is not None:
        if version_key(has) < version_key(floor):
            yield _driver_broken(database, cuda, floor, "driver-at-hand", has)
    elif (last := architecture.last_driver_branch) and version_key(last) < version_key(floor)[:1]:
        yield _broken(
            f"compute-{architecture.compute_capability}-driver",
            "last-driver",
            architecture,
            compute_capability=architecture.compute_capability,
            branch=last,
            cuda=cuda,
            floor=floor,
        )


def _driver_broken(database: Database, cuda: str, floor: str, kind: str, has: str) -> Broken:
    toolkit = next(row for row in database.toolkits if row.version.startswith(cuda))
    return _broken(f"cuda-{cuda}-driver", kind, toolkit, cuda=cuda, floor=floor, driver=has)


@lru_cache(1024)
def _outside(versions: frozenset[str], bounds: str) -> frozenset[str]:
    """Return the versions out of bounds: few different ones, asked for by every release."""
    return frozenset(version for version in versions if not in_range(version, bounds))


def nvcc(architecture: Architecture, toolkits: frozenset[str]) -> Refused:
    """The toolkit's compiler must emit code for the card."""
    rule = _broken(
        f"compute-{architecture.compute_capability}-cuda",
        "nvcc",
        architecture,
        compute_capability=architecture.compute_capability,
        architecture=architecture.name,
        range=architecture.cuda,
    )
    return Refused(_outside(toolkits, architecture.cuda), (rule,))


def release_cuda(release: TorchRelease, toolkits: frozenset[str]) -> Refused:
    """The release's sources must compile with the toolkit."""
    bounds = release.source_build.cuda
    rule = _broken(
        f"torch-{release.version}-cuda",
        "torch-cuda",
        release.source_build,
        torch=release.version,
        range=bounds,
    )
    return Refused(_outside(toolkits, bounds), (rule,))


def release_capability(release: TorchRelease, card: Card) -> Iterator[Broken]:
    """The release's kernels must be written for the card's generation."""
    build = release.source_build
    if not in_range(str(card.compute_capability), build.compute_capability):
        yield _broken(
            f"torch-{release.version}-compute-capability",
            "torch-capability",
            build,
            torch=release.version,
            range=build.compute_capability,
            compute_capability=str(card.compute_capability),
        )._replace(source=build.compute_capability_basis or build.source)


def host_compiler(toolkit: CudaToolkit, compilers: frozenset[str]) -> Refused:
    """The toolkit's headers must accept the host compiler."""
    rule = _broken(
        f"cuda-{toolkit.version}-gcc",
        "cuda-gcc",
        toolkit,
        cuda=toolkit.version,
        range=toolkit.gcc,
    )
    return Refused(_outside(compilers, toolkit.gcc), (rule,))


def release_gcc(release: TorchRelease, compilers: frozenset[str]) -> Refused:
    """The release's sources must compile with the host compiler."""
    build = release.source_build
    if build.gcc is None:
        return Refused(frozenset(), ())
    rule = _broken(
        f"torch-{release.version}-gcc",
        "torch-gcc",
        build,
        torch=release.version,
        range=build.gcc,
    )
    return Refused(_outside(compilers, build.gcc), (rule,))


def release_python(release: TorchRelease, pythons: Iterable[str]) -> Refused:
    """The release must know the Python, or a patch of the series must lift that."""
    known = release.source_build.pythons
    lifted = release.source_build.patched_pythons
    rule = _broken(
        f"torch-{release.version}-python",
        "torch-python",
        release,
        torch=release.version,
        pythons=", ".join(known) or "none known",
    )
    return Refused(frozenset(pythons).difference(known, lifted), (rule,))


def wheel_python(
    wheel: Wheel, published: Sequence[str], accepts: Callable[[str], bool]
) -> Iterator[Broken]:
    """One of the Pythons the wheel is published for must be accepted."""
    if not any(accepts(python) for python in published):
        yield _broken(
            f"wheel-{wheel.torch}-python",
            "wheel-python",
            wheel,
            torch=wheel.torch,
            tags=" ".join(published) or "none on the package index",
        )


def wheel_platform(wheel: Wheel, platform: Platform, wheel_tag: str) -> Iterator[Broken]:
    """The wheel must be published for the platform's Python and start on its glibc."""
    yield from wheel_python(wheel, [file.tag for file in wheel.files], wheel_tag.__eq__)
    if wheel.glibc_min and version_key(platform.glibc) < version_key(wheel.glibc_min):
        yield _broken(
            f"wheel-{wheel.torch}-glibc",
            "wheel-glibc",
            wheel,
            torch=wheel.torch,
            glibc=wheel.glibc_min,
        )


def about(database: Database, axes: Collection[str]) -> tuple[Rule, ...]:
    """The constraints of ``rules.yaml`` that speak of none but these axes."""
    known = frozenset(axes)
    return tuple(row for row in database.rules if known >= row.when.keys() | row.require.keys())


def general(constraints: Iterable[Rule], axes: Mapping[str, str]) -> tuple[Broken, ...]:
    """The constraints, which are :func:`about` these axes, must hold."""
    broken = [row for row in constraints if _hold(row.when, axes) and not _hold(row.require, axes)]
    return tuple(_broken(row.id, "general", row, why=row.why) for row in broken) if broken else ()


def answers(constraints: Iterable[Rule], axis: str, value: str) -> tuple[bool, ...]:
    """Say which conditions on the axis hold for a value: two of the same answers break the same."""
    return tuple(
        _is_met(conditions[axis], value)
        for row in constraints
        for conditions in (row.when, row.require)
        if axis in conditions
    )


def _hold(conditions: Mapping[str, str], axes: Mapping[str, str]) -> bool:
    return all(_is_met(condition, axes[axis]) for axis, condition in conditions.items())


def _is_met(condition: str, value: str) -> bool:
    """A condition is a range, or words of which one must be equal."""
    if condition[0] in "<>":
        return in_range(value, condition)
    return value in condition.split("|")
