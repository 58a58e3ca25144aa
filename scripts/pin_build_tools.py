"""Pin what building a release from source runs and imports, as the package index stood that time.

    python scripts/pin_build_tools.py 1.0.1:cp36-cp36m 2.8.0:cp311-cp311 ...
    python scripts/pin_build_tools.py --missing

Rewrites the builds of ``envforge/capability/data/pinned_builds.yaml`` that are named, or adds every
one that a plan can ask for and that is not there; the other builds stay. uv resolves: first what
torch imports beside itself, then the tools beside that. Where it finds no wheels of that time
(PyYAML had none before 2021), or no longer knows the Python, each tool is taken by itself: the
newest of that time, else the first that ever had a wheel, else the distribution's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial
from typing import Any

from format_data import canonical, dump, head_of, plain
from package_index import files_of
from packaging.version import Version
from pin_requirements import (
    ALWAYS,
    WEEKS,
    before,
    best_file,
    compiled,
    exactly,
    python_of,
    reached,
)

from envforge.capability import load as database_load
from envforge.capability.build_tools import BuildTool, build_tools_of
from envforge.capability.database import Database
from envforge.capability.lookup import Card, find_card
from envforge.capability.models import PlatformPython, in_range
from envforge.capability.pythons import PythonSource
from envforge.capability.tables import DATA
from envforge.errors import UnknownName
from envforge.resolver import Request, Resolution
from envforge.resolver.candidates import candidates, searches
from envforge.resolver.ground import Terrain
from envforge.resolver.model import PythonOrigin

TARGET = DATA / "pinned_builds.yaml"
AT_ONCE = 16
CUDA = ("cuda-", "nvidia-", "triton")
"""What a published wheel takes CUDA from: a build from source is linked with the toolkit."""
ORIGINS: tuple[PythonOrigin, ...] = ("distribution", "source")


def pin(database: Database, torch: str, tag: str) -> dict[str, Any]:
    as_of = released(database, torch) + timedelta(weeks=WEEKS)
    tools = build_tools_of(database, torch, python_of(tag))
    imported = imports_of(torch, tag, tools, as_of)
    found = resolved(tools, tag, as_of, imported)
    if found is None:
        found = {tool.name: of_its_time(tool, tag, as_of, imported) for tool in tools}
    at_run_time = {tool.name for tool in tools if tool.at_run_time}
    kept = {name: file for name, file in found.items() if name in at_run_time}
    return {
        "torch": torch,
        "tag": tag,
        "as_of": as_of.isoformat(),
        "tools": list(filter(None, found.values())),
        "imports": list(filter(None, {**imported, **kept}.values())),
        "distribution": [name for name, file in found.items() if file is None],
    }


def released(database: Database, torch: str) -> date:
    """The day of a release; where no source gives it, that of the one before."""
    versions = [row.version for row in database.releases]
    earlier = database.releases[versions.index(torch) :]
    return date.fromisoformat(next(row.released for row in earlier if row.released))


def wanted(tools: Iterable[BuildTool]) -> list[str]:
    return [tool.name + (tool.versions or "") for tool in tools]


def imports_of(
    torch: str, tag: str, tools: tuple[BuildTool, ...], as_of: date
) -> dict[str, dict[str, Any]]:
    """Return what the release's published wheel asks for without its CUDA; none without a wheel."""
    own = [*ALWAYS, *wanted(tool for tool in tools if tool.at_run_time)]
    pins = compiled([f"torch=={torch}", *own], tag, as_of, wanted(tools))
    if pins is None:
        return {}
    names = reached(pins, ("torch", *ALWAYS), without=CUDA)
    return {name: best_file(name, tag, exactly(pins[name][0])) for name in names - {"torch"}}


def resolved(
    tools: tuple[BuildTool, ...], tag: str, as_of: date, imported: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any] | None] | None:
    """Let uv resolve the tools with what they need themselves; None where it cannot."""
    constraints = [f"{name}=={version_of(file)}" for name, file in imported.items()]
    pins = compiled(wanted(tools), tag, as_of, constraints)
    if pins is None:
        return None
    return {name: best_file(name, tag, exactly(version)) for name, (version, _) in pins.items()}


