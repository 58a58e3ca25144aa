"""Read conda-forge's CUDA builds of pytorch anew from a clone of its recipe.

    python scripts/refresh_conda.py CLONE-OF-pytorch-cpu-feedstock

Rewrites ``envforge/capability/data/conda.yaml``. What the channel built stands in the recipe's
history: every commit of its branches lists its builds under ``.ci_support`` and the architectures
of each CUDA in a build script. Of a release with a CUDA the newest commit counts.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from format_data import plain, write_rows

from envforge.capability.models import CondaBuild
from envforge.capability.tables import DATA
from envforge.documents import parse_yaml
from envforge.values import version_key

TARGET = DATA / "conda.yaml"
BRANCHES = re.compile(r"(main|v\d+\.\d+\.x)\Z")
SCRIPTS = ("recipe/build.sh", "recipe/build_pytorch.sh")
CANDIDATE = re.compile(r"pytorch_rc|is_rcTrue|rcrc")
_VERSION = re.compile(r'set version = "([\d.]+)"')
_IF = re.compile(r"cuda_compiler_version\} == ([\d.*]+)")
_CASE = re.compile(r"\s*(\d[\d.*\[\]-]*)\)\s*$")
_END = re.compile(r"\s*(?:esac|\*\))")
_LIST = re.compile(r'TORCH_CUDA_ARCH_LIST="([^"]+)"')


class Build(NamedTuple):
    """One file of ``.ci_support`` at one commit."""

    commit: str
    date: str
    torch: str
    cuda: str
    cudnn: str
    pythons: frozenset[str]


def main(clone: str) -> None:
    found: dict[tuple[str, str], Build] = {}
    for build in sorted(builds(clone), key=lambda build: build.date):
        key = (build.torch, build.cuda)
        before = found.get(key)
        same = before is not None and before.commit == build.commit
        pythons = build.pythons | before.pythons if before and same else build.pythons
        found[key] = build._replace(pythons=pythons)
    newest = sorted(found, key=lambda key: tuple(map(version_key, key)), reverse=True)
    rows = [row for key in newest if (row := row_of(clone, found[key]))]
    write_rows(TARGET, plain(rows))
    print(f"{len(rows)} builds of {len({row.torch for row in rows})} releases")


def git(clone: str, *arguments: str) -> str:
    command = ["git", "-C", clone, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def builds(clone: str) -> Iterator[Build]:
    """Yield every CUDA build for Linux x86_64 of every commit on a branch that was built."""
    seen = set()
    for branch in git(clone, "branch", "--all", "--format=%(refname:short)").split():
        if not BRANCHES.search(branch):
            continue
        for line in git(clone, "log", "--first-parent", "--format=%H %as", branch).splitlines():
            if line not in seen:
                seen.add(line)
                yield from builds_at(clone, *line.split())


def builds_at(clone: str, commit: str, date: str) -> Iterator[Build]:
    version = _VERSION.search(git(clone, "show", f"{commit}:recipe/meta.yaml"))
    for name in git(clone, "ls-tree", "--name-only", f"{commit}:.ci_support").splitlines():
        if version is None or not name.startswith("linux_64") or CANDIDATE.search(name):
            continue
        text = git(clone, "show", f"{commit}:.ci_support/{name}")
        variant = parse_yaml(text, name)
        cuda = variant.get("cuda_compiler_version", ["None"])[0]
        if cuda != "None":
            cudnn = (variant.get("cudnn") or variant.get("libcudnn_dev") or [""])[0]
            pythons = frozenset(".".join(row.split(".")[:2]) for row in variant.get("python", ()))
            yield Build(commit, date, version[1], cuda, cudnn, pythons)


def row_of(clone: str, build: Build) -> CondaBuild | None:
    """Add the architectures; None where no script of that commit names them."""
    codes = codes_of(clone, build)
    if not codes:
        print(f"no architectures for torch {build.torch} with CUDA {build.cuda}: left out")
        return None
    text = git(clone, "show", f"{build.commit}:recipe/meta.yaml")
    return CondaBuild(
        torch=build.torch,
        cuda=build.cuda,
        codes=codes,
        cudnn=cudnn_range(build.cudnn, text),
        pythons=tuple(sorted(build.pythons, key=version_key)),
        evidence="upstream",
        source=f"conda-forge/pytorch-cpu-feedstock at {build.commit}: .ci_support, recipe",
    )


def codes_of(clone: str, build: Build) -> tuple[str, ...]:
    """Find ``export TORCH_CUDA_ARCH_LIST=`` under the branch of the script for this CUDA."""
    for name in SCRIPTS:
        script = git(clone, "show", f"{build.commit}:{name}")
        for pattern, listed in branches(script):
            if fnmatchcase(build.cuda, pattern):
                return codes(listed)
    return ()


def branches(script: str) -> Iterator[tuple[str, str]]:
    """Yield the pattern of each branch with its list; the last list in it is that of x86_64."""
    pattern, base, listed = "", "", ""
    for line in script.splitlines():
        opened = _IF.search(line) or _CASE.match(line)
        if opened or _END.match(line):
            if pattern and listed:
                yield pattern, listed
            pattern, listed = opened[1] if opened else "", ""
        elif value := _LIST.search(line):
            listed = value[1].replace("$TORCH_CUDA_ARCH_LIST", base)
            base = base if pattern else listed
    if pattern and listed:
        yield pattern, listed


def codes(listed: str) -> tuple[str, ...]:
    """``7.5;8.0+PTX`` -> ``sm_75 sm_80 compute_80``."""
    found = []
    for item in listed.split(";"):
        number = item.removesuffix("+PTX").replace(".", "")
        found.append(f"sm_{number}")
        if item.endswith("+PTX"):
            found.append(f"compute_{number}")
    return tuple(found)


def cudnn_range(pin: str, recipe: str) -> str | None:
    """Turn the pin ``8`` into ``>=8,<9``, less what the recipe excludes for the package itself."""
    if not pin:
        return None
    excluded = re.search(r"- cudnn <([\d.]+)", recipe)
    upper = excluded[1] if excluded else str(version_key(pin)[0] + 1)
    return f">={pin},<{upper}"


if __name__ == "__main__":
    main(sys.argv[1])
