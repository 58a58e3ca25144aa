"""A source tree by tag and commit, with every submodule at its recorded commit.

What is recorded are the top-level submodules; a commit determines the ones inside it, so those are
read from the trees themselves. The tree is handed out as one tar file with its ``.git`` inside:
``git rev-parse HEAD`` and ``git submodule status`` can then be asked within the build.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from envforge import documents
from envforge.capability.submodules import Submodule
from envforge.errors import DiskFull, SourceError
from envforge.events import Event, OnEvent, ignore
from envforge.sources import repository, tarball
from envforge.sources.mirror import HeldTree, find_tree
from envforge.sources.repository import GitFailed, Wanted, git
from envforge.sources.store import Store, hash_file

__all__ = [
    "FetchedTree",
    "GitTree",
    "Part",
    "Submodule",
    "export_tree",
    "fetch_tree",
    "fetch_without_submodules",
]


class GitTree(NamedTuple):
    """A commit of a repository with its submodules."""

    urls: tuple[str, ...]
    """Addresses or local paths, asked in this order."""
    commit: str
    tag: str | None = None
    submodules: tuple[Submodule, ...] | None = None
    """The recorded top-level ones; None: not recorded, they are taken as the commit pins them."""
    without: frozenset[str] = frozenset()
    """Paths of top-level submodules that the build does not need: they are not fetched."""


class Part(NamedTuple):
    """One repository of a tree."""

    path: str
    """In the tree; ``.`` is the tree itself."""
    commit: str
    repository: Path
    """Bare, in the store."""


class FetchedTree(NamedTuple):
    """A tree in the store."""

    archive: Path
    """A tar file of the whole tree, ``.git`` included; extracted, it is a work tree."""
    sha256: str
    """Of the tar file: it stays the same in this store, another store may pack it otherwise."""
    record: tuple[str, ...]
    """Lines ``COMMIT PATH``: what ``git submodule status --recursive`` must say, then more."""
    parts: tuple[Part, ...] = ()
    """The tree itself first, then every submodule by path, the nested ones too; none where the
    tar file is a mirror's."""
    tag: str | None = None


def fetch_tree(tree: GitTree, store: Store, on_event: OnEvent = ignore) -> FetchedTree:
    """Return the tree from the store, fetching what of it is not there yet.

    A mirror's copy is taken as it is. Repositories that were fetched stay, so a call that broke off
    is resumed by the next one. Raises SourceError naming what failed and which addresses were
    tried, and where the commit pins other submodules than the recorded ones.
    """
    mirrored = find_tree(store, tree.commit)
    if mirrored is not None and _is_complete(mirrored[1], tree):
        archive, held = mirrored
        return FetchedTree(archive, held.file.sha256, held.record, tag=tree.tag)
    parts = tuple(_parts(tree, store, on_event))
    archive, sha256 = _packed(parts, tree.tag, store, on_event)
    record = tuple(f"{part.commit} {part.path}" for part in parts)
    return FetchedTree(archive, sha256, record, parts, tree.tag)


def fetch_without_submodules(
    tree: GitTree, store: Store, on_event: OnEvent = ignore
) -> FetchedTree:
    """Return the commit alone, as :func:`fetch_tree` does with all that is in it."""
    name = _name_of(tree.urls)
    bare = repository.fetch_commit(Wanted(tree.urls, tree.commit, tree.tag), name, store, on_event)
    parts = (Part(".", tree.commit, bare),)
    archive, sha256 = _packed(parts, tree.tag, store, on_event)
    return FetchedTree(archive, sha256, (f"{tree.commit} .",), parts, tree.tag)


def _is_complete(held: HeldTree, tree: GitTree) -> bool:
    """Tell whether a mirror's copy has every recorded submodule that the build needs."""
    needed = {
        f"{row.commit} {row.path}"
        for row in tree.submodules or ()
        if not row.unused and row.path not in tree.without
    }
    return needed <= set(held.record)


def _parts(tree: GitTree, store: Store, on_event: OnEvent) -> Iterator[Part]:
    name = _name_of(tree.urls)
    root = repository.fetch_commit(Wanted(tree.urls, tree.commit, tree.tag), name, store, on_event)
    yield Part(".", tree.commit, root)
    if tree.submodules is not None:
        _refuse_others(name, repository.gitlinks(root, tree.commit), tree.submodules)
    recorded = {row.path: row for row in tree.submodules or ()}
    yield from _nested(tree, Part(".", tree.commit, root), recorded, store, on_event)


def _name_of(urls: tuple[str, ...]) -> str:
    return posixpath.basename(urls[0].rstrip("/")).removesuffix(".git") if urls else "the tree"


def _refuse_others(name: str, pinned: dict[str, str], recorded: tuple[Submodule, ...]) -> None:
    known = {row.path: row.commit for row in recorded}
    if pinned == known:
        return
    others = sorted(
        f"{path}: pinned {pinned.get(path, 'nowhere')}, recorded {known.get(path, 'nowhere')}"
        for path in {*pinned, *known}
        if pinned.get(path) != known.get(path)
    )
    raise SourceError(f"{name} pins other submodules than the recorded ones", because=tuple(others))