def of_its_time(
    tool: BuildTool, tag: str, as_of: date, imported: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Take the newest wheel of the time, else the first there was; None: there never was one."""
    if tool.name in imported:
        return imported[tool.name]
    uploads = (date.fromisoformat(file["upload-time"][:10]) for file in files_of(tool.name))
    later = sorted({upload + timedelta(days=1) for upload in uploads if upload >= as_of})
    for until in (as_of, *later):
        try:
            return best_file(tool.name, tag, fitting(tool, before(until)))
        except LookupError:
            continue
    return None


def fitting(tool: BuildTool, is_before: Any) -> Any:
    def accepts(version: Version, file: dict[str, Any]) -> bool:
        bounds = tool.versions
        released = ".".join(map(str, version.release))
        return is_before(version, file) and (bounds is None or in_range(released, bounds))

    return accepts


def version_of(file: dict[str, Any]) -> str:
    return str(file["filename"].split("-")[1])


def reachable(database: Database) -> set[tuple[str, str]]:
    """Every release and Python tag that a build from source can be asked for with."""
    pairs = set()
    for card in cards(database):
        for search in searches(Terrain(database), Request(card=card, route="source", placed=True)):
            for origin in ORIGINS:
                found = (c for c in candidates(search, "source", origin) if not c.broken)
                pairs |= {(c.resolution.torch, tag_of(database, c.resolution)) for c in found}
    return pairs


def cards(database: Database) -> Iterator[Card]:
    for capability in database.architectures:
        try:
            yield find_card(database, f"sm_{capability.replace('.', '')}")
        except UnknownName:
            continue


def tag_of(database: Database, resolution: Resolution) -> str:
    pythons: Iterable[PythonSource | PlatformPython] = database.pythons.versions
    if resolution.python_origin == "distribution":
        named = (row for row in database.platforms if row.name == resolution.platform)
        pythons = next(named).pythons
    return next(row.wheel_tag for row in pythons if row.version == resolution.python)


def write(table: dict[str, Any], builds: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Write the builds; a file that several of them name stands once."""
    known = {wheel["name"]: wheel for wheel in table["wheels"]}
    for build in builds.values():
        for field in ("tools", "imports"):
            build[field] = sorted(map(partial(name_of, known), build[field]), key=str.lower)
    named = {name for build in builds.values() for name in (*build["tools"], *build["imports"])}
    table["wheels"] = [known[name] for name in sorted(named, key=str.lower)]
    table["builds"] = [builds[key] for key in sorted(builds, key=lambda k: (Version(k[0]), k[1]))]
    TARGET.write_text(head_of(TARGET.read_text(encoding="utf-8")) + dump(table), encoding="utf-8")
    TARGET.write_text(canonical(TARGET), encoding="utf-8")


def name_of(known: dict[str, Any], file: dict[str, Any] | str) -> str:
    """Name a file, and keep what the index says of it."""
    if isinstance(file, str):
        return file
    row = {"name": file["filename"], "sha256": file["hashes"]["sha256"], "size_bytes": file["size"]}
    known[row["name"]] = row
    return str(row["name"])


def main(arguments: list[str]) -> None:
    database = database_load.load()
    table = plain(database.pinned_builds, head=True)
    builds = {(row["torch"], row["tag"]): row for row in table.get("builds", ())}
    named = (pair.partition(":") for pair in arguments if pair != "--missing")
    pairs = [(torch, tag) for torch, _, tag in named]
    if "--missing" in arguments:
        pairs += sorted(reachable(database) - set(builds))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for pair, build in zip(pairs, pool.map(lambda p: pin(database, *p), pairs), strict=True):
            builds[pair] = build
            print(*pair, len(build["tools"]), len(build["imports"]), *build["distribution"])
    table.setdefault("wheels", [])
    write(table, builds)


if __name__ == "__main__":
    main(sys.argv[1:])
