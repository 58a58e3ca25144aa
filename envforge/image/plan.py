"""A resolution with everything it takes to render it: pure, no Docker, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from packaging.utils import parse_wheel_filename

from envforge.capability.build_tools import PinnedBuild, PinnedWheel, find_pinned_build
from envforge.capability.database import Database
from envforge.capability.lookup import covers_cudnn, find_platform, matcher
from envforge.capability.models import (
    CudaToolkit,
    Platform,
    PlatformCompiler,
    PlatformPython,
    Requirement,
    TorchRelease,
    Wheel,
    WheelFile,
    in_range,
)
from envforge.capability.profiles import Profile, SourceArchive, profiles_of
from envforge.capability.pythons import PythonSource, built_python, python_source_of
from envforge.capability.submodules import submodules_of
from envforge.capability.torchvision import TorchvisionSource, torchvision_of
from envforge.errors import NoFittingCudnn, SourceError, UsageError
from envforge.image.base import base_tag
from envforge.resolver import Resolution
from envforge.sources.fetch import WheelInput
from envforge.sources.git import GitTree
from envforge.values import ComputeCapability, version_key

Stage = Literal["toolchain", "torch", "runtime"]


class UrlInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that is fetched from one address."""

    name: str
    url: str
    sha256: str


class LocalTree(NamedTuple):
    """A source tree of the user's own, packed."""

    folder: Path
    packed: Path
    sha256: str


class SourceTree(NamedTuple):
    """The sources of a build, as one tar file below the context's inputs."""

    origin: SourceArchive | GitTree | LocalTree
    name: str
    identity: str
    """sha256 of the file; ``git:`` and the commit for a tree that git checks itself."""

    @property
    def strip(self) -> int:
        """Folders of the file around the tree: a published archive has one."""
        return 1 if isinstance(self.origin, SourceArchive) else 0

    @property
    def commit(self) -> str | None:
        """What HEAD of the unpacked tree must be; None: it is no work tree of git."""
        return self.origin.commit if isinstance(self.origin, GitTree) else None


class PythonBuild(NamedTuple):
    """A Python that is built from its own sources before anything else."""

    source: PythonSource
    packages: tuple[str, ...]
    configure: tuple[str, ...]
    modules: tuple[str, ...]
    """What of the standard library must have been compiled."""


class SourceParts(NamedTuple):
    """What only a build from source has."""

    profile: Profile
    tree: SourceTree
    compiler: PlatformCompiler
    python: PythonBuild | None = None
    """None: it is the distribution's."""
    runfile: UrlInput | None = None
    cudnn: WheelInput | None = None
    """None: it is built without."""
    tools: tuple[WheelInput, ...] = ()
    """Build tools as of the release's time; none: the distribution's, for its own tree."""
    imports: tuple[WheelInput, ...] = ()
    """What torch imports beside itself; none: the distribution's own packages."""
    torchvision: TorchvisionSource | None = None
    """What is built after torch."""

    @property
    def wheels(self) -> tuple[WheelInput, ...]:
        """Every wheel the build takes in, each once."""
        cudnn = (self.cudnn,) if self.cudnn else ()
        return tuple(dict.fromkeys((*cudnn, *self.tools, *self.imports)))

    @property
    def switches(self) -> dict[str, str]:
        """The environment of upstream's own build."""
        return {**self.profile.switches, **(self.profile.with_cudnn if self.cudnn else {})}


class Wanted(NamedTuple):
    """What a user decides beside the resolution; None: the database's default."""

    until: Stage = "runtime"
    profile: str | None = None
    tree: LocalTree | None = None
    cudnn: str | None = None
    """Versions as pip writes them; None: built without it."""
    torchvision: bool = True
    """Build the torchvision of the release, too, where its sources are known."""


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
    source: SourceParts | None = None
    """None: this plan installs a published wheel."""
    pip: WheelInput | None = None
    """What installs the wheels in place of the platform's own pip, which is too old for them."""

    @property
    def every_wheel(self) -> tuple[WheelInput, ...]:
        """Every wheel its build takes in, each once."""
        own = self.source.wheels if self.source else self.wheels
        return (*own, self.pip) if self.pip else own


DEFAULTS = Wanted()


