"""Everything envforge knows, as one record: what :func:`envforge.capability.load.load` returns.

No ``annotations`` from ``__future__``, as in :mod:`envforge.capability.models`.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from envforge.capability.models import (
    Architecture,
    CondaBuild,
    CudaToolkit,
    Device,
    DistributionBuild,
    DriverBranch,
    Platform,
    ReleaseNote,
    Repository,
    RequirementSet,
    Risk,
    Rule,
    TorchRelease,
    VariantInstall,
    Wheel,
)

if TYPE_CHECKING:  # at run time they are imported where a table is decoded on demand
    from envforge.capability.build_tools import BuildToolTable, PinnedBuildTable
    from envforge.capability.limits import MachineLimits
    from envforge.capability.memory import CardMemory
    from envforge.capability.profiles import Profile
    from envforge.capability.pythons import PythonTable
    from envforge.capability.submodules import SubmoduleTable
    from envforge.capability.torchvision import TorchvisionTable
    from envforge.capability.vendor import CudnnTable, Library


class Devices(Mapping[str, Device]):
    """The devices by id. A row is decoded when it is asked for: one call needs one or two."""

    def __init__(self, rows: Mapping[str, msgspec.Raw]) -> None:
        self._rows = rows
        self._decoder = msgspec.msgpack.Decoder(Device)

    def __getitem__(self, device_id: str) -> Device:
        return self._decoder.decode(self._rows[device_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class Database(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Everything envforge knows, in the order it is searched (newest release first).

    Tables that few questions need stay encoded (``..._table``) until they are asked for: decoding
    everything would take longer than all the rest of ``envforge check``.
    """

    device_table: dict[str, msgspec.Raw]
    name_table: msgspec.Raw
    architectures: dict[str, Architecture]
    toolkits: tuple[CudaToolkit, ...]
    drivers: tuple[DriverBranch, ...]
    releases: tuple[TorchRelease, ...]
    wheels: tuple[Wheel, ...]
    distribution_builds: tuple[DistributionBuild, ...]
    conda_builds: tuple[CondaBuild, ...]
    platforms: tuple[Platform, ...]
    rules: tuple[Rule, ...]
    risks: tuple[Risk, ...]
    variant_installs: tuple[VariantInstall, ...]
    repository: Repository
    requirement_table: msgspec.Raw
    note_table: msgspec.Raw
    cudnn_table: msgspec.Raw
    library_table: msgspec.Raw
    memory_table: msgspec.Raw
    limit_table: msgspec.Raw
    submodule_table: msgspec.Raw
    torchvision_table: msgspec.Raw
    build_tool_table: msgspec.Raw
    pinned_build_table: msgspec.Raw
    profile_table: msgspec.Raw
    ptx_table: msgspec.Raw
    python_table: msgspec.Raw

    @cached_property
    def wheels_of(self) -> dict[str, tuple[Wheel, ...]]:
        """Release -> its published binaries, the default one and its variants."""
        found: dict[str, tuple[Wheel, ...]] = {}
        for wheel in self.wheels:
            found[wheel.torch] = (*found.get(wheel.torch, ()), wheel)
        return found

    @cached_property
    def conda_of(self) -> dict[str, tuple[CondaBuild, ...]]:
        """Release -> its CUDA builds on conda-forge."""
        found: dict[str, tuple[CondaBuild, ...]] = {}
        for build in self.conda_builds:
            found[build.torch] = (*found.get(build.torch, ()), build)
        return found

    @cached_property
    def driver_floors(self) -> dict[str, str | None]:
        """CUDA -> the oldest driver it starts on, as far as ``lookup.driver_floor`` was asked."""
        return {}

    @cached_property
    def devices(self) -> Mapping[str, Device]:
        """PCI id -> device."""
        return Devices(self.device_table)

    @cached_property
    def names(self) -> dict[str, tuple[str, ...]]:
        """Normalised card name -> device ids."""
        return msgspec.msgpack.decode(self.name_table, type=dict[str, tuple[str, ...]])

    @cached_property
    def requirements(self) -> tuple[RequirementSet, ...]:
        """What a torch wheel needs beside itself."""
        return msgspec.msgpack.decode(self.requirement_table, type=tuple[RequirementSet, ...])

    @cached_property
    def notes(self) -> tuple[ReleaseNote, ...]:
        """What is worth knowing of a release and has no field."""
        return msgspec.msgpack.decode(self.note_table, type=tuple[ReleaseNote, ...])

    @cached_property
    def cudnn(self) -> "CudnnTable":
        """Versions of cuDNN, and the cards they compute on."""
        from envforge.capability.vendor import CudnnTable  # noqa: PLC0415

        return msgspec.msgpack.decode(self.cudnn_table, type=CudnnTable)

    @cached_property
    def libraries(self) -> "tuple[Library, ...]":
        """NVIDIA's libraries whose machine code was measured."""
        from envforge.capability.vendor import Library  # noqa: PLC0415

        return msgspec.msgpack.decode(self.library_table, type=tuple[Library, ...])

    @cached_property
    def memory(self) -> "tuple[CardMemory, ...]":
        """With how much memory popular cards were sold."""
        from envforge.capability.memory import CardMemory  # noqa: PLC0415

        return msgspec.msgpack.decode(self.memory_table, type=tuple[CardMemory, ...])

    @cached_property
    def limits(self) -> "MachineLimits":
        """What drivers, kernels and NVIDIA's container toolkit serve."""
        from envforge.capability.limits import MachineLimits  # noqa: PLC0415

        return msgspec.msgpack.decode(self.limit_table, type=MachineLimits)

    @cached_property
    def submodules(self) -> "SubmoduleTable":
        """The submodules of PyTorch's source trees."""
        from envforge.capability.submodules import SubmoduleTable  # noqa: PLC0415

        return msgspec.msgpack.decode(self.submodule_table, type=SubmoduleTable)

    @cached_property
    def torchvision(self) -> "TorchvisionTable":
        """The sources of torchvision."""
        from envforge.capability.torchvision import TorchvisionTable  # noqa: PLC0415

        return msgspec.msgpack.decode(self.torchvision_table, type=TorchvisionTable)

    @cached_property
    def build_tools(self) -> "BuildToolTable":
        """What building PyTorch runs beside the compilers."""
        from envforge.capability.build_tools import BuildToolTable  # noqa: PLC0415

        return msgspec.msgpack.decode(self.build_tool_table, type=BuildToolTable)

    @cached_property
    def pinned_builds(self) -> "PinnedBuildTable":
        """What builds take from the package index, by hash."""
        from envforge.capability.build_tools import PinnedBuildTable  # noqa: PLC0415

        return msgspec.msgpack.decode(self.pinned_build_table, type=PinnedBuildTable)

    @cached_property
    def pythons(self) -> "PythonTable":
        """The sources of CPython."""
        from envforge.capability.pythons import PythonTable  # noqa: PLC0415

        return msgspec.msgpack.decode(self.python_table, type=PythonTable)

    @cached_property
    def profiles(self) -> "tuple[Profile, ...]":
        """What source builds include and give up, the default first."""
        from envforge.capability.profiles import Profile  # noqa: PLC0415

        return msgspec.msgpack.decode(self.profile_table, type=tuple[Profile, ...])
