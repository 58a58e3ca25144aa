"""A resolution with everything it takes to render it: pure, no Docker, no network."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from envforge.capability.lookup import find_platform
from envforge.capability.models import (
    Database,
    Platform,
    PlatformCompiler,
    PlatformPython,
    RequirementSet,
    TorchRelease,
    Wheel,
    WheelFile,
)
from envforge.errors import SourceError
from envforge.image.base import base_tag
from envforge.resolver import Resolution
from envforge.sources.fetch import WheelInput

Stage = Literal["toolchain", "torch", "runtime"]


class UrlInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that is fetched from one address."""

    name: str
    url: str
    sha256: str


class Plan(NamedTuple):
    """What is to be built, every name of the resolution replaced by its record."""

    resolution: Resolution
    platform: Platform
    python: PlatformPython
    release: TorchRelease
    until: Stage
    base: str
    """Tag of the base image."""
    wheels: tuple[WheelInput, ...] = ()
    compiler: PlatformCompiler | None = None
    runfile: UrlInput | None = None
    repository: str = ""


def make_plan(database: Database, resolution: Resolution, until: Stage = "runtime") -> Plan:
    """Look up every record of a placed resolution.

    SourceError where a wheel's own requirements are not pinned for the platform's Python.
    """
    assert resolution.platform and resolution.python  # noqa: S101, PT018 -- placed, so both are set
    platform = find_platform(database, resolution.platform)
    plan = Plan(
        resolution=resolution,
        platform=platform,
        python=next(p for p in platform.pythons if p.version == resolution.python),
        release=next(r for r in database.releases if r.version == resolution.torch),
        until=until,
        base=base_tag(platform),
    )
    return (
        _from_source(database, plan)
        if resolution.route == "source"
        else _from_wheel(database, plan)
    )


def _from_wheel(database: Database, plan: Plan) -> Plan:
    wheel = next(w for w in database.wheels if _is(w, plan.resolution))
    file = next(f for f in wheel.files if f.tag == plan.python.wheel_tag)
    requirements = _requirements(database, plan)
    inputs = [_wheel_input("torch", wheel.torch, file)]
    inputs += [_wheel_input(row.project, row.version, row.file) for row in requirements.packages]
    return plan._replace(wheels=tuple(inputs))


def _is(wheel: Wheel, resolution: Resolution) -> bool:
    return wheel.torch == resolution.torch and wheel.variant == resolution.variant


def _requirements(database: Database, plan: Plan) -> RequirementSet:
    for requirements in database.requirements:
        if (requirements.torch, requirements.tag) == (plan.release.version, plan.python.wheel_tag):
            return requirements
    raise SourceError(
        f"the packages torch {plan.release.version} needs on Python {plan.python.version} are not"
        " pinned in the database yet",
        because=("an image is built only from files whose sha256 is known",),
        hint=f"without an image: python{plan.python.version} -m pip install"
        f" torch=={plan.release.version}",
    )


def _wheel_input(project: str, version: str, file: WheelFile) -> WheelInput:
    return WheelInput(
        distribution=project,
        version=version,
        name=file.name,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        tag=file.tag,
    )


def _from_source(database: Database, plan: Plan) -> Plan:
    resolution = plan.resolution
    toolkit = next(t for t in database.toolkits if t.version == resolution.cuda)
    runfile = None
    if resolution.cuda_origin == "runfile" and toolkit.runfile is not None:
        name = toolkit.runfile.url.rpartition("/")[2]
        runfile = UrlInput(name=name, url=toolkit.runfile.url, sha256=toolkit.runfile.sha256)
    return plan._replace(
        compiler=next(c for c in plan.platform.compilers if c.version == resolution.gcc),
        runfile=runfile,
        repository=database.repository.url,
    )
