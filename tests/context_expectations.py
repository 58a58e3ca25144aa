"""What the cases and the data ask of a context, worked out without envforge.

The data files are read with PyYAML; ranges and conditions are decided anew.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent


@cache
def read(path: str) -> dict:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((ROOT / path).read_text(encoding="utf-8"), loader)


def data(name: str) -> list:
    return read(f"envforge/capability/data/{name}.yaml")[name]


CASES = {case["name"]: case for case in read("tests/cases/plans.yaml")["plans"]}
SOURCES = [name for name, case in CASES.items() if case["expect"].get("route") == "source"]
WHEELS = [name for name, case in CASES.items() if case["expect"].get("route") in {"wheel", "cpu"}]
PLATFORMS = {row["name"]: row for row in data("platforms")}
TOOLKITS = {row["version"]: row for row in data("toolkits")}
RELEASES = {row["version"]: row for row in data("releases")}
PROFILES, REQUIREMENTS = data("profiles"), data("requirements")
WHEEL_ROWS = data("wheels")


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def compare(left: str, right: str) -> int:
    a, b = numbers(left), numbers(right)
    width = max(len(a), len(b))
    a, b = a + [0] * (width - len(a)), b + [0] * (width - len(b))
    return (a > b) - (a < b)


HOLDS = {
    ">=": lambda order: order >= 0,
    "<=": lambda order: order <= 0,
    "<": lambda order: order < 0,
    ">": lambda order: order > 0,
    "==": lambda order: order == 0,
}


def within(version: str | None, bounds: str | None) -> bool:
    if bounds is None:
        return True
    stated = [re.fullmatch(r"(>=|<=|<|>|==)([\d.]+)", part) for part in bounds.split(",")]
    assert all(stated), bounds
    return version is not None and all(HOLDS[m[1]](compare(version, m[2])) for m in stated)


def needed(patch: dict, axes: dict, switches: dict) -> bool:
    when = dict(patch["when"])
    unless, platforms = when.pop("unless", {}), when.pop("platform", None)
    if platforms and axes["platform"] not in platforms:
        return False
    if any(switches.get(name) == value for name, value in unless.items()):
        return False
    return all(within(axes.get(axis), bounds) for axis, bounds in when.items())


def edits_of(case: dict, profile: dict) -> list[dict]:
    """What must stand in edits.json: the rows of the series that this plan meets, in order."""
    asked, expected = case["ask"], case["expect"]
    axes = {axis: expected[axis] for axis in ("cuda", "gcc", "python", "platform")}
    axes |= {"torch": asked["torch"], "capability": case["capability"]}
    axes["cudnn"] = expected.get("cudnn")
    files = ["series.yaml", *filter(None, [profile.get("patches")])]
    patches = [row for name in files for row in read(f"patches/pytorch/{name}")["patches"]]
    switches = switches_of(case, profile)
    selected = [patch for patch in patches if needed(patch, axes, switches)]
    assert not [patch["id"] for patch in selected if "missing" in patch]
    return [row for patch in selected for row in rows_of(patch, asked["torch"])]


def switches_of(case: dict, profile: dict) -> dict[str, str]:
    return profile["switches"] | (profile["with_cudnn"] if "cudnn" in case["expect"] else {})


def rows_of(patch: dict, torch: str) -> list[dict]:
    edits = [edit for edit in patch.get("edits", ()) if within(torch, edit.get("torch"))]
    rows = [{key: value for key, value in edit.items() if key != "torch"} for edit in edits]
    rows += [added(file) for file in patch.get("adds", ())]
    return [{"patch": patch["id"], **row} for row in rows]


def added(file: dict) -> dict:
    beside = file.get("beside")
    content = (ROOT / "patches/pytorch" / beside).read_text() if beside else file["content"]
    return {"add": file["file"], "content": content}


def python_of(platform: dict, version: str) -> dict:
    """The platform's own Python, else the one that is built from its sources."""
    own = [row for row in platform["pythons"] if row["version"] == version]
    return own[0] if own else built_python(version)


def built_python(version: str) -> dict:
    table = read("envforge/capability/data/pythons.yaml")
    row = next(row for row in table["versions"] if row["version"] == version)
    return row | {
        "executable": f"/opt/python/bin/python{version}",
        "site_packages": f"/opt/python/lib/python{version}/site-packages",
        "packages": [],
        "devel_packages": table["packages"],
        "options": table["configure"] + row.get("configure", []),
        "modules": table["modules"],
    }


def is_built(case: dict) -> bool:
    own = [row["version"] for row in PLATFORMS[case["expect"]["platform"]]["pythons"]]
    return case["expect"]["python"] not in own


def addresses_of(case: dict, profile: dict) -> dict:
    """What must be fetched, from where: the data's addresses, with every submodule's commit."""
    expected, torch = case["expect"], case["ask"]["torch"]
    runfile = expected["cuda_origin"] == "runfile"
    found = {"runfile": TOOLKITS[expected["cuda"]]["runfile"]["url"] if runfile else None}
    python = built_python(expected["python"]) if is_built(case) else None
    found["python"] = {"url": python["url"], "pool": python.get("pool")} if python else None
    vision = torchvision_of(case)
    url = read("envforge/capability/data/torchvision.yaml")["url"]
    found["torchvision"] = (
        {"url": url.replace("{version}", vision["version"]), "pool": vision.get("pool")}
        if vision
        else None
    )
    if expected["tree"] == "archive":
        archive = profile["archive"]
        return found | {key: archive[key] for key in ("path", "size_bytes")}
    if expected["tree"] == "local":
        return found
    release = RELEASES[torch]
    return found | {
        "urls": [read("envforge/capability/data/builds.yaml")["repository"]["url"]],
        # A wheel's commit may differ from the tag's: then the tag says nothing of it.
        "tag": release["tag"] if "commit" in release else None,
        "commit": release.get("commit") or release["wheel_commit"],
        "submodules": submodules_of(torch),
    }


