"""The records of the capability database: what the YAML under ``data/`` may say, and nothing else.

Every record has a ``source`` and an ``evidence`` word. Versions are strings of dotted integers;
ranges have the form ``>=5.0,<10.3`` (see :class:`envforge.values.VersionRange`).

No ``annotations`` from ``__future__``: msgspec would have to compile and evaluate the text of every
field whenever the database is loaded, which takes longer than reading it.
"""

from functools import cache
from typing import Annotated, Literal

import msgspec

from envforge.values import ComputeCapability, DeviceCode, Support, VersionRange, best_support

Evidence = Literal["measured", "vendor-docs", "upstream", "third-party", "inferred"]
Version = Annotated[str, msgspec.Meta(pattern=r"^\d+(\.\d+)*$")]
Capability = Annotated[str, msgspec.Meta(pattern=r"^\d{1,2}\.\d$")]
Range = Annotated[str, msgspec.Meta(pattern=r"^(>=[\d.]+(,<[\d.]+)?|<[\d.]+)$")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}$")]
Text = Annotated[str, msgspec.Meta(min_length=1)]
DeviceId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4}$")]
Code = Annotated[str, msgspec.Meta(pattern=r"^(sm|compute)_\d{2,3}[af]?$")]


class Fact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every record carries: where it comes from, and how well it is known."""

    source: Text
    evidence: Evidence


class Device(
    msgspec.Struct, frozen=True, kw_only=False, array_like=True, forbid_unknown_fields=True
):
    """One PCI function: a row ``[id, chip, compute capability, name]`` of ``devices.yaml``."""

    id: DeviceId
    chip: Text
    compute_capability: Capability
    name: Text


class Architecture(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One compute capability: which toolkits compile for it, which driver is the last."""

    compute_capability: Capability
    name: Text
    cuda: Range
    """Toolkits whose nvcc emits code for it."""
    chips: tuple[Text, ...] = ()
    """As pci.ids begins a device's name: ``GK104``."""
    boards: tuple[Text, ...] = ()
    """Chips that are not on the PCI bus, with the boards they are sold on."""
    first_driver_branch: str | None = None
    """Branch of the first toolkit that compiles for it; None where the sources are not clear."""
    last_driver_branch: str | None = None
    """None: the newest branch still knows it."""
    tegra: bool = False
    """On a Jetson the driver is part of the board's own release; desktop branches do not count."""
    deprecated: str = ""
    """When nvcc began to warn of it and when it was taken out."""
    disagreements: tuple[Text, ...] = ()
    """Where other sources say something else than this row."""
    notes: tuple[str, ...] = ()


class Runfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """NVIDIA's self-extracting installer of a toolkit."""

    url: Text
    sha256: Sha256


