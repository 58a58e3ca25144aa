"""Read the files of torch's default wheels anew from the package index.

    python scripts/refresh_wheels.py [VERSION ...]

Rewrites the ``files`` of the default wheels in ``envforge/capability/data/wheels.yaml`` (of all
releases, or of those that are named) and names the releases of the index that have no row. What a
wheel's kernels are is measured, not read from an index: ``measure_wheels.py`` makes a new row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import msgspec
from format_data import plain, write_rows
from package_index import files_of
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from envforge.capability.models import Wheel, WheelFile
from envforge.capability.tables import DATA, read_table
from envforge.values import version_key

TARGET = DATA / "wheels.yaml"


def main(versions: list[str]) -> None:
    wheels: tuple[Wheel, ...] = read_table(TARGET)
    published = files_by_version(files_of("torch"))
    rows = [
        refreshed(wheel, published)
        if wheel.variant is None and (not versions or wheel.torch in versions)
        else wheel
        for wheel in wheels
    ]
    write_rows(TARGET, plain(rows))
    for before, after in zip(wheels, rows, strict=True):
        if before != after:
            print(f"torch {after.torch}: {len(before.files)} files, now {len(after.files)}")
    known = {Version(wheel.torch) for wheel in wheels}
    for version in sorted(published.keys() - known):
        print(f"torch {version} is on the index and has no row")


def files_by_version(files: Iterable[dict[str, Any]]) -> dict[Version, list[WheelFile]]:
    """Take the Linux x86_64 wheels; of several builds of one wheel the newest, as pip does."""
    newest: dict[tuple[Version, str], tuple[Any, WheelFile]] = {}
    for file in files:
        name = file["filename"]
        if not name.endswith("_x86_64.whl") or "linux" not in name or file.get("yanked"):
            continue
        _, version, build, tags = parse_wheel_filename(name)
        tag = min(f"{tag.interpreter}-{tag.abi}" for tag in tags)
        row = WheelFile(
            tag=tag, name=name, sha256=file["hashes"]["sha256"], size_bytes=file["size"]
        )
        if (version, tag) not in newest or build > newest[version, tag][0]:
            newest[version, tag] = build, row
    found: dict[Version, list[WheelFile]] = {}
    for (version, _), (_, row) in sorted(newest.items(), key=lambda item: _order(item[0][1])):
        found.setdefault(version, []).append(row)
    return found


def _order(tag: str) -> tuple[tuple[int, ...], str]:
    """``cp39`` before ``cp310``, ``cp313`` before ``cp313t``."""
    interpreter, abi = tag.split("-", maxsplit=1)
    digits = interpreter.removeprefix("cp")
    return (version_key(f"{digits[0]}.{digits[1:]}"), abi)


def refreshed(wheel: Wheel, published: dict[Version, list[WheelFile]]) -> Wheel:
    files = published.get(Version(wheel.torch))
    if not files:
        print(f"torch {wheel.torch} is not on the index: its row stays as it is")
        return wheel
    return msgspec.structs.replace(wheel, files=tuple(files))


if __name__ == "__main__":
    main(sys.argv[1:])
