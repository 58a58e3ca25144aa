"""A Python of this machine with a torch of the database: made once, every file by its hash."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import platformdirs

from envforge.capability.database import Database
from envforge.capability.load import load
from envforge.capability.models import Requirement, WheelFile
from envforge.errors import HostMismatch, UnknownName
from envforge.events import Event, OnEvent
from envforge.image.plan import find_requirements
from envforge.recipes import LoadedRecipe
from envforge.recipes.packages import Pinned, PinnedFile, load_pins, unpack_wheels
from envforge.recipes.variant import runs_on
from envforge.sources.fetch import WheelInput
from envforge.sources.store import Store, default_store

_OLDEST = (3, 3)
"""Python's own venv is as old as that."""
_TAG = "import sysconfig; print(sysconfig.get_config_var('SOABI').split('-')[1])"


class _Fit(NamedTuple):
    """A wheel of the release, what it needs beside it, and a Python on PATH that is its own."""

    file: WheelFile
    needed: tuple[Requirement, ...]
    python: str


def make_interpreter(torch: str, loaded: LoadedRecipe, on_event: OnEvent) -> str:
    """Return a Python that has this release's default wheel, and what the recipe pins beside it.

    UnknownName for a release that is not in the database, HostMismatch where no Python of this
    machine is one of its wheel's or what torch needs there is not pinned, SourceError or
    HashMismatch where a file cannot be had.
    """
    fit = _fitting(load(), torch)
    inputs = _inputs(torch, fit, loaded)
    digest = hashlib.sha256("\n".join(each.sha256 for each in inputs).encode()).hexdigest()
    name = f"torch-{torch}-{fit.file.tag}-{digest[:12]}"
    target = platformdirs.user_cache_path("envforge") / "environments" / name
    store = default_store()
    with store.locked(target.name, on_event):
        if not (target / "complete").is_file():
            on_event(Event("step", f"making {target}"))
            _make(fit.python, target, inputs, store, on_event)
            (target / "complete").touch()
    return str(target / "bin" / "python")


def _files(database: Database, torch: str) -> tuple[WheelFile, ...]:
    for wheel in database.wheels:
        if (wheel.torch, wheel.variant) == (torch, None) and wheel.files:
            return wheel.files
    known = [wheel.torch for wheel in database.wheels if wheel.variant is None and wheel.files]
    raise UnknownName("wheel of torch", torch, hint=f"there are: {', '.join(known)}")


def _fitting(database: Database, torch: str) -> _Fit:
    """Find a wheel, the newest Python's first, that some Python on PATH is of.

    One whose companions nobody has pinned is passed over: torch might not even import.
    """
    because = []
    usable = (file for file in _files(database, torch) if _version(file) >= _OLDEST)
    for file in sorted(usable, key=_version, reverse=True):
        python = _python_of(file)
        needed = find_requirements(database, torch, file.tag)
        if python and needed:
            return _Fit(file, needed, python)
        lacking = "what torch needs there is not pinned" if python else "no such Python on PATH"
        because.append(f"its wheel for {file.tag}: {lacking}")
    raise HostMismatch(
        f"no Python of this machine can be given torch {torch}",
        because=tuple(because),
        hint="install one of these Pythons, or train in an image: envforge build",
    )


def _python_of(file: WheelFile) -> str | None:
    major, minor = _version(file)
    path = shutil.which(f"python{major}.{minor}")
    abi = file.tag.partition("-")[2].removeprefix("cp")
    return path if path and _abi(path) == abi else None


def _version(file: WheelFile) -> tuple[int, int]:
    digits = file.tag.partition("-")[0].removeprefix("cp")
    return int(digits[0]), int(digits[1:])


def _abi(python: str) -> str:
    """``37m``, ``311``; empty for a Python that does not run."""
    answer = subprocess.run([python, "-c", _TAG], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _inputs(torch: str, fit: _Fit, loaded: LoadedRecipe) -> list[WheelInput]:
    """List torch's wheel, what it needs, and the recipe's pins, which win where both have one."""
    inputs = {row.project: _input(row.project, row.version, row.file) for row in fit.needed}
    for row in _pins(loaded, fit.file.tag, torch):
        inputs[row.project] = _input(row.project, row.version, row.file)
    return [_input("torch", torch, fit.file), *inputs.values()]


def _pins(loaded: LoadedRecipe, tag: str, torch: str) -> tuple[Pinned, ...]:
    """Take those of the first variant that runs on this torch."""
    for variant in loaded.recipe.variants.values():
        if variant.packages and runs_on(variant.torch, torch):
            every = load_pins(loaded.shared / variant.packages)
            return next((each.rows for each in every if each.fits(tag, torch)), ())
    return ()


def _input(project: str, version: str, file: WheelFile | PinnedFile) -> WheelInput:
    return WheelInput(project, version, file.name, file.sha256, file.size_bytes, file.tag)


def _make(
    python: str, target: Path, inputs: list[WheelInput], store: Store, on_event: OnEvent
) -> None:
    """Make a virtual environment and unpack the wheels into it: no pip is needed in there."""
    shutil.rmtree(target, ignore_errors=True)
    made = subprocess.run(
        [python, "-m", "venv", "--without-pip", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        because = tuple((made.stdout + made.stderr).splitlines()[-3:])
        raise HostMismatch(f"{python} makes no virtual environment", because=because)
    packages = next(target.glob("lib/python*/site-packages"))
    unpack_wheels(inputs, packages, store, on_event)
