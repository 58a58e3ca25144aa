"""Pin what building a release from source runs, as the package index stood some weeks after it.

    python scripts/pin_build_tools.py 1.0.1:cp36-cp36m 2.8.0:cp311-cp311 ...

Rewrites the pinned files of ``envforge/capability/data/build_tools.yaml`` for the pairs that are
named; the tools and their bounds, and the other pairs, stay. uv resolves; where it finds no wheels
of that time (PyYAML had none before 2021), or no longer knows the Python, each tool is taken by
itself: the newest of that time, else the first that ever had a wheel.
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date, timedelta
from typing import Any

from format_data import canonical, dump, head_of, plain
from package_index import files_of
from packaging.version import Version
from pin_requirements import OLDEST_OF_UV, WEEKS, before, exactly, row_of

from envforge.capability import load as database_load
from envforge.capability.build_tools import BuildTool, build_tools_of
from envforge.capability.models import in_range

TARGET = database_load.DATA / "build_tools.yaml"


def pin(torch: str, tag: str, released: str) -> dict[str, Any]:
    as_of = date.fromisoformat(released) + timedelta(weeks=WEEKS)
    digits = tag.split("-", maxsplit=1)[0].removeprefix("cp")
    python = f"{digits[0]}.{digits[1:]}"
    tools = build_tools_of(database_load.load(), torch, python)
    pins = None
    if (int(digits[0]), int(digits[1:])) >= OLDEST_OF_UV:
        pins = resolved(tools, python, as_of)
    if pins is None:
        rows = [of_its_time(tool, tag, as_of) for tool in tools]
    else:
        rows = [row_of(name, tag, exactly(version)) for name, version in pins]
    return {
        "torch": torch,
        "tag": tag,
        "as_of": as_of.isoformat(),
        "packages": rows,
        "evidence": "measured",
        "source": "Python package index metadata, resolved as of the date by this repository's"
        " scripts/pin_build_tools.py; what had no wheel then is the first that has one",
    }


def of_its_time(tool: BuildTool, tag: str, as_of: date) -> dict[str, Any]:
    """Take the newest wheel of the time; where there was none, the one that came first."""
    try:
        return row_of(tool.name, tag, fitting(tool, before(as_of)))
    except SystemExit:
        uploads = sorted(file["upload-time"] for file in files_of(tool.name))
    for upload in uploads:
        try:
            until = date.fromisoformat(upload[:10]) + timedelta(days=1)
            return row_of(tool.name, tag, fitting(tool, before(until)))
        except SystemExit:
            continue
    raise SystemExit(f"no wheel of {tool.name} ever fitted {tag}")


def fitting(tool: BuildTool, is_before: Any) -> Any:
    def accepts(version: Version, file: dict[str, Any]) -> bool:
        bounds = tool.versions
        released = ".".join(map(str, version.release))
        return is_before(version, file) and (bounds is None or in_range(released, bounds))

    return accepts


def resolved(
    tools: tuple[BuildTool, ...], python: str, as_of: date
) -> list[tuple[str, str]] | None:
    """Let uv resolve the tools with what they need themselves; None where it cannot."""
    command = ["uv", "pip", "compile", "-", "--no-header", "--no-annotate"]
    command += ["--only-binary", ":all:", "--python-version", python]
    command += ["--python-platform", "x86_64-manylinux_2_31", "--exclude-newer", as_of.isoformat()]
    wanted = "\n".join(tool.name + (tool.versions or "") for tool in tools)
    done = subprocess.run(command, input=wanted, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    return [(m[1], m[2]) for m in re.finditer(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE)]


def main(pairs: list[str]) -> None:
    database = database_load.load()
    releases = {release.version: release for release in database.releases}
    table = plain(database.build_tools, head=True)
    known = {(row["torch"], row["tag"]): row for row in table.get("pinned", [])}
    for pair in pairs:
        torch, tag = pair.split(":")
        known[torch, tag] = pin(torch, tag, str(releases[torch].released))
        print(pair, [f"{r['project']}=={r['version']}" for r in known[torch, tag]["packages"]])
    table["pinned"] = [known[key] for key in sorted(known, key=lambda k: (Version(k[0]), k[1]))]
    TARGET.write_text(head_of(TARGET.read_text(encoding="utf-8")) + dump(table), encoding="utf-8")
    TARGET.write_text(canonical(TARGET), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
