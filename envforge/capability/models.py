"""The records of the capability database: what the YAML under ``data/`` may say, and nothing else.

Every record has a ``source`` and an ``evidence`` word. Versions are strings of dotted integers;
ranges have the form ``>=5.0,<10.3`` (see :class:`envforge.values.VersionRange`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from envforge.values import ComputeCapability, DeviceCode, VersionRange, best_support

Evidence = Literal["measured", "vendor-docs", "upstream", "third-party", "inferred"]
Version = Annotated[str, msgspec.Meta(pattern=r"^\d+(\.\d+)*$")]
Capability = Annotated[str, msgspec.Meta(pattern=r"^\d{1,2}\.\d$")]
Range = Annotated[str, msgspec.Meta(pattern=r"^(>=[\d.]+(,<[\d.]+)?|<[\d.]+)$")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}$")]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Fact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every record carries: where it comes from, and how well it is known."""

    source: Text
    evidence: Evidence


class Device(
    msgspec.Struct, frozen=True, kw_only=False, array_like=True, forbid_unknown_fields=True
):
    """One PCI function: a row ``[id, chip, compute capability, name]`` of ``devices.yaml``."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4}$")]
    chip: Text
    compute_capability: Capability
    name: Text


class Architecture(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One compute capability: which toolkits compile for it, which driver is the last."""

    compute_capability: Capability
    name: Text
    cuda: Range
    """Toolkits whose nvcc emits code for it."""
    last_driver_branch: str | None = None
    """None: the newest branch still knows it."""
    tegra: bool = False
    """On a Jetson the driver is part of the board's own release; desktop branches do not count."""
    notes: tuple[str, ...] = ()


class Runfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """NVIDIA's self-extracting installer of a toolkit."""

    url: Text
    sha256: Sha256


class CudaToolkit(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One CUDA toolkit."""

    version: Version
    gcc: Range
    """Host compilers its headers accept."""
    driver_min: Version | None = None
    """The driver its release notes name."""
    driver_min_compatible: Version | None = None
    """The oldest driver that minor-version compatibility allows, for programs that carry SASS."""
    runfile: Runfile | None = None
    notes: tuple[str, ...] = ()


class DriverBranch(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One branch of NVIDIA's Linux driver."""

    branch: Version
    cuda_max: Version
    """Newest toolkit (major.minor) it serves without minor-version compatibility."""
    last_version: Version | None = None
    status: str = ""


class SourceBuild(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What building a torch release from source asks for."""

    cuda: Range
    compute_capability: Range
    compute_capability_basis: str = ""
    gcc: Range | None = None
    """Beside the toolkit's own bounds; None where no source gives one."""
    pythons: tuple[Version, ...] = ()
    """The Pythons upstream published wheels for; empty where none is known."""
    recommended_cuda: tuple[Version, ...] = ()
    """Toolkits somebody is known to have built this release with for an old card; best first."""


class TorchRelease(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One release of PyTorch."""

    version: Version
    tag: Text
    commit: Commit | None = None
    """Commit of ``refs/tags/<tag>``; a branch of the same name exists for some old releases."""
    released: str | None = None
    source_build: SourceBuild


class WheelFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a release on the Python package index."""

    tag: Text
    """``cp27-cp27mu``: interpreter and ABI."""
    name: Text
    sha256: Sha256
    size_bytes: int


class Wheel(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published binary build of one torch release: one CUDA variant, all its Pythons."""

    torch: Version
    variant: str | None = None
    """None: what ``pip install torch`` gives. ``cu118``: from the variant's own index."""
    cuda: Version
    codes: tuple[str, ...]
    """Architectures of torch's *own* kernels (never the union with bundled cuDNN or cuBLAS)."""
    glibc_min: Version | None = None
    files: tuple[WheelFile, ...] = ()

    def support_on(
        self, card: ComputeCapability
    ) -> Literal["native", "ptx-jit", "partial", "none"]:
        """How ``card`` runs torch's own kernels of this wheel."""
        return best_support([DeviceCode.parse(code) for code in self.codes], card)


class Requirement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One package beside torch, by file."""

    project: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    version: Text
    file: WheelFile


class RequirementSet(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one torch wheel needs on one Python, as the package index stood on a day."""

    torch: Version
    tag: Text
    as_of: Text
    packages: tuple[Requirement, ...]


class DistributionBuild(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A PyTorch that a distribution ships itself."""

    platform: Text
    package: Text
    component: Text
    torch: Version
    python: Version
    cuda: Version | None = None
    """None: computes on the CPU only."""
    codes: tuple[str, ...] = ()


class CondaBuild(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A CUDA variant of conda-forge's pytorch package; ``torch`` is the newest known for it."""

    torch: Version
    cuda: Version
    codes: tuple[str, ...]


class PlatformPython(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Python of a platform's own archive."""

    version: Version
    wheel_tag: Text
    executable: Text
    site_packages: Text
    packages: tuple[str, ...]
    devel_packages: tuple[str, ...]


class PlatformCompiler(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gcc of a platform's own archive."""

    version: Version
    cc: Text
    cxx: Text
    packages: tuple[str, ...]


class PlatformCuda(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The platform's own CUDA packages."""

    version: Version
    packages: tuple[str, ...]
    gcc: Version
    """The host compiler the distribution itself pairs it with."""


class Archive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a suite is found, beside the addresses the host itself is configured with."""

    components: tuple[str, ...]
    keyring: Text
    keyring_package: Text
    fallbacks: tuple[str, ...] = ()


class Platform(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A base system that can be bootstrapped from its distribution's signed archive."""

    name: Text
    distribution: Literal["debian", "ubuntu"]
    suite: Text
    glibc: Version
    built: bool
    """False: rendered and checked against the data, never yet built to the end by anybody."""
    archive: Archive
    pythons: tuple[PlatformPython, ...]
    compilers: tuple[PlatformCompiler, ...]
    cuda: PlatformCuda | None = None
    notes: tuple[str, ...] = ()


class Rule(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A constraint between axes that no single record owns: ``when`` holds, so must ``require``.

    Axes: ``route, torch, compute_capability, cuda, cuda_origin, gcc, python, platform, glibc``.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    when: dict[str, str]
    require: dict[str, str]
    why: Text


class Index(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An index of wheels beside the default one; ``{variant}`` stands for ``cu118`` and so on."""

    url: Text
    source: Text


class Repository(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the sources of PyTorch are fetched from, by tag and commit."""

    url: Text
    source: Text


class Database(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything envforge knows, in the order it is searched (newest release first)."""

    devices: dict[str, Device]
    names: dict[str, tuple[str, ...]]
    """Normalised card name -> device ids."""
    architectures: dict[str, Architecture]
    toolkits: tuple[CudaToolkit, ...]
    drivers: tuple[DriverBranch, ...]
    releases: tuple[TorchRelease, ...]
    wheels: tuple[Wheel, ...]
    distribution_builds: tuple[DistributionBuild, ...]
    conda_builds: tuple[CondaBuild, ...]
    platforms: tuple[Platform, ...]
    rules: tuple[Rule, ...]
    requirements: tuple[RequirementSet, ...]
    variant_index: Index
    repository: Repository


def in_range(version: str, bounds: str) -> bool:
    """Tell whether ``version`` lies in the database range ``bounds``."""
    return version in parse_range(bounds)


_RANGES: dict[str, VersionRange] = {}


def parse_range(bounds: str) -> VersionRange:
    """Parse a range once per process; the same few hundred are asked thousands of times."""
    found = _RANGES.get(bounds)
    if found is None:
        found = _RANGES[bounds] = VersionRange.parse(bounds)
    return found
