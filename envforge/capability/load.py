"""Load the database: what a wheel carries, else compiled once from its YAML.

YAML is what people edit; parsing it takes a second. ``check`` must feel instant, so the checked
records are kept as MessagePack under a name that holds the hash of the YAML and of the code that
reads it: a stale copy cannot be found. A wheel carries them instead of the YAML: nothing is left
there that they could differ from, and no start is spent on hashing a megabyte.

Paths are text here: pathlib alone is a twentieth of a whole ``envforge check``.
"""

from __future__ import annotations

import os

import msgspec

from envforge.capability.database import Database
from envforge.errors import DocumentError

_HERE = os.path.dirname(__file__)
_DATA = os.path.join(_HERE, "data")
_STEM = "database-"
_VERSIONS_KEPT = 4
_CHECKS = (
    "build_tools database limits load memory models names profiles ptx pythons submodules"
    " tables torchvision vendor"
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
        return _read(os.path.join(cache_dir(), compiled_name(digest)))
    except (OSError, msgspec.DecodeError):  # none yet, or a torn one: compile, and write over it
        from envforge.capability.tables import compile_yaml  # noqa: PLC0415 -- once a version

        database = compile_yaml()
    _keep(digest, msgspec.msgpack.encode(database))
    return database


def compiled_name(digest: str) -> str:
    """Name the compiled form of the data with that hash."""
    return f"{_STEM}{digest}.msgpack"


def _carried() -> str | None:
    """Find what a wheel carries instead of the YAML; None in a checkout."""
    name = next((name for name in os.listdir(_DATA) if name.startswith(_STEM)), None)
    return os.path.join(_DATA, name) if name else None


def _read_carried(path: str) -> Database:
    try:
        return _read(path)
    except (OSError, msgspec.DecodeError) as error:
        raise DocumentError(
            f"{path} is damaged", because=(str(error),), hint="install envforge again"
        ) from error


def _read(path: str) -> Database:
    return msgspec.msgpack.decode(_bytes_of(path), type=Database)


def _bytes_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def content_hash() -> str:
    """Hash what the compiled form depends on: the YAML and the code that checks it."""
    carried = _carried()
    if carried is not None:
        return os.path.basename(carried).removeprefix(_STEM).partition(".")[0]
    try:  # hashlib would load OpenSSL: a quarter of the time of a whole `envforge check`
        from _blake2 import blake2b  # noqa: PLC0415 -- an installed envforge hashes nothing
    except ImportError:
        from hashlib import blake2b  # noqa: PLC0415
    state = blake2b(digest_size=12)
    tables = (name for name in sorted(os.listdir(_DATA)) if name.endswith(".yaml"))
    for name in tables:
        state.update(_bytes_of(os.path.join(_DATA, name)))
    for module in _CHECKS.split():
        state.update(_bytes_of(os.path.join(_HERE, f"{module}.py")))
    return state.hexdigest()


def cache_dir() -> str:
    """Find ``$XDG_CACHE_HOME/envforge`` (platformdirs would double the start-up time)."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(
        root if root.startswith("/") else os.path.expanduser("~/.cache"), "envforge"
    )


def _keep(digest: str, blob: bytes) -> None:
    """Store the compiled form; a read-only home only costs the next call a second.

    The newest few stay: two versions of envforge side by side must not compile in turns.
    """
    from pathlib import Path  # noqa: PLC0415 -- not on the hot path

    from envforge.documents import write_atomically  # noqa: PLC0415

    folder = Path(cache_dir())
    try:
        write_atomically(folder / compiled_name(digest), blob)
        kept = sorted(folder.glob(compiled_name("*")), key=lambda path: -path.stat().st_mtime)
        for old in kept[_VERSIONS_KEPT:]:
            old.unlink(missing_ok=True)
    except OSError:
        return
