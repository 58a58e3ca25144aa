"""The files of one commit, from an address, a mirror or a copy on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from envforge.errors import SourceError
from envforge.events import OnEvent, ignore
from envforge.sources import tarball
from envforge.sources.repository import GitFailed, Wanted, fetch_commit, git
from envforge.sources.store import Store

_NOT_COPIED = (".git", "__pycache__")


class Origin(NamedTuple):
    """Where the files of a commit came from."""

    text: str
    """An address, or a folder of this machine."""
    verified: bool
    """The commit's own files; False: a copy that has no history to ask."""


class Files(NamedTuple):
    """What to take."""

    wanted: Wanted
    omit: tuple[str, ...] = ()
    """Top-level entries that are left out."""
    source: Path | None = None
    """A git repository or a plain copy on this machine; None: the addresses are asked."""


def export_commit(files: Files, target: Path, store: Store, on_event: OnEvent = ignore) -> Origin:
    """Write the files of a commit to ``target``; SourceError where they cannot be had."""
    wanted, omit, source = files
    if source is None:
        name = wanted.urls[0].rpartition("/")[2]
        repository = fetch_commit(wanted, name, store, on_event)
        _export(repository, wanted.commit, omit, target, store)
        return Origin(wanted.urls[0], verified=True)
    if not source.is_dir():
        raise SourceError(f"there is no folder {source}", hint="--upstream DIR")
    if not _is_repository(source):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_NOT_COPIED, *omit))
        return Origin(str(source), verified=False)
    _export(source, wanted.commit, omit, target, store)
    return Origin(str(source), verified=True)


def _is_repository(folder: Path) -> bool:
    """Whether the folder itself is one, not whether it lies in one."""
    return (folder / ".git").exists() or (
        (folder / "objects").is_dir() and (folder / "HEAD").is_file()
    )


def _export(
    repository: Path, commit: str, omit: tuple[str, ...], target: Path, store: Store
) -> None:
    """Through ``git archive``: it needs no file of what is left out, which a mirror may lack."""
    with store.workspace() as workspace:
        packed = workspace / "files.tar"
        try:
            names = git("ls-tree", "--name-only", commit, cwd=repository)
            kept = [name for name in names if name not in omit]
            git(
                "archive", "--format=tar", f"--output={packed}", commit, "--", *kept, cwd=repository
            )
        except GitFailed as failed:
            raise SourceError(
                f"{repository} does not have commit {commit}", because=(str(failed),)
            ) from failed
        tarball.unpack(packed, target)