class Download(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file at one address."""

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
    driver_bundled: Version | None = None
    """The driver inside the runfile."""
    runfile: Runfile | None = None
    patches: tuple[Download, ...] = ()
    """NVIDIA's own patches to the runfile's installation, in the order to apply them."""
    notes: tuple[str, ...] = ()


class DriverBranch(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One branch of NVIDIA's Linux driver."""

    branch: Version
    cuda_max: Version
    """Newest toolkit (major.minor) it serves without minor-version compatibility."""
    last_version: Version | None = None
    status: str = ""
    drives: tuple[Text, ...] = ()
    """Generations of cards it knows, as NVIDIA calls them."""
    package: str | None = None
    """Debian's package of it."""
    notes: tuple[Text, ...] = ()


class AcceptedCudnn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Versions of cuDNN a release's sources accept; they can also be built without."""

    versions: Range
    source: Text


class SourceBuild(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What building a torch release from source asks for."""

    cuda: Range
    compute_capability: Range
    compute_capability_basis: str = ""
    gcc: Range | None = None
    """Beside the toolkit's own bounds; None where no source gives one."""
    cudnn: AcceptedCudnn | None = None
    cxx: str | None = None
    """The C++ standard its sources are written in."""
    pythons: tuple[Version, ...] = ()
    """The Pythons upstream published wheels for, or names in its README; empty where not known."""
    patched_pythons: dict[Version, Text] = {}
    """Pythons its sources compile on with a patch of the series only: version -> that patch."""
    recommended_cuda: tuple[Version, ...] = ()
    """Toolkits somebody is known to have built this release with for an old card; best first."""


class TorchRelease(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One release of PyTorch."""

    version: Version
    tag: Text
    commit: Commit | None = None
    """Commit of ``refs/tags/<tag>``; a branch of the same name exists for some old releases."""
    wheel_commit: Commit | None = None
    """The commit a published wheel says it was built from: not always the tag's."""
    released: str | None = None
    requires_python: str | None = None
    """As its wheels declare it to pip."""
    torchvision: Version | None = None
    """The torchvision released with it."""
    source_build: SourceBuild


class WheelFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a release on the Python package index."""

    tag: Text
    """``cp27-cp27mu``: interpreter and ABI."""
    name: Text
    sha256: Sha256
    size_bytes: int


class WheelCudnn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cuDNN a wheel computes with."""

    version: Version
    project: Text | None = None
    """The package it is taken from; None: the wheel carries it itself, or it is not known."""
    source: Text


class Linalg(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machine code of ``libtorch_cuda_linalg``, which is judged beside torch's own kernels."""

    fatbins: int
    codes: dict[Code, int]
    """Architecture -> fatbins that carry it."""

    def support_on(self, card: ComputeCapability) -> Support:
        """``partial`` where only some of its functions have code for ``card``."""
        runs = [
            count
            for code, count in self.codes.items()
            if DeviceCode.parse(code).support_on(card) == "native"
        ]
        # Of two architectures that share a card each may be in its own half of the fatbins.
        if sum(runs) >= _NEARLY_ALL * self.fatbins:
            return "native"
        return "partial" if runs else "none"


_NEARLY_ALL = 0.95
"""A few fatbins of templates carry only the newest architectures; nobody misses them."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was read in one file of a wheel."""

    file: Text
    fatbins: int
    """Fatbins with torch's own kernels."""
    fatbins_alike: int
    """How many of them carry exactly the wheel's ``codes``."""
    rare_codes: tuple[Code, ...] = ()
    """In a few fatbins only: no support."""
    library_codes: tuple[Code, ...] = ()
    """SASS of anything in the main library, cuDNN, cuBLAS and NCCL linked into it included."""
    libraries: tuple[Text, ...]
    arch_list: str | None = None
    """What ``torch.cuda.get_arch_list()`` answers; None: it has no such string."""
    glibcxx_min: Version
    requires: tuple[Text, ...] = ()
    """Requirements its metadata pins."""


class Wheel(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published binary build of one torch release: one CUDA variant, all its Pythons."""

    torch: Version
    variant: str | None = None
    """None: what ``pip install torch`` gives. ``cu118``: from the variant's own index."""
    cuda: Version
    codes: tuple[str, ...]
    """Architectures of torch's *own* kernels (never the union with bundled cuDNN or cuBLAS)."""
    glibc_min: Version | None = None
    cudnn: WheelCudnn | None = None
    """None: not known."""
    linalg: Linalg | None = None
    """None: no such library in it, or not measured."""
    measured: Measurement | None = None
    files: tuple[WheelFile, ...] = ()

    def support_on(self, card: ComputeCapability) -> Support:
        """How ``card`` runs torch's own kernels of this wheel."""
        return support_of(self.codes, card)


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

    def support_on(self, card: ComputeCapability) -> Support:
        """How ``card`` runs its kernels."""
        return support_of(self.codes, card)


class CondaBuild(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One CUDA variant of one release in conda-forge's pytorch package."""

    torch: Version
    cuda: Version
    codes: tuple[str, ...]
    cudnn: Range | None = None
    """Versions of cuDNN it was built for and installs; the newest is what an installer takes."""
    pythons: tuple[Version, ...] = ()

    def support_on(self, card: ComputeCapability) -> Support:
        """How ``card`` runs its kernels."""
        return support_of(self.codes, card)


class PlatformPython(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Python of a platform's own archive."""

    version: Version
    wheel_tag: Text
    executable: Text
    site_packages: Text
    packages: tuple[str, ...]
    devel_packages: tuple[str, ...]
    torch_packages: tuple[str, ...] = ()
    """What a torch that was built here imports beside itself."""


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


class PlatformCudnn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The platform's own package that fetches cuDNN from NVIDIA."""

    version: Version
    cuda: Version
    package: Text


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
    pip: Version
    """Of its ``python3-pip``: the older, the fewer wheels it takes."""
    pythons: tuple[PlatformPython, ...]
    compilers: tuple[PlatformCompiler, ...]
    cuda: PlatformCuda | None = None
    cudnn: PlatformCudnn | None = None
    notes: tuple[str, ...] = ()


class ReleaseNote(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is worth knowing of some releases of torch and no other record has a field for."""

    torch: Range
    topic: Literal["commit", "source-build", "torchvision", "wheels"]
    text: Text


class Risk(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was seen to fail with builds of some CUDA on some cards, though their code runs."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    cuda: Range
    compute_capability: Range
    text: Text


class Rule(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A constraint between axes that no single record owns: ``when`` holds, so must ``require``.

    Axes: ``route, torch, compute_capability, cuda, cuda_origin, gcc, python, python_origin,
    platform, glibc``.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    when: dict[str, str]
    require: dict[str, str]
    why: Text


class VariantInstall(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a CUDA variant's wheel of some releases is installed."""

    torch: Range
    arguments: tuple[Text, ...]
    """What ``pip install`` is given; ``{torch}`` and ``{variant}`` stand for 2.7.1 and cu118."""
    wheel_alone: bool = False
    """Nothing but the wheel comes that way: its requirements are the user's to install."""


class Repository(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the sources of PyTorch are fetched from, by tag and commit."""

    url: Text
    source: Text


@cache
def support_of(codes: tuple[str, ...], card: ComputeCapability) -> Support:
    """How ``card`` runs machine code of these architectures; many wheels carry the same."""
    return best_support([DeviceCode.parse(code) for code in codes], card)


@cache
def in_range(version: str, bounds: str) -> bool:
    """Tell whether ``version`` lies in the database range ``bounds``."""
    return version in parse_range(bounds)


@cache
def parse_range(bounds: str) -> VersionRange:
    """Parse a range once per process; the same few hundred are asked thousands of times."""
    return VersionRange.parse(bounds)
