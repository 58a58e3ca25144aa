"""Apply the patch series to real trees, in every combination of conditions that selects patches.

    python scripts/try_series.py PYTORCH.git GLOO.git [RELEASE ...]

``PYTORCH.git`` is a repository with PyTorch's tags, ``GLOO.git`` one of gloo with the commits they
pin; without releases every recorded one is tried. One line per release and selection: the patches,
and what became of each edit. Each tree is edited twice: the second time all must stand already.
Exit code 1 where an edit did not fit.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from envforge.capability.load import load
from envforge.capability.models import TorchRelease
from envforge.capability.submodules import submodules_of
from envforge.errors import MissingPatch, PatchError
from envforge.patching.series import Axes, Patch, apply, load_series, select

VALUES: dict[str, tuple[object, ...]] = {
    "cuda": ("10.1.243", "11.4.100"),
    "gcc": ("7", "13"),
    "python": ("3.7", "3.8"),
    "capability": ("3.0", "3.5"),
    "cudnn": (None, "7.6.5", "8.7.0"),
    "platform": ("ubuntu-18.04", "debian-12"),
    "switches": ({}, {"USE_DISTRIBUTED": "0", "BUILD_CAFFE2_OPS": "0"}),
}
"""On both sides of every bound of the series."""
UNREADABLE = ":(exclude)caffe2/mobile/contrib"
"""A model of 5 MB in old trees that some public copies lack; nothing of it is patched."""
GLOO = "third_party/gloo"


def main(arguments: list[str]) -> int:
    pytorch, gloo, *wanted = arguments
    releases = [r for r in load().releases if submodules_of(load(), r.version) is not None]
    faults = 0
    for release in reversed(releases):
        if not wanted or release.version in wanted:
            with tempfile.TemporaryDirectory() as folder:
                extract(Path(pytorch), f"refs/tags/{release.tag}", Path(folder))
                extract_gloo(Path(gloo), release, Path(folder))
                faults += try_release(release.version, Path(folder))
    print(f"{faults} selections did not fit")
    return 1 if faults else 0


def extract(repository: Path, commit: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    command = ["git", "archive", commit, "--", ".", UNREADABLE]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 -- it is a pipe
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            archive.extractall(target, filter="data")
    if process.returncode:
        raise SystemExit(f"{repository} cannot give {commit}")


def extract_gloo(repository: Path, release: TorchRelease, target: Path) -> None:
    rows = submodules_of(load(), release.version) or ()
    commit = next(row.commit for row in rows if row.path == GLOO)
    extract(repository, commit, target / GLOO)


def try_release(torch: str, tree: Path) -> int:
    """Try each selection on a copy of the files it touches; return how many did not fit."""
    series, faults = load_series(), 0
    for found in selections(series, torch):
        if isinstance(found, str):
            print(f"{torch}: exit 4: {found}")
            continue
        names = " + ".join(patch.id for patch in found)
        with tempfile.TemporaryDirectory() as copy:
            copy_files(found, tree, Path(copy))
            try:
                first = apply(found, Path(copy))
                again = apply(found, Path(copy))
            except PatchError as error:
                faults += 1
                print(f"{torch}: {names}: DOES NOT FIT: {' '.join(error.because)}")
                continue
        stand = all(line.endswith(": already applied") for line in again)
        counts = sum(edit.sites for patch in found for edit in patch.edits)
        print(f"{torch}: {names}: {len(first)} edits, {counts} sites; again: {stand}")
        faults += not stand
    return faults


def selections(series: tuple[Patch, ...], torch: str) -> Iterator[tuple[Patch, ...] | str]:
    """Yield each different selection once; a string names the patches that are not carried."""
    seen: set[tuple[str, ...] | str] = set()
    for values in itertools.product(*VALUES.values()):
        axes: Axes = dict(zip(VALUES, values, strict=True))  # type: ignore[assignment]
        try:
            found: tuple[Patch, ...] | str = select(series, torch=torch, **axes)
        except MissingPatch as missing:
            lines = [line for line in missing.because if not line.startswith("described in")]
            found = ", ".join(line.partition(":")[0] for line in lines)
        key = found if isinstance(found, str) else tuple(patch.id for patch in found)
        if key and key not in seen:
            seen.add(key)
            yield found


def copy_files(patches: tuple[Patch, ...], tree: Path, target: Path) -> None:
    for name in {edit.file for patch in patches for edit in patch.edits}:
        source = tree / name
        if source.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(source.read_bytes())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
