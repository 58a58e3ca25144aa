"""Upstream's code as it will run: the commit's files, patched, compared, and nothing else in it.

Staged checkouts are kept under the digest of what they are made of; one whose files are not the
ones that were staged is made anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import platformdirs

from envforge import documents
from envforge.errors import DocumentError, UnknownName, UsageError
from envforge.events import Event, OnEvent
from envforge.patching.series import Patch, apply, edits_json, load_series, select
from envforge.recipes.difference import filled
from envforge.recipes.document import LoadedRecipe, Override, Setting, Upstream, Variant
from envforge.recipes.value import check_old_values, edit_yaml
from envforge.recipes.variant import release_of
from envforge.sources.checkout import Files, export_commit
from envforge.sources.mirror import is_mirror
from envforge.sources.repository import Wanted
from envforge.sources.store import MIRROR, Store, default_store, hash_file


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """A staged checkout, as it stands in the run's record."""

    path: str
    upstream: str
    commit: str
    origin: str
    """Address or folder the files came from."""
    verified: bool
    """They are the commit's own; false: of a copy without a history."""
    patches: tuple[str, ...]
    """``ID: FILE: applied`` for every edit."""
    edits: tuple[str, ...] = ()
    """``FILE: KEY: VALUE`` for every YAML value."""
    files_sha256: str
    """Of all its files, when it was staged."""
    reused: bool = False


class Wish(NamedTuple):
    """What to stage."""

    loaded: LoadedRecipe
    variant: Variant
    torch: str
    settings: dict[str, Setting]
    source: Path | None = None
    """A copy or a repository of upstream on this machine; None: the mirror's, or its address."""
    built_for: str = ""
    """What an extension in it is compiled for: another torch needs another checkout."""


Build = Callable[[Path], None]


def stage(
    wish: Wish, on_event: OnEvent, build: Build | None = None, root: Path | None = None
) -> Checkout:
    """Return the checkout, made anew or as it was left.

    ``build`` compiles what upstream compiles, in the tree. SourceError where the commit cannot be
    had, PatchError where a patch or an old value does not fit.
    """
    upstream = wish.loaded.recipe.upstream
    if upstream is None:
        raise TypeError(f"{wish.loaded.recipe.name} has no upstream")
    patches = patches_of(wish)
    edits = tuple(
        (override, value)
        for override, value in filled(wish.variant.overrides, wish.settings)
        if override.form == "yaml"
    )
    source = wish.source.resolve() if wish.source else find_mirror(upstream)
    root = root or platformdirs.user_cache_path("envforge") / "checkouts"
    path = root / f"{upstream.name}-{wish.variant.commit[:12]}-{_key(wish, patches, edits, source)}"
    store = default_store()
    with store.locked(f"checkout-{path.name}", on_event):
        found = _reused(path, on_event)
        if found is not None:
            return found
        files = Files(Wanted((upstream.url,), wish.variant.commit), upstream.omit, source)
        return _made(wish, path, _Making(files, patches, edits, build, store), on_event)


class _Making(NamedTuple):
    files: Files
    patches: tuple[Patch, ...]
    edits: tuple[tuple[Override, str], ...]
    build: Build | None
    store: Store


def patches_of(wish: Wish) -> tuple[Patch, ...]:
    """Choose the variant's patches that this torch needs; UnknownName for one that is none."""
    upstream = wish.loaded.recipe.upstream
    if upstream is None or upstream.series is None or not wish.variant.patches:
        return ()
    series = {patch.id: patch for patch in load_series(wish.loaded.shared / upstream.series)}
    for name in wish.variant.patches:
        if name not in series:
            raise UnknownName("patch", name, hint=f"{upstream.series} has: {', '.join(series)}")
    named = tuple(series[name] for name in wish.variant.patches)
    return select(named, torch=release_of(wish.torch) or wish.torch)


def find_mirror(upstream: Upstream) -> Path | None:
    """Find the upstream's repository in the folder that ENVFORGE_MIRROR names, by its name.

    What ``envforge mirror`` made need not have one: its commits are found by their ids.
    """
    folder = os.environ.get(MIRROR)
    if not folder:
        return None
    for name in (upstream.name, f"{upstream.name}.git"):
        if (Path(folder) / name).is_dir():
            return (Path(folder) / name).resolve()
    if is_mirror(Path(folder)):
        return None
    raise UsageError(
        f"{MIRROR}={folder} has no {upstream.name}", hint=f"git clone --mirror {upstream.url}"
    )


def _key(
    wish: Wish,
    patches: tuple[Patch, ...],
    edits: tuple[tuple[Override, str], ...],
    source: Path | None,
) -> str:
    """Digest what the checkout is made of."""
    digest = hashlib.sha256(wish.variant.commit.encode())
    digest.update(edits_json(patches))
    rows = [[override.file, override.key, value] for override, value in edits]
    olds = [[each.file, each.key, str(each.upstream)] for each in wish.variant.overrides]
    built = wish.built_for if wish.variant.extension else ""
    digest.update(documents.to_json([rows, olds, str(source or ""), built]).encode())
    return digest.hexdigest()[:12]


def _reused(path: Path, on_event: OnEvent) -> Checkout | None:
    """Take what was left, if every file of it is still the one that was staged."""
    record = path.with_suffix(".json")
    if not (path.is_dir() and record.is_file()):
        return None
    try:
        found = documents.load_json(record, Checkout)
    except DocumentError:
        return None
    if not found.verified:  # of a copy: nobody knows whether that is still what it was
        return None
    if hash_tree(path) != found.files_sha256:
        on_event(Event("warning", f"{path} was changed since it was staged: it is made anew"))
        return None
    return msgspec.structs.replace(found, reused=True)


def _made(wish: Wish, path: Path, making: _Making, on_event: OnEvent) -> Checkout:
    """Export, compare, patch, edit, build; the checkout appears whole or not at all."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        on_event(
            Event("step", f"staging {making.files.wanted.urls[0]} at {wish.variant.commit[:12]}")
        )
        origin = export_commit(making.files, staging, making.store, on_event)
        check_old_values(wish.variant.overrides, staging)
        lines = apply(making.patches, staging)
        for override, value in making.edits:
            edit_yaml(override, value, staging)
        if making.build:
            making.build(staging)
        record = Checkout(
            path=str(path),
            upstream=making.files.wanted.urls[0],
            commit=wish.variant.commit,
            origin=origin.text,
            verified=origin.verified,
            patches=tuple(lines),
            edits=tuple(f"{each.file}: {each.key}: {value}" for each, value in making.edits),
            files_sha256=hash_tree(staging),
        )
        shutil.rmtree(path, ignore_errors=True)
        staging.replace(path)
        documents.write_atomically(path.with_suffix(".json"), documents.to_json(record).encode())
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return record


def hash_tree(tree: Path) -> str:
    """Digest names and bytes of every file below ``tree``; what Python compiles beside is none."""
    digest = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(tree)}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()
