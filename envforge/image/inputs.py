"""The inputs of a plan, fetched by hash and put into its build context."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from envforge.capability.models import Platform
from envforge.events import OnEvent
from envforge.image.plan import LocalTree, Plan, SourceTree
from envforge.sources.archive import candidates
from envforge.sources.fetch import fetch_first, fetch_url, fetch_wheel
from envforge.sources.git import GitTree, fetch_tree
from envforge.sources.store import Store


def place_inputs(
    plan: Plan, folder: Path, store: Store, archive: str | None, on_event: OnEvent
) -> None:
    """Put every input of ``plan`` below ``folder``, fetching what the store does not have.

    ``archive``: the distribution's archive, if the user stated one. Raises SourceError or
    HashMismatch.
    """
    for wheel in plan.wheels:
        link(fetch_wheel(wheel, store, on_event), folder / "inputs/wheels" / wheel.name)
    if plan.source is None:
        return
    tree, runfile = plan.source.tree, plan.source.runfile
    if plan.until != "toolchain":
        link(_fetch(tree, plan.platform, store, archive, on_event), folder / "inputs" / tree.name)
    if runfile is not None:
        path = fetch_url(runfile.url, runfile.sha256, runfile.name, store, on_event)
        link(path, folder / "inputs" / runfile.name)


def _fetch(
    tree: SourceTree, platform: Platform, store: Store, archive: str | None, on_event: OnEvent
) -> Path:
    """Return the tar file of the sources."""
    origin = tree.origin
    if isinstance(origin, GitTree):
        return fetch_tree(origin, store, on_event).archive
    if isinstance(origin, LocalTree):
        return origin.packed
    urls = tuple(f"{address}/{origin.path}" for address in candidates(platform, archive))
    return fetch_first(urls, origin.sha256, origin.name, store, on_event)


def link(stored: Path, target: Path) -> None:
    """Make ``target`` the same file: a hard link where it can be, inputs weigh gigabytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(stored, target)
    except OSError:
        shutil.copyfile(stored, target)
