"""NVIDIA's libraries beside the toolkit: cuDNN by version, and what machine code was measured.

Decoded on demand (:class:`envforge.capability.database.Database`): few questions need them.
Annotations are native, as in :mod:`envforge.capability.models`.
"""

import msgspec

from envforge.capability.models import (
    Code,
    Download,
    Fact,
    Range,
    Sha256,
    Text,
    Version,
    WheelFile,
)


class CudnnCoverage(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which cards a range of cuDNN versions computes on."""

    versions: Range
    cuda: Range
    """The toolkits its libraries are built with."""
    compute_capability: Range


class CudnnBuild(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One archive of cuDNN for x86_64: one version, built with one CUDA."""

    version: Version
    cuda: Range
    """Toolkits it is for."""
    archive: Download


class CudnnWheels(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A project of the package index that carries cuDNN with its headers: no login needed."""

    project: Text
    cuda: Range
    versions: tuple[Version, ...]
    """The versions somebody saw there, oldest first: not all there are."""
    files: dict[Version, WheelFile] = msgspec.field(default_factory=dict)
    """The Linux x86_64 wheels of those that a build may take."""


class CudnnTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``cudnn.yaml``."""

    coverage: tuple[CudnnCoverage, ...]
    wheels: tuple[CudnnWheels, ...]
    builds: tuple[CudnnBuild, ...]


class Library(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package of NVIDIA's libraries whose machine code was measured.

    These libraries keep one architecture per fatbin: what counts is that every part has code for
    the card (cuDNN 9.11 carries sm_50 in one part and in no other).
    """

    project: Text
    version: Version
    file: Text | None = None
    sha256: Sha256 | None = None
    parts: dict[Text, tuple[Code, ...]] = msgspec.field(default_factory=dict)
    """Library -> the architectures it carries."""
    fatbins: int | None = None
    codes: dict[Code, int] = msgspec.field(default_factory=dict)
    """Architecture -> fatbins of the whole package that carry it."""