def submodules_of(torch: str) -> list[dict]:
    table = read("envforge/capability/data/submodules.yaml")
    gone = {(row["path"], row["commit"]): row for row in table["vanished"]}
    pins = sorted((row for row in table["pins"] if torch in row["torch"]), key=lambda r: r["path"])
    return [
        {
            "path": pin["path"],
            "urls": [pin["url"], *gone.get((pin["path"], pin["commit"]), {}).get("mirrors", ())],
            "commit": pin["commit"],
            "unused": gone.get((pin["path"], pin["commit"]), {}).get("unused", False),
        }
        for pin in pins
    ]


def profile_of(case: dict) -> dict:
    expected = case["expect"]
    return next(
        row
        for row in PROFILES
        if row["name"] == expected["profile"]
        and within(case["ask"]["torch"], row["torch"])
        and expected["platform"] in row.get("platforms", [expected["platform"]])
    )


def compiler_of(platform: dict, version: str) -> dict:
    return next(row for row in platform["compilers"] if row["version"] == version)


def torchvision_of(case: dict) -> dict | None:
    """None with a Python that was built: what torchvision imports is of the distribution's."""
    release = RELEASES[case["ask"]["torch"]]
    if is_built(case):
        return None
    rows = read("envforge/capability/data/torchvision.yaml")["versions"]
    return next((row for row in rows if row["version"] == release.get("torchvision")), None)


def cudnn_of(expected: dict) -> dict:
    rows = read("envforge/capability/data/cudnn.yaml")["wheels"]
    fitting = [row["files"] for row in rows if within(expected["cuda"], row["cuda"])]
    return next(files[expected["cudnn"]] for files in fitting if expected["cudnn"] in files)


def built_for(case: dict) -> tuple[str, str]:
    python = python_of(PLATFORMS[case["expect"]["platform"]], case["expect"]["python"])
    return case["ask"]["torch"], python["wheel_tag"]


def pinned(rows: list[dict], built: tuple[str, str]) -> list[dict]:
    return [p for row in rows if (row["torch"], row["tag"]) == built for p in row["packages"]]


def pinned_build(case: dict) -> dict | None:
    """None for a tree of the distribution's: that is built with the distribution's own tools."""
    if case["expect"]["tree"] == "archive" and not is_built(case):
        return None
    builds = read("envforge/capability/data/pinned_builds.yaml")["builds"]
    return next(row for row in builds if (row["torch"], row["tag"]) == built_for(case))


def named(names: list[str]) -> list[dict]:
    """The files of these names, with what their names say."""
    rows = {
        row["name"]: row for row in read("envforge/capability/data/pinned_builds.yaml")["wheels"]
    }
    found = []
    for name in names:
        project, version = name.split("-")[:2]
        project = re.sub(r"[._-]+", "-", project).lower()
        found.append({"project": project, "version": version, "file": rows[name]})
    return found


def tools_of(case: dict) -> list[dict]:
    build = pinned_build(case)
    return named(build["tools"]) if build else []


def imports_of(case: dict) -> list[dict]:
    """What torch imports: nothing of CUDA, and what was compiled in as it was compiled in."""
    build = pinned_build(case)
    if build is None:
        return []
    torch, python = case["ask"]["torch"], case["expect"]["python"]
    kept = {
        row["name"].replace("_", "-")
        for row in read("envforge/capability/data/build_tools.yaml")["tools"]
        if row.get("at_run_time")
        and within(torch, row["torch"])
        and within(python, row.get("python"))
    }
    found = named(build["imports"])
    assert not [row["project"] for row in found if re.match("nvidia-|cuda-|triton", row["project"])]
    assert kept <= {row["project"] for row in found}
    compiled = {row["project"]: row["file"]["name"] for row in named(build["tools"])}
    for row in found:
        assert compiled.get(row["project"], row["file"]["name"]) == row["file"]["name"]
    return found


# News of pip, and what each says itself (docs/verification/2026-11-28-source.md): the first that takes
# a tag. PEP 513, 571, 599 and 600: the glibc that a tag needs.
TAKES = {"manylinux1": "8.1", "manylinux2010": "19.0", "manylinux2014": "19.3"}
GLIBC = {"manylinux1": "2.5", "manylinux2010": "2.12", "manylinux2014": "2.17"}
PEP_600 = "20.3"


def platform_tags(name: str) -> list[str]:
    return name[: -len(".whl")].rsplit("-", 1)[1].split(".")


def takes(pip: str, tag: str) -> bool:
    """Whether a pip of this version installs a wheel of this platform tag."""
    if not tag.startswith("manylinux"):
        return True
    return compare(pip, TAKES.get(tag.split("_", 1)[0], PEP_600)) >= 0


def glibc_of(tag: str) -> str:
    stated = re.match(r"manylinux_(\d+)_(\d+)_", tag)
    return f"{stated[1]}.{stated[2]}" if stated else GLIBC.get(tag.split("_", 1)[0], "0")


def pip_of(platform: dict) -> dict | None:
    """The pip that takes the place of the platform's own; None: that one is new enough."""
    pip = read("envforge/capability/data/build_tools.yaml")["pip"]
    return None if within(platform["pip"], pip["versions"]) else pip["file"]
