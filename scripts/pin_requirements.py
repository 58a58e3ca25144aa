"""Pin what torch's wheels need, as the package index stood some weeks after each release.

    python scripts/pin_requirements.py 1.0.1:cp27-cp27mu 2.0.1:cp311-cp311 ...

Rewrites ``envforge/capability/data/requirements.yaml`` for the pairs that are named; the others
stay. uv resolves (``--exclude-newer``); Pythons older than uv knows get the packages that torch of
that age imports without declaring them. The index is pip's own (``PIP_INDEX_URL`` is honoured).
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date, datetime, timedelta, timezone
from typing import Any

from format_data import write_rows
from package_index import files_of
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from envforge.capability import load as database_load
from envforge.documents import parse_yaml

TARGET = database_load.DATA / "requirements.yaml"
WEEKS = 4
ALWAYS = ("numpy",)
"""Recent releases of torch work without numpy, and warn; 1.0.1 does not import without it."""
UNDECLARED = {
    "2.7": (*ALWAYS, "typing"),
    "3.5": (*ALWAYS, "typing"),
    "3.6": ALWAYS,
    "3.7": ALWAYS,
}
OLDEST_OF_UV = (3, 8)
PLATFORMS = [
    *[f"manylinux_2_{minor}_x86_64" for minor in range(31, 4, -1)],
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
]


def tags_of(tag: str) -> list[Tag]:
    interpreter, abi = tag.split("-")
    version = (int(interpreter[2]), int(interpreter[3:]))
    found = list(cpython_tags(version, [abi], PLATFORMS))
    return found + list(compatible_tags(version, interpreter, PLATFORMS))


def best_file(project: str, tag: str, accepts: Any, *, yanked: bool = False) -> dict[str, Any]:
    ranks = {known: rank for rank, known in enumerate(tags_of(tag))}
    candidates = []
    for file in files_of(project):
        if not file["filename"].endswith(".whl") or (file.get("yanked") and not yanked):
            continue
        _, version, build, tags = parse_wheel_filename(file["filename"])
        fitting = [ranks[known] for known in tags if known in ranks]
        if fitting and accepts(version, file) and not version.is_prerelease:
            candidates.append(((version, -min(fitting), build), file))
    if not candidates:
        raise SystemExit(f"no file of {project} fits {tag}")
    return max(candidates, key=lambda candidate: candidate[0])[1]


def row_of(project: str, tag: str, accepts: Any, *, yanked: bool = False) -> dict[str, Any]:
    """``yanked``: files that were withdrawn count, too, for who names an exact version."""
    file = best_file(project, tag, accepts, yanked=yanked)
    _, version, _, tags = parse_wheel_filename(file["filename"])
    first = min(tags, key=str)
    return {
        "project": project,
        "version": str(version),
        "file": {
            "tag": f"{first.interpreter}-{first.abi}",
            "name": file["filename"],
            "sha256": file["hashes"]["sha256"],
            "size_bytes": file["size"],
        },
    }


def resolved(torch: str, python: str, as_of: date) -> list[tuple[str, str]]:
    command = [
        "uv",
        "pip",
        "compile",
        "-",
        "--no-header",
        "--no-annotate",
        "--only-binary",
        ":all:",
    ]
    command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_31"]
    command += ["--exclude-newer", as_of.isoformat()]
    wanted = "\n".join([f"torch=={torch}", *ALWAYS])
    output = subprocess.run(
        command, input=wanted, capture_output=True, text=True, check=True
    ).stdout
    return [(m[1], m[2]) for m in re.finditer(r"^([\w.-]+)==(\S+)", output, re.MULTILINE)]


def before(as_of: date) -> Any:
    limit = datetime.combine(as_of, datetime.min.time(), timezone.utc)
    return lambda _version, file: datetime.fromisoformat(file["upload-time"]) < limit


def exactly(wanted: str) -> Any:
    return lambda version, _file: version == Version(wanted)


def pin(torch: str, tag: str, released: str) -> dict[str, Any]:
    as_of = date.fromisoformat(released) + timedelta(weeks=WEEKS)
    digits = tag.split("-", maxsplit=1)[0].removeprefix("cp")
    python = f"{digits[0]}.{digits[1:]}"
    if (int(digits[0]), int(digits[1:])) < OLDEST_OF_UV:
        rows = [row_of(project, tag, before(as_of)) for project in UNDECLARED[python]]
    else:
        pins = [pair for pair in resolved(torch, python, as_of) if pair[0] != "torch"]
        rows = [row_of(project, tag, exactly(version)) for project, version in pins]
    return {
        "torch": torch,
        "tag": tag,
        "as_of": as_of.isoformat(),
        "packages": rows,
        "evidence": "measured",
        "source": "Python package index metadata, resolved as of the date by this repository's"
        " scripts/pin_requirements.py",
    }


def main(pairs: list[str]) -> None:
    releases = {release.version: release for release in database_load.load().releases}
    known: dict[tuple[str, str], Any] = {}
    if TARGET.exists():
        rows = parse_yaml(TARGET.read_text(encoding="utf-8"), TARGET.name)["requirements"]
        known = {(row["torch"], row["tag"]): row for row in rows}
    for pair in pairs:
        torch, tag = pair.split(":")
        known[torch, tag] = pin(torch, tag, str(releases[torch].released))
        print(
            pair, [f"{row['project']}=={row['version']}" for row in known[torch, tag]["packages"]]
        )
    ordered = [known[key] for key in sorted(known, key=lambda key: (Version(key[0]), key[1]))]
    write_rows(TARGET, ordered)


if __name__ == "__main__":
    main(sys.argv[1:])
