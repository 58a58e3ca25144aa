"""Load the database: what a wheel carries, else compiled once from its YAML.

YAML is what people edit; parsing it takes a second. ``check`` must feel instant, so the checked
records are kept as MessagePack under a name that holds the hash of the YAML and of the code that
reads it: a stale copy cannot be found. A wheel carries them instead of the YAML: nothing is left
there that they could differ from, and no start is spent on hashing a megabyte.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from envforge.capability import models
from envforge.capability.database import Database
from envforge.errors import DocumentError

DATA = Path(__file__).parent / "data"
_STEM = "database-"
_VERSIONS_KEPT = 4
_CHECKS = (
    "build_tools database load memory models names profiles ptx pythons submodules torchvision"
    " vendor"
)


def load() -> Database:
    """Return the whole database.

    DocumentError with every fault when the YAML is not valid, or when a wheel's file is damaged.
    """
    carried = _carried()
    if carried is not None:
        return _read_carried(carried)
    digest = content_hash()
    try:
        return _read(cache_dir() / compiled_name(digest))
    except (OSError, msgspec.DecodeError):  # none yet, or a torn one: compile, and write over it
        database = compile_yaml()
    _keep(digest, msgspec.msgpack.encode(database))
    return database


def compiled_name(digest: str) -> str:
    """Name the compiled form of the data with that hash."""
    return f"{_STEM}{digest}.msgpack"


def _carried() -> Path | None:
    """Find what a wheel carries instead of the YAML; None in a checkout."""
    name = next((name for name in os.listdir(DATA) if name.startswith(_STEM)), None)  # noqa: PTH208
    return DATA / name if name else None


def _read_carried(path: Path) -> Database:
    try:
        return _read(path)
    except (OSError, msgspec.DecodeError) as error:
        raise DocumentError(
            f"{path} is damaged", because=(str(error),), hint="install envforge again"
        ) from error


def _read(path: Path) -> Database:
    return msgspec.msgpack.decode(path.read_bytes(), type=Database)


def content_hash() -> str:
    """Hash what the compiled form depends on: the YAML and the code that checks it."""
    carried = _carried()
    if carried is not None:
        return carried.stem.removeprefix(_STEM)
    try:  # hashlib would load OpenSSL: a quarter of the time of a whole `envforge check`
        from _blake2 import blake2b  # noqa: PLC0415 -- an installed envforge hashes nothing
    except ImportError:
        from hashlib import blake2b  # noqa: PLC0415
    state = blake2b(digest_size=12)
    compiler = (Path(__file__).with_name(f"{module}.py") for module in _CHECKS.split())
    for path in (*sorted(DATA.glob("*.yaml")), *compiler):
        state.update(path.read_bytes())
    return state.hexdigest()


def cache_dir() -> Path:
    """Find ``$XDG_CACHE_HOME/envforge`` (platformdirs would double the start-up time)."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root.startswith("/") else Path.home() / ".cache") / "envforge"


def _keep(digest: str, blob: bytes) -> None:
    """Store the compiled form; a read-only home only costs the next call a second.

    The newest few stay: two versions of envforge side by side must not compile in turns.
    """
    from envforge.documents import write_atomically  # noqa: PLC0415 -- not on the hot path

    folder = cache_dir()
    try:
        write_atomically(folder / compiled_name(digest), blob)
        kept = sorted(folder.glob(compiled_name("*")), key=lambda path: -path.stat().st_mtime)
        for old in kept[_VERSIONS_KEPT:]:
            old.unlink(missing_ok=True)
    except OSError:
        return


def compile_yaml(data: Path = DATA) -> Database:
    """Read and check every YAML file; DocumentError naming file and path of each fault."""
    from envforge.capability.names import index  # noqa: PLC0415 -- not on the hot path

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
    from envforge import documents  # noqa: PLC0415 -- not on the hot path

    document = documents.load_yaml(path, path.name)
    whole = _files().get(path.stem)
    if whole is not None:
        return documents.convert(document, whole, path.name)
    return documents.convert_rows(document, path.stem, _rows()[path.stem], path.name)


def _files() -> dict[str, Any]:
    """Files that are one record each, under their names."""
    from envforge.capability.build_tools import (  # noqa: PLC0415 -- none of these
        BuildToolTable,
        PinnedBuildTable,
    )
    from envforge.capability.ptx import PtxTable  # noqa: PLC0415 -- is on the hot path
    from envforge.capability.pythons import PythonTable  # noqa: PLC0415
    from envforge.capability.submodules import SubmoduleTable  # noqa: PLC0415
    from envforge.capability.torchvision import TorchvisionTable  # noqa: PLC0415
    from envforge.capability.vendor import CudnnTable  # noqa: PLC0415

    return {
        "build_tools": BuildToolTable,
        "builds": BuildTable,
        "cudnn": CudnnTable,
        "devices": DeviceTable,
        "pinned_builds": PinnedBuildTable,
        "ptx": PtxTable,
        "pythons": PythonTable,
        "submodules": SubmoduleTable,
        "torchvision": TorchvisionTable,
    }


def _rows() -> dict[str, Any]:
    """What the rows of every other file are."""
    from envforge.capability.memory import CardMemory  # noqa: PLC0415 -- not on the hot path
    from envforge.capability.profiles import Profile  # noqa: PLC0415
    from envforge.capability.vendor import Library  # noqa: PLC0415

    return {
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


def _encode(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


class DeviceTable(models.Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``devices.yaml``: one source for all its rows."""

    devices: tuple[models.Device, ...]


class BuildTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``builds.yaml``."""

    distribution: tuple[models.DistributionBuild, ...]
    variant_installs: tuple[models.VariantInstall, ...]
    repository: models.Repository
