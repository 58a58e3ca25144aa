"""The inputs of a plan, fetched by hash and put into its build context."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from envforge.capability.models import Platform
from envforge.events import OnEvent
from envforge.image.plan import LocalTree, Plan, SourceTree
from envforge.sources.archive import candidates
from envforge.sources.fetch import fetch_first, fetch_url, fetch_wheel
from envforge.sources.git import GitTree, fetch_tree
from envforge.sources.store import Store


def place_inputs(
    plan: Plan, folder: Path, store: Store, archive: str | None, on_event: OnEvent
) -> tuple[str, ...]:
    """Put every input of ``plan`` below ``folder``, fetching what the store does not have.

    ``archive``: the distribution's archive, if the user stated one. Returns what git found in the
    tree, as lines ``COMMIT PATH``; none for a tree that is no work tree. Raises SourceError or
    HashMismatch.
    """
    for wheel in plan.every_wheel if plan.until != "toolchain" else ():
        link(fetch_wheel(wheel, store, on_event), folder / "inputs/wheels" / wheel.name)
    if plan.source is None:
        return ()
    python = plan.source.python
    if python is not None:
        source = python.source
        urls = (*_in_archives(plan.platform, archive, source.pool), source.url)
        path = fetch_first(urls, source.sha256, source.name, store, on_event)
        link(path, folder / "inputs" / source.name)
    runfile = plan.source.runfile
    if runfile is not None:
        path = fetch_url(runfile.url, runfile.sha256, runfile.name, store, on_event)
        link(path, folder / "inputs" / runfile.name)
    if plan.until == "toolchain":
        return ()
    vision = plan.source.torchvision
    if vision is not None:
        urls = (*_in_archives(plan.platform, archive, vision.pool), vision.url)
        path = fetch_first(urls, vision.sha256, vision.name, store, on_event)
        link(path, folder / "inputs" / vision.name)
    tree = plan.source.tree
    packed = _fetch(tree, plan.platform, store, archive, on_event)
    link(packed.archive, folder / "inputs" / tree.name)
    return packed.record


class _Packed(NamedTuple):
    archive: Path
    record: tuple[str, ...] = ()


def _fetch(
    tree: SourceTree, platform: Platform, store: Store, archive: str | None, on_event: OnEvent
) -> _Packed:
    """Return the tar file of the sources."""
    origin = tree.origin
    if isinstance(origin, GitTree):
        fetched = fetch_tree(origin, store, on_event)
        return _Packed(fetched.archive, fetched.record)
    if isinstance(origin, LocalTree):
        return _Packed(origin.packed)
    urls = _in_archives(platform, archive, origin.path)
    return _Packed(fetch_first(urls, origin.sha256, origin.name, store, on_event))


def _in_archives(platform: Platform, archive: str | None, path: str | None) -> tuple[str, ...]:
    """Return where the distribution's archives have ``path``; nowhere for None."""
    if path is None:
        return ()
    return tuple(f"{address}/{path}" for address in candidates(platform, archive))


def origins(plan: Plan) -> dict[str, str]:
    """Say of each input, by its path in the context, where it is published."""
    source = plan.source
    found = {f"inputs/wheels/{w.name}": "the package index, by pip" for w in plan.every_wheel}
    if source is None:
        return found
    files = (source.runfile, source.torchvision, source.python and source.python.source)
    found.update({f"inputs/{file.name}": file.url for file in files if file})
    origin = source.tree.origin
    places: tuple[str | Path | None, ...] = (
        origin.urls
        if isinstance(origin, GitTree)
        else (origin.folder if isinstance(origin, LocalTree) else origin.path,)
    )
    return {**found, f"inputs/{source.tree.name}": str(places[0])}


def link(stored: Path, target: Path) -> None:
    """Make ``target`` the same file: a hard link where it can be, inputs weigh gigabytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(stored, target)
    except OSError:
        shutil.copyfile(stored, target)