def make_plan(database: Database, resolution: Resolution, wanted: Wanted = DEFAULTS) -> Plan:
    """Look up every record of a placed resolution.

    SourceError where a wheel's own requirements or a build's tools are not pinned for the plan's
    Python, or a release's commit is not known; UsageError for a profile that does not fit.
    """
    assert resolution.platform and resolution.python  # noqa: S101, PT018 -- placed, so both are set
    platform = find_platform(database, resolution.platform)
    plan = Plan(
        resolution=resolution,
        platform=platform,
        python=_python(database, platform, resolution),
        release=next(r for r in database.releases if r.version == resolution.torch),
        until=wanted.until if resolution.route == "source" else "runtime",
        base=base_tag(platform),
        pip=_pip(database, platform),
    )
    if resolution.route == "source":
        plan = plan._replace(source=_source_parts(database, plan, wanted))
    elif wanted.profile or wanted.tree:
        raise UsageError("only a build from source has a profile and a source tree")
    else:
        plan = _from_wheel(database, plan)
    _refuse_foreign_wheels(database, plan)
    return plan


def _pip(database: Database, platform: Platform) -> WheelInput | None:
    """None: the platform's own takes every wheel."""
    pip = database.build_tools.pip
    return None if in_range(platform.pip, pip.versions) else _named(pip.file)


def _refuse_foreign_wheels(database: Database, plan: Plan) -> None:
    """Wheels are pinned for a Python: where an older platform has it, too, they may not start."""
    for wheel in plan.every_wheel:
        needed = database.build_tools.glibc_of(wheel.name)
        if needed and version_key(needed) > version_key(plan.platform.glibc):
            raise SourceError(
                f"{wheel.name} does not run on {plan.platform.name}",
                because=(f"it needs glibc {needed}, the platform has {plan.platform.glibc}",),
                hint=f"a newer platform than {plan.platform.name}, with --platform",
            )


def _python(database: Database, platform: Platform, resolution: Resolution) -> PlatformPython:
    if resolution.python_origin == "source":
        return built_python(database, python_source_of(database, str(resolution.python)))
    return next(python for python in platform.pythons if python.version == resolution.python)


def _from_wheel(database: Database, plan: Plan) -> Plan:
    wheel = next(w for w in database.wheels if _is(w, plan.resolution))
    file = next(f for f in wheel.files if f.tag == plan.python.wheel_tag)
    requirements = _requirements(database, plan)
    inputs = [_wheel_input("torch", wheel.torch, file)]
    inputs += [_wheel_input(row.project, row.version, row.file) for row in requirements]
    return plan._replace(wheels=tuple(inputs))


def _is(wheel: Wheel, resolution: Resolution) -> bool:
    return wheel.torch == resolution.torch and wheel.variant == resolution.variant


def find_requirements(database: Database, torch: str, tag: str) -> tuple[Requirement, ...]:
    """Return the packages a release's wheel needs on a Python; none where they are not pinned."""
    for requirements in database.requirements:
        if (requirements.torch, requirements.tag) == (torch, tag):
            return requirements.packages
    return ()


def _requirements(database: Database, plan: Plan) -> tuple[Requirement, ...]:
    found = find_requirements(database, plan.release.version, plan.python.wheel_tag)
    if found:
        return found
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


def _source_parts(database: Database, plan: Plan, wanted: Wanted) -> SourceParts:
    resolution = plan.resolution
    profile = _profile(database, plan, wanted.profile)
    toolkit = next(t for t in database.toolkits if t.version == resolution.cuda)
    built = _python_build(database, resolution)
    pinned = _pinned_build(database, plan, profile, built)
    return SourceParts(
        profile=profile,
        tree=_local(wanted.tree) if wanted.tree else _tree(database, plan, profile),
        compiler=next(c for c in plan.platform.compilers if c.version == resolution.gcc),
        python=built,
        runfile=_runfile(toolkit) if resolution.cuda_origin == "runfile" else None,
        cudnn=_cudnn(database, plan, wanted.cudnn) if wanted.cudnn else None,
        tools=_files(database, pinned.tools) if pinned else (),
        imports=_files(database, pinned.imports) if pinned else (),
        torchvision=_torchvision(database, plan, wanted),
    )


def _python_build(database: Database, resolution: Resolution) -> PythonBuild | None:
    if resolution.python_origin != "source":
        return None
    source, table = python_source_of(database, str(resolution.python)), database.pythons
    options = (*table.configure, *source.configure)
    return PythonBuild(source, table.packages, options, table.modules)


def _pinned_build(
    database: Database, plan: Plan, profile: Profile, built: PythonBuild | None
) -> PinnedBuild | None:
    """None: the distribution's own tree, for its own Python, is built with its own tools.

    SourceError where what the build runs is not pinned: an owner must not learn it after hours.
    """
    if profile.archive and built is None:
        return None
    pinned = find_pinned_build(database, plan.release.version, plan.python.wheel_tag)
    if plan.until == "toolchain":  # nothing of it runs there
        return pinned
    if pinned is None or (built and pinned.distribution):
        raise _unpinned(plan, pinned)
    return pinned