def _nested(
    tree: GitTree,
    parent: Part,
    recorded: dict[str, Submodule],
    store: Store,
    on_event: OnEvent,
) -> Iterator[Part]:
    """Fetch the submodules of ``parent``, and theirs."""
    written = repository.submodule_urls(parent.repository, parent.commit)
    for path, commit in sorted(repository.gitlinks(parent.repository, parent.commit).items()):
        full = posixpath.normpath(posixpath.join(parent.path, path))
        if full in tree.without:
            continue
        if path not in written:
            on_event(Event("warning", f"{full}: no address is written for it; left out"))
            continue
        row = recorded.get(full) or _as_written(full, commit, written[path][1], tree)
        part = _fetched(row, store, on_event)
        if part is not None:
            yield part
            yield from _nested(tree._replace(urls=row.urls), part, {}, store, on_event)


def _as_written(path: str, commit: str, url: str, tree: GitTree) -> Submodule:
    urls: tuple[str, ...] = (url,)
    if url.startswith(("./", "../")):  # relative to where the tree itself came from
        urls = tuple(_joined(base, url) for base in tree.urls)
    return Submodule(path, urls, commit, unused=False)


def _joined(base: str, relative: str) -> str:
    scheme, separator, rest = base.partition("://")
    if not separator:
        return posixpath.normpath(posixpath.join(base, relative))
    return scheme + separator + posixpath.normpath(posixpath.join(rest, relative))


def _fetched(row: Submodule, store: Store, on_event: OnEvent) -> Part | None:
    try:
        bare = repository.fetch_commit(Wanted(row.urls, row.commit), row.path, store, on_event)
    except SourceError:
        if not row.unused:
            raise
        on_event(Event("warning", f"{row.path}: vanished, and nothing reads it; left out"))
        return None
    return Part(row.path, row.commit, bare)


def _packed(
    parts: tuple[Part, ...], tag: str | None, store: Store, on_event: OnEvent
) -> tuple[Path, str]:
    """Return the tar file of the parts, packing it only once; its bytes are checked each time."""
    rows = [[part.path, part.commit] for part in parts]
    key = hashlib.sha256(documents.to_json([tag, rows]).encode()).hexdigest()
    archive = store.root / "git" / "trees" / f"{key}.tar"
    stated = archive.with_suffix(".sha256")
    with store.locked(f"tree-{key[:16]}", on_event):
        if archive.is_file() and stated.is_file():
            found = hash_file(archive)
            if found == stated.read_text(encoding="ascii"):
                return archive, found
        on_event(Event("step", "packing the source tree"))
        with store.workspace() as workspace:
            export_tree(parts, tag, workspace / "tree")
            tarball.pack(workspace / "tree", workspace / "tree.tar", mtime=_time_of(parts[0]))
            archive.parent.mkdir(parents=True, exist_ok=True)
            found = hash_file(workspace / "tree.tar")
            os.replace(workspace / "tree.tar", archive)  # noqa: PTH105
            documents.write_atomically(stated, found.encode("ascii"))
        on_event(Event("done", "packed the source tree"))
    return archive, found


def _time_of(part: Part) -> int:
    return int(git("show", "-s", "--format=%ct", part.commit, cwd=part.repository)[0])


def export_tree(parts: tuple[Part, ...], tag: str | None, target: Path) -> None:
    """Make a work tree of the parts at ``target``, each with the one commit it is at.

    Raises SourceError where the store's copy is damaged, DiskFull.
    """
    try:
        for part in parts:
            _export(part, target / part.path)
        if tag is not None:
            git("update-ref", f"refs/tags/{tag}", parts[0].commit, cwd=target)
        _activate_submodules(parts, target)
    except (GitFailed, OSError) as error:
        if DiskFull.is_told_by(error):
            raise DiskFull.here(f"the source tree into {target}: {error}") from error
        raise SourceError("cannot write the source tree", because=(str(error),)) from error


def _export(part: Part, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    git("init", "--quiet", "--template=", cwd=target)
    git("config", "core.logAllRefUpdates", "false", cwd=target)
    options = ["-c", "fetch.unpackLimit=1", "-c", "pack.threads=1", "-c", "gc.auto=0"]
    source = str(part.repository.resolve())
    fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", source, part.commit]
    git(*options, *fetch, cwd=target)
    git("checkout", "--quiet", "--detach", part.commit, cwd=target)
    # The index and FETCH_HEAD hold inodes, times and places of this machine.
    (target / ".git" / "FETCH_HEAD").unlink(missing_ok=True)
    (target / ".git" / "index").unlink()
    git("read-tree", "HEAD", cwd=target)


def _activate_submodules(parts: tuple[Part, ...], target: Path) -> None:
    """Tell each repository which submodules are there, and drop from its index those that are not.

    git's status would call both absent; the commits themselves stay as they are.
    """
    present = {part.path for part in parts}
    for part in parts:
        folder = target / part.path
        written = repository.submodule_urls(part.repository, part.commit)
        for path in repository.gitlinks(part.repository, part.commit):
            if posixpath.normpath(posixpath.join(part.path, path)) in present:
                name, url = written[path]
                git("config", f"submodule.{name}.url", url, cwd=folder)
                git("config", f"submodule.{name}.active", "true", cwd=folder)
            else:
                git("update-index", "--force-remove", "--", path, cwd=folder)
