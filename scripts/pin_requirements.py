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
from collections.abc import Iterable
from datetime import date, datetime, timedelta, timezone
from functools import cache
from tempfile import NamedTemporaryFile
from typing import Any

from format_data import write_rows
from package_index import files_of
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from envforge.capability import load as database_load
from envforge.capability.tables import DATA
from envforge.documents import parse_yaml

TARGET = DATA / "requirements.yaml"
WEEKS = 4
ALWAYS = ("numpy",)
"""Recent releases of torch work without numpy, and warn; 1.0.1 does not import without it."""
UNDECLARED = {
    "2.7": (*ALWAYS, "typing"),
    "3.5": (*ALWAYS, "typing"),
    "3.6": ALWAYS,
    "3.7": ALWAYS,
}
"""What a release needs and does not say, where uv cannot resolve it."""
OLDEST_OF_UV = (3, 6)
GLIBC = 28
"""manylinux_2_28: the newest that wheels ask for and every platform of a Python of uv's has."""
PLATFORMS = [
    *[f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC, 4, -1)],
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
]
_PIN = re.compile(r"^([\w.-]+)==(\S+)(?: +# via (.+))?$", re.MULTILINE)


def python_of(tag: str) -> str:
    """``cp36-cp36m`` -> ``3.6``."""
    digits = tag.split("-", maxsplit=1)[0].removeprefix("cp")
    return f"{digits[0]}.{digits[1:]}"


@cache
def tags_of(tag: str) -> list[Tag]:
    interpreter, abi = tag.split("-")
    version = (int(interpreter[2]), int(interpreter[3:]))
    found = list(cpython_tags(version, [abi], PLATFORMS))
    return found + list(compatible_tags(version, interpreter, PLATFORMS))


@cache
def wheels_of(project: str) -> list[tuple[Version, Any, frozenset[Tag], dict[str, Any]]]:
    files = [file for file in files_of(project) if file["filename"].endswith(".whl")]
    return [(*parse_wheel_filename(file["filename"])[1:], file) for file in files]


def best_file(project: str, tag: str, accepts: Any, *, yanked: bool = False) -> dict[str, Any]:
    """Choose the newest wheel that is accepted and runs; LookupError where there is none."""
    ranks = {known: rank for rank, known in enumerate(tags_of(tag))}
    candidates = []
    for version, build, tags, file in wheels_of(project):
        fitting = [ranks[known] for known in tags if known in ranks]
        if not fitting or version.is_prerelease or (file.get("yanked") and not yanked):
            continue
        if accepts(version, file) and python_of(tag) in SpecifierSet(
            file.get("requires-python") or ""
        ):
            candidates.append(((version, -min(fitting), build), file))
    if not candidates:
        raise LookupError(f"no file of {project} fits {tag}")
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


def compiled(
    wanted: list[str], tag: str, as_of: date, constraints: Iterable[str] = ()
) -> dict[str, tuple[str, tuple[str, ...]]] | None:
    """Let uv resolve: project -> version and who asks for it; None where it cannot."""
    digits = tuple(map(int, python_of(tag).split(".")))
    if digits < OLDEST_OF_UV:
        return None
    command = ["uv", "pip", "compile", "-", "--no-header", "--annotation-style", "line"]
    command += ["--only-binary", ":all:", "--no-python-downloads", "--exclude-newer"]
    command += [as_of.isoformat(), "--python-version", python_of(tag)]
    command += ["--python-platform", f"x86_64-manylinux_2_{GLIBC}"]
    with NamedTemporaryFile("w") as file:
        file.write("\n".join(constraints))
        file.flush()
        done = subprocess.run(
            [*command, "--constraint", file.name],
            input="\n".join(wanted),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        return None
    found = _PIN.findall(done.stdout)
    return {name: (version, tuple((via or "").split(", "))) for name, version, via in found}


def reached(
    pins: dict[str, tuple[str, tuple[str, ...]]], roots: Iterable[str], without: tuple[str, ...]
) -> set[str]:
    """What ``roots`` ask for, and what that asks for, but nothing that only ``without`` does."""
    found = set(roots) & set(pins)
    while True:
        more = {
            name
            for name, (_, askers) in pins.items()
            if found & set(askers) and not name.startswith(without)
        }
        if more <= found:
            return found
        found |= more


def before(as_of: date) -> Any:
    limit = datetime.combine(as_of, datetime.min.time(), timezone.utc)
    return lambda _version, file: datetime.fromisoformat(file["upload-time"]) < limit


def exactly(wanted: str) -> Any:
    return lambda version, _file: version == Version(wanted)


def pin(torch: str, tag: str, released: str) -> dict[str, Any]:
    as_of = date.fromisoformat(released) + timedelta(weeks=WEEKS)
    pins = compiled([f"torch=={torch}", *ALWAYS], tag, as_of)
    if pins is None:
        rows = [row_of(project, tag, before(as_of)) for project in UNDECLARED[python_of(tag)]]
    else:
        own = {name: version for name, (version, _) in pins.items() if name != "torch"}
        rows = [row_of(name, tag, exactly(version)) for name, version in own.items()]
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
