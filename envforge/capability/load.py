"""Load the database: compiled when its YAML is unchanged, else compiled anew.

YAML is what people edit; parsing it takes a second. ``check`` must feel instant, so the checked
records are kept as MessagePack under a name that holds the hash of the YAML and of the code that
reads it: a stale copy cannot be found.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from envforge.capability import models

try:  # hashlib would load OpenSSL: a quarter of the time of a whole `envforge check`
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

DATA = Path(__file__).parent / "data"
_COMPILER = (Path(__file__), Path(models.__file__), Path(__file__).with_name("names.py"))


def load() -> models.Database:
    """Return the whole database; DocumentError with every fault when the YAML is not valid."""
    digest = content_hash()
    for folder in (DATA, cache_dir()):
        try:
            blob = (folder / f"database-{digest}.msgpack").read_bytes()
        except OSError:
            continue
        try:
            return msgspec.msgpack.decode(blob, type=models.Database)
        except msgspec.DecodeError:
            continue  # a torn or foreign file: compile again over it
    database = compile_yaml()
    _keep(digest, msgspec.msgpack.encode(database))
    return database


def content_hash() -> str:
    """Hash what the compiled form depends on: the YAML and the code that checks it."""
    state = blake2b(digest_size=12)
    for path in (*sorted(DATA.glob("*.yaml")), *_COMPILER):
        state.update(path.read_bytes())
    return state.hexdigest()


def cache_dir() -> Path:
    """Find ``$XDG_CACHE_HOME/envforge`` (platformdirs would double the start-up time)."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root.startswith("/") else Path.home() / ".cache") / "envforge"


def _keep(digest: str, blob: bytes) -> None:
    """Store the compiled form; a read-only home only costs the next call a second."""
    from envforge.documents import write_atomically  # noqa: PLC0415 -- not on the hot path

    folder = cache_dir()
    try:
        write_atomically(folder / f"database-{digest}.msgpack", blob)
        for old in folder.glob("database-*.msgpack"):
            if digest not in old.name:
                old.unlink(missing_ok=True)
    except OSError:
        return


def compile_yaml(data: Path = DATA) -> models.Database:
    """Read and check every YAML file; DocumentError naming file and path of each fault."""
    from envforge import documents  # noqa: PLC0415 -- not on the hot path
    from envforge.capability.names import index  # noqa: PLC0415

    def read(name: str) -> Any:
        path = data / name
        return documents.parse_yaml(path.read_text(encoding="utf-8"), path.name)

    def rows(name: str, kind: Any) -> Any:
        return documents.convert_rows(read(name), Path(name).stem, kind, name)

    devices = documents.convert(read("devices.yaml"), DeviceTable, "devices.yaml").devices
    builds = documents.convert(read("builds.yaml"), BuildTable, "builds.yaml")
    architectures = rows("architectures.yaml", models.Architecture)
    return models.Database(
        devices={device.id: device for device in devices},
        names=index((device.id, device.name) for device in devices),
        architectures={row.compute_capability: row for row in architectures},
        toolkits=rows("toolkits.yaml", models.CudaToolkit)[::-1],
        drivers=rows("drivers.yaml", models.DriverBranch),
        releases=rows("releases.yaml", models.TorchRelease),
        wheels=rows("wheels.yaml", models.Wheel),
        distribution_builds=builds.distribution,
        conda_builds=builds.conda_forge,
        platforms=rows("platforms.yaml", models.Platform),
        rules=rows("rules.yaml", models.Rule),
        requirements=rows("requirements.yaml", models.RequirementSet),
        variant_index=builds.variant_index,
        repository=builds.repository,
    )


class DeviceTable(models.Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``devices.yaml``: one source for all its rows."""

    devices: tuple[models.Device, ...]


class BuildTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``builds.yaml``."""

    distribution: tuple[models.DistributionBuild, ...]
    conda_forge: tuple[models.CondaBuild, ...]
    variant_index: models.Index
    repository: models.Repository