def _unpinned(plan: Plan, pinned: PinnedBuild | None) -> SourceError:
    torch, python = plan.release.version, plan.python.version
    missing = f": {', '.join(pinned.distribution)}" if pinned else ""
    return SourceError(
        f"what building torch {torch} on Python {python} runs and imports is not pinned in the"
        f" database yet{missing}",
        because=("an image is built only from files whose sha256 is known",),
        hint=f"python scripts/pin_build_tools.py {torch}:{plan.python.wheel_tag}  pins them, in a"
        " checkout of envforge",
    )


def _torchvision(database: Database, plan: Plan, wanted: Wanted) -> TorchvisionSource | None:
    """None with a Python of its own, too: Pillow, which torchvision imports, is not pinned."""
    if not wanted.torchvision or plan.resolution.python_origin == "source":
        return None
    return torchvision_of(database, plan.release.version)


def _profile(database: Database, plan: Plan, name: str | None) -> Profile:
    fitting = profiles_of(database, plan.release.version, plan.platform.name)
    for profile in fitting:
        if name in (None, profile.name):
            return profile
    place = f"torch {plan.release.version} on {plan.platform.name}"
    there = ", ".join(profile.name for profile in fitting)
    if name is None:
        raise SourceError(f"no feature profile of {place} is in the database")
    raise UsageError(f"there is no profile {name!r} for {place}", hint=f"there are: {there}")


def _files(database: Database, names: tuple[str, ...]) -> tuple[WheelInput, ...]:
    return tuple(map(_named, database.pinned_builds.files_of(names)))


def _named(file: PinnedWheel) -> WheelInput:
    """Read project, version and tag from a wheel's name."""
    project, version, _, tags = parse_wheel_filename(file.name)
    first = min(tags, key=str)
    return WheelInput(
        distribution=project,
        version=str(version),
        name=file.name,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        tag=f"{first.interpreter}-{first.abi}",
    )


def _local(tree: LocalTree) -> SourceTree:
    return SourceTree(tree, "source.tar", tree.sha256)


def _tree(database: Database, plan: Plan, profile: Profile) -> SourceTree:
    if profile.archive is not None:
        return SourceTree(profile.archive, profile.archive.name, profile.archive.sha256)
    release = plan.release
    commit = release.commit or release.wheel_commit
    if commit is None:
        raise SourceError(
            f"the commit of torch {release.version} is not in the database",
            because=("a tag alone may be moved: sources are taken by commit",),
            hint="--source DIR builds a tree you have",
        )
    tree = GitTree(
        urls=(database.repository.url,),
        commit=commit,
        tag=release.tag if release.commit else None,
        submodules=submodules_of(database, release.version),
    )
    return SourceTree(tree, "source.tar", f"git:{commit}")


def _runfile(toolkit: CudaToolkit) -> UrlInput | None:
    if toolkit.runfile is None:
        return None
    name = toolkit.runfile.url.rpartition("/")[2]
    return UrlInput(name=name, url=toolkit.runfile.url, sha256=toolkit.runfile.sha256)


def _cudnn(database: Database, plan: Plan, wanted: str) -> WheelInput:
    """Choose the newest pinned cuDNN that fits the toolkit, the release and the card."""
    cuda, accepted = str(plan.resolution.cuda), matcher("--cudnn", wanted)
    card = ComputeCapability.parse(str(plan.resolution.compute_capability))
    faults = []
    for row in database.cudnn.wheels:
        for version in sorted(row.files, key=version_key, reverse=True):
            if not accepted(version) or not in_range(cuda, row.cuda):
                continue
            fault = _cudnn_fault(database, plan.release, version, cuda, card)
            if fault is None:
                return _wheel_input(row.project, version, row.files[version])
            faults.append(f"cuDNN {version}: {fault}")
    raise NoFittingCudnn(
        f"no cuDNN {wanted} in the database fits torch {plan.release.version} with CUDA {cuda}",
        because=tuple(faults),
        hint="leave out --cudnn: it is built without, and runs on PyTorch's own kernels",
    )


def _cudnn_fault(
    database: Database, release: TorchRelease, version: str, cuda: str, card: ComputeCapability
) -> str | None:
    bounds = release.source_build.cudnn
    if bounds is not None and not in_range(version, bounds.versions):
        return f"torch {release.version} accepts {bounds.versions}"
    shipped = [w.cudnn.version for w in database.wheels if w.torch == release.version and w.cudnn]
    newest = max((version_key(each)[0] for each in shipped), default=None)
    if newest is not None and version_key(version)[0] > newest:
        return f"torch {release.version} was never published with a cuDNN newer than {newest}"
    covered = covers_cudnn(database, version, cuda, card)
    if covered is None:
        return f"no source says whether it computes on {card}"
    return None if covered else f"it has no code for {card}"
