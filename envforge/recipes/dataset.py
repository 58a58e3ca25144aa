"""The examples a training gets: found or made, then judged by the recipe's own program.

Programs run where the training runs; what they say comes back as lines (``docs/recipes.md``).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import platformdirs

from envforge.errors import DocumentError, UsageError
from envforge.events import Event, OnEvent
from envforge.recipes.document import Dataset, Words
from envforge.recipes.stage import hash_tree
from envforge.sources import tarball
from envforge.sources.store import Store, default_root

_FAULT = re.compile(r"fault: (?P<place>.+?): (?P<words>.*)")
_SHOWN = 20


class Said(NamedTuple):
    """What a program answered."""

    exit_code: int
    lines: tuple[str, ...]


Program = Callable[[Words, Mapping[str, Path], str], Said]
"""Run words with ``{name}`` places filled in, the last of which can be written to."""


class Examples(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset as it is trained on, as it stands in the run's record."""

    name: str
    path: str
    origin: str
    facts: dict[str, Any] = {}
    """What the check has said of it: ``items``."""

    @property
    def items(self) -> int | None:
        """How many there are to train on, where the check has said."""
        found = self.facts.get("items")
        return found if isinstance(found, int) else None


class Request(NamedTuple):
    """Which dataset."""

    name: str
    dataset: Dataset
    given: Path | None
    """The folder the user gave."""
    demo: bool
    archive: Path | None
    """The asset it comes in, where it was fetched."""
    files: Path
    """The recipe's own, the programs among them: others make another cache."""


def prepare_examples(request: Request, program: Program, on_event: OnEvent) -> Examples:
    """Make or find the dataset, and have it judged.

    UsageError where there is none, DocumentError with the places of its faults.
    """
    path, origin = _found(request, program, on_event)
    _refuse_layout(request.dataset, path)
    facts = _judged(request, path, program, on_event)
    return Examples(name=request.name, path=str(path), origin=origin, facts=facts)


def _found(request: Request, program: Program, on_event: OnEvent) -> tuple[Path, str]:
    dataset = request.dataset
    if request.demo:
        key = f"{request.name}-demo-{hash_tree(request.files)[:12]}"
        return _made(key, dataset.demo, {}, program, on_event), "made for the demo"
    source = request.given.resolve() if request.given else None
    if source is not None and not source.is_dir():
        raise UsageError(f"there is no folder {source}", hint="--data DIR")
    if source is None:
        source = _unpacked(request, on_event)
    if not dataset.convert:
        return source, str(source)
    key = f"{request.name}-{hash_names(source)[:12]}"
    return _made(key, dataset.convert, {"source": source}, program, on_event), str(source)


def hash_names(folder: Path) -> str:
    """Digest names, sizes and times below a folder: reading 40 GB each time would take minutes."""
    digest = hashlib.sha256(str(folder).encode())
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(
            f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()
        )
    return digest.hexdigest()


def _unpacked(request: Request, on_event: OnEvent) -> Path:
    if request.archive is None:
        raise UsageError(
            f"{request.name} has to be brought: {request.dataset.help}",
            hint="--data DIR; or try the recipe on generated examples: --demo",
        )
    target = _root() / f"{request.name}-{request.archive.name[:16]}"
    with Store(default_root()).locked(f"dataset-{target.name}", on_event):
        if not target.is_dir():
            on_event(Event("step", f"unpacking {request.name}"))
            staging = target.with_name(f".{target.name}")
            shutil.rmtree(staging, ignore_errors=True)
            tarball.unpack(request.archive, staging)
            staging.replace(target)
    return target / request.dataset.folder


def _made(
    key: str, words: Words, places: Mapping[str, Path], program: Program, on_event: OnEvent
) -> Path:
    """Let a program fill a folder; it appears whole or not at all."""
    if not words:
        raise UsageError("this dataset has no generated examples", hint="leave out --demo")
    target = _root() / key
    with Store(default_root()).locked(f"dataset-{key}", on_event):
        if not target.is_dir():
            on_event(Event("step", f"making {key}"))
            staging = target.with_name(f".{key}")
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            _refuse_faults(program(words, {**places, "data": staging}, "data"), staging)
            staging.replace(target)
    return target


def _root() -> Path:
    return platformdirs.user_cache_path("envforge") / "datasets"


def _refuse_layout(dataset: Dataset, path: Path) -> None:
    missing = [name for name in dataset.layout if not (path / name).exists()]
    if missing:
        raise DocumentError(
            f"{path} is no such dataset: {dataset.help}",
            because=tuple(f"{name}: is missing" for name in missing),
        )


def _judged(request: Request, path: Path, program: Program, on_event: OnEvent) -> dict[str, Any]:
    if not request.dataset.check:
        return {}
    on_event(Event("step", f"checking {request.name}"))
    said = program(request.dataset.check, {"data": path}, "")
    _refuse_faults(said, path)
    facts: dict[str, Any] = {}
    for line in said.lines:
        if line.startswith("data: "):
            facts |= _facts(line.removeprefix("data: "))
    return facts


def _facts(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_faults(said: Said, path: Path) -> None:
    """DocumentError with the first places, or with the last lines of a program that broke off."""
    faults = [found for line in said.lines if (found := _FAULT.fullmatch(line.strip()))]
    if not faults and said.exit_code == 0:
        return
    shown = tuple(f"{found['place']}: {found['words']}" for found in faults[:_SHOWN])
    if len(faults) > _SHOWN:
        shown = (*shown, f"and {len(faults) - _SHOWN} more")
    plural = "" if len(faults) == 1 else "s"
    raise DocumentError(
        f"the examples in {path} have {len(faults)} fault{plural}"
        if faults
        else f"the examples in {path} could not be judged",
        because=shown or (f"exit code {said.exit_code}", *said.lines[-_SHOWN:]),
    )
