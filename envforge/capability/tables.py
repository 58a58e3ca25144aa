"""The YAML that people edit: every table read, checked and put together as one database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from envforge import documents
from envforge.capability import models
from envforge.capability.build_tools import BuildToolTable, PinnedBuildTable
from envforge.capability.database import Database
from envforge.capability.limits import MachineLimits
from envforge.capability.memory import CardMemory
from envforge.capability.names import index
from envforge.capability.profiles import Profile
from envforge.capability.ptx import PtxTable
from envforge.capability.pythons import PythonTable
from envforge.capability.submodules import SubmoduleTable
from envforge.capability.torchvision import TorchvisionTable
from envforge.capability.vendor import CudnnTable, Library

DATA = Path(__file__).parent / "data"


class DeviceTable(models.Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``devices.yaml``: one source for all its rows."""

    devices: tuple[models.Device, ...]


class BuildTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``builds.yaml``."""

    distribution: tuple[models.DistributionBuild, ...]
    variant_installs: tuple[models.VariantInstall, ...]
    repository: models.Repository


_FILES: dict[str, Any] = {
    "build_tools": BuildToolTable,
    "builds": BuildTable,
    "cudnn": CudnnTable,
    "devices": DeviceTable,
    "limits": MachineLimits,
    "pinned_builds": PinnedBuildTable,
    "ptx": PtxTable,
    "pythons": PythonTable,
    "submodules": SubmoduleTable,
    "torchvision": TorchvisionTable,
}
"""Files that are one record each, under their names."""
_ROWS: dict[str, Any] = {
    "architectures": models.Architecture,
    "conda": models.CondaBuild,
    "drivers": models.DriverBranch,
    "libraries": Library,
    "memory": CardMemory,
    "notes": models.ReleaseNote,
    "platforms": models.Platform,
    "profiles": Profile,
    "releases": models.TorchRelease,
    "requirements": models.RequirementSet,
    "risks": models.Risk,
    "rules": models.Rule,
    "toolkits": models.CudaToolkit,
    "wheels": models.Wheel,
}
"""What the rows of every other file are."""


def compile_yaml(data: Path = DATA) -> Database:
    """Read and check every YAML file; DocumentError naming file and path of each fault."""
    tables = {path.stem: read_table(path) for path in sorted(data.glob("*.yaml"))}
    devices, builds = tables["devices"].devices, tables["builds"]
    return Database(
        device_table={device.id: _encode(device) for device in devices},
        name_table=_encode(index(devices)),
        architectures={row.compute_capability: row for row in tables["architectures"]},
        toolkits=tables["toolkits"][::-1],
        drivers=tables["drivers"],
        releases=tables["releases"],
        wheels=tables["wheels"],
        distribution_builds=builds.distribution,
        conda_builds=tables["conda"],
        platforms=tables["platforms"],
        rules=tables["rules"],
        risks=tables["risks"],
        variant_installs=builds.variant_installs,
        repository=builds.repository,
        requirement_table=_encode(tables["requirements"]),
        note_table=_encode(tables["notes"]),
        cudnn_table=_encode(tables["cudnn"]),
        library_table=_encode(tables["libraries"]),
        memory_table=_encode(tables["memory"]),
        limit_table=_encode(tables["limits"]),
        submodule_table=_encode(tables["submodules"]),
        torchvision_table=_encode(tables["torchvision"]),
        build_tool_table=_encode(tables["build_tools"]),
        pinned_build_table=_encode(tables["pinned_builds"]),
        profile_table=_encode(tables["profiles"]),
        ptx_table=_encode(tables["ptx"]),
        python_table=_encode(tables["pythons"]),
    )


def read_table(path: Path) -> Any:
    """Read and check one file of the data: a record, or the rows under the file's own name."""
    document = documents.load_yaml(path, path.name)
    whole = _FILES.get(path.stem)
    if whole is not None:
        return documents.convert(document, whole, path.name)
    return documents.convert_rows(document, path.stem, _ROWS[path.stem], path.name)


def _encode(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))
