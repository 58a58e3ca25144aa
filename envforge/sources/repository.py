"""One commit of a git repository, kept in the store: never a prompt, never a hang.

Each commit has a bare repository of its own, so what was fetched stays, whatever breaks off later.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import NamedTuple

from envforge.errors import SourceError
from envforge.events import Event, OnEvent, ignore
from envforge.sources.child import lines_of, spawn
from envforge.sources.mirror import find_tree
from envforge.sources.store import Store
from envforge.sources.tarball import unpack

IDLE_S = 300.0
"""git says something every second while bytes come; a server that is silent so long is gone."""
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_URL = re.compile(r"(?:https?|git|ssh|file)://[^\s]+\Z|/[^\x00-\x1f]*\Z|[\w.-]+@[\w.-]+:[^\s]+\Z")
_RECEIVED = re.compile(r"(?:Receiving|Unpacking) objects: .*?, ([\d.]+) (bytes|[KMG]iB)\b")
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_CHATTER = ("remote: Enumerating", "remote: Total")
_SAID = 6
_OF_ANOTHER_REPOSITORY = frozenset({
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_DIR", "GIT_INDEX_FILE",
    "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_WORK_TREE",
})  # fmt: skip
"""Set while git runs a hook; they would point our calls at the caller's repository."""


class Wanted(NamedTuple):
    """A commit, and where to ask for it."""

    urls: tuple[str, ...]
    commit: str
    tag: str | None = None
    """Where it is given, an address whose tag names another commit is refused."""


class GitFailed(Exception):
    """git ended with an error; its last lines are the message."""


class _Refused(Exception):
    """An address that does not give the commit, with the reason."""


def git(
    *arguments: str,
    cwd: Path,
    on_event: OnEvent = ignore,
    name: str = "",
    alone: bool = True,
    idle_s: float = IDLE_S,
) -> list[str]:
    """Run git in ``cwd`` and return its lines; with a ``name``, its progress becomes events.

    ``alone``: without the user's configuration, so that every machine does the same. What asks the
    network needs it: proxies, credentials, mirrors by ``insteadOf``.

    Raises GitFailed; SourceError where git is not installed.
    """
    said: list[str] = []
    try:
        with spawn(["git", *arguments], env=_environment(alone), cwd=cwd) as process:
            lines = _lines(process, idle_s)
            said.extend(line for line in lines if not (name and _progress(line, name, on_event)))
    except queue.Empty:
        raise GitFailed(f"nothing came for {idle_s:g} seconds") from None
    except OSError as error:
        raise SourceError(
            "git cannot be started", because=(str(error),), hint="apt-get install git"
        ) from error
    if process.returncode:
        raise GitFailed(" / ".join(said[-_SAID:]) or f"git ended with {process.returncode}")
    return said


def _environment(alone: bool) -> dict[str, str]:  # noqa: FBT001 -- private, one caller
    kept = {key: value for key, value in os.environ.items() if key not in _OF_ANOTHER_REPOSITORY}
    quiet = {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",  # answers every question with nothing
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_SSH_COMMAND": kept.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
    }
    nobodys = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return {**kept, **quiet, **(nobodys if alone else {})}


def _lines(process: Popen[str], idle_s: float) -> Iterator[str]:
    """Yield lines as they come; queue.Empty after ``idle_s`` without one."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            for line in lines_of(process):
                lines.put(line)
        except ValueError:
            pass  # closed under the reader: the process was ended
        finally:
            lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get(timeout=idle_s)) is not None:
        yield line


def _progress(line: str, name: str, on_event: OnEvent) -> bool:
    """Pass on a line of progress as bytes; False: the line says something else."""
    received = _RECEIVED.match(line)
    if received is not None:
        on_event(Event("bytes", name, int(float(received[1]) * _UNITS[received[2]])))
    return "%" in line or line.startswith(_CHATTER)


def fetch_commit(wanted: Wanted, name: str, store: Store, on_event: OnEvent = ignore) -> Path:
    """Return the bare repository that holds the commit, asking each address if need be.

    Raises SourceError naming every address with its reason; nothing half-fetched is kept.
    """
    if not _COMMIT.match(wanted.commit):
        raise ValueError(f"not a full commit id: {wanted.commit!r}")
    repository = store.root / "git" / wanted.commit[:2] / wanted.commit
    with store.locked(f"git-{wanted.commit}", on_event):
        if not _is_whole(repository, wanted.commit):
            mirrored = find_tree(store, wanted.commit)
            if mirrored is not None:
                _take(mirrored[0], wanted.commit, repository, store)
            else:
                store.expect_network(f"{name} at commit {wanted.commit}")
                _fetch(wanted, name, repository, on_event)
    return repository


def _take(packed: Path, commit: str, repository: Path, store: Store) -> None:
    """Fetch a commit out of a packed work tree; git checks that it is that commit."""
    with store.workspace() as workspace:
        unpack(packed, workspace / "tree")
        _make_empty(repository)
        try:
            fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--"]
            git(*fetch, str((workspace / "tree").resolve()), commit, cwd=repository)
        except GitFailed as failed:
            shutil.rmtree(repository)
            raise SourceError(
                f"the mirror's files of commit {commit} do not hold it", because=(str(failed),)
            ) from failed
    git("update-ref", _ref(commit), commit, cwd=repository)


def _ref(commit: str) -> str:
    return f"refs/envforge/{commit}"


def _is_whole(repository: Path, commit: str) -> bool:
    """Tell whether the commit was fetched to its end and its bytes are still what they were."""
    if not repository.is_dir():
        return False
    packs = sorted(str(path) for path in (repository / "objects" / "pack").glob("*.idx"))
    try:
        git("rev-parse", "--verify", "--quiet", f"{_ref(commit)}^{{commit}}", cwd=repository)
        git("verify-pack", "--", *packs, cwd=repository)
    except GitFailed:
        return False
    return True


def _fetch(wanted: Wanted, name: str, repository: Path, on_event: OnEvent) -> None:
    on_event(Event("step", f"fetching {name} at {wanted.commit[:12]}"))
    reasons = []
    for url in wanted.urls:
        _make_empty(repository)
        try:
            _fetch_from(url, wanted, name, repository, on_event)
        except _Refused as refused:
            reasons.append(f"{url}: {refused}")
            on_event(Event("warning", reasons[-1]))
        else:
            git("update-ref", _ref(wanted.commit), wanted.commit, cwd=repository)
            on_event(Event("done", f"fetched {name}"))
            return
    shutil.rmtree(repository)
    raise SourceError(
        f"cannot fetch {name} at commit {wanted.commit}",
        because=tuple(reasons) or ("no address is known to ask",),
        hint="check the network, or name a mirror that has it: "
        "git config --global url./path/or/address.insteadOf ADDRESS",
    )


def _make_empty(repository: Path) -> None:
    """A killed fetch leaves locks and torn packs behind; an empty repository has neither."""
    shutil.rmtree(repository, ignore_errors=True)
    repository.mkdir(parents=True)
    git("init", "--quiet", "--bare", "--template=", cwd=repository)


def _fetch_from(url: str, wanted: Wanted, name: str, repository: Path, on_event: OnEvent) -> None:
    if not _URL.match(url):
        raise _Refused("not an address of a git repository")
    if wanted.tag is not None:
        _refuse_moved(url, wanted.tag, wanted.commit, repository)
    everything = ["+refs/heads/*:refs/remotes/*", "+refs/tags/*:refs/tags/*"]
    ways = [["--depth=1", "--", url, wanted.commit]]
    if wanted.tag is not None:
        ways.append(["--depth=1", "--", url, f"refs/tags/{wanted.tag}"])
    ways.append(["--", url, *everything])  # old servers give no commit that no ref names
    reason = ""
    for way in ways:
        try:
            _git_fetch(way, name, repository, on_event)
            git("cat-file", "-e", f"{wanted.commit}^{{commit}}", cwd=repository)
        except GitFailed as failed:
            reason = reason or str(failed)
            if not _answers(url, repository):
                break
        else:
            return
    raise _Refused(reason)


def _git_fetch(way: list[str], name: str, repository: Path, on_event: OnEvent) -> None:
    options = ["-c", "fetch.unpackLimit=1", "-c", "gc.auto=0", "-c", "maintenance.auto=false"]
    fetch = ["fetch", "--no-tags", "--no-recurse-submodules", "--progress"]
    git(*options, *fetch, *way, cwd=repository, on_event=on_event, name=name, alone=False)


def _answers(url: str, repository: Path) -> bool:
    try:
        git("ls-remote", "--quiet", "--", url, "HEAD", cwd=repository, alone=False)
    except GitFailed:
        return False
    return True


def _refuse_moved(url: str, tag: str, commit: str, repository: Path) -> None:
    """Compare what the address says of the tag; a mirror without it is good enough."""
    ref = f"refs/tags/{tag}"
    ask = ["ls-remote", "--quiet", "--", url, ref, f"{ref}^{{}}"]
    try:
        lines = git(*ask, cwd=repository, alone=False)
    except GitFailed as failed:
        raise _Refused(str(failed)) from failed
    rows = [line.split("\t") for line in lines if "\t" in line]
    found = {row[1]: row[0] for row in rows}
    names = found.get(f"{ref}^{{}}", found.get(ref))
    if names not in (None, commit):
        raise _Refused(f"tag {tag} names {names} there, not the recorded commit: it was moved")


def gitlinks(repository: Path, commit: str) -> dict[str, str]:
    """Return the submodules a commit pins: path -> commit."""
    lines = git("-c", "core.quotePath=false", "ls-tree", "-r", commit, cwd=repository)
    rows = (line.split(None, 3) for line in lines if line.startswith("160000 "))
    return {path: pinned for _, _, pinned, path in rows}


def submodule_urls(repository: Path, commit: str) -> dict[str, tuple[str, str]]:
    """Read ``.gitmodules`` of a commit: path -> (name, address as it is written)."""
    read = ["config", "--blob", f"{commit}:.gitmodules", "--get-regexp", r"^submodule\..*"]
    try:
        lines = git(*read, cwd=repository)
    except GitFailed:
        return {}  # no such file
    fields: dict[str, dict[str, str]] = {}
    for line in lines:
        key, _, value = line.partition(" ")
        section, _, field = key.removeprefix("submodule.").rpartition(".")
        fields.setdefault(section, {})[field] = value
    return {
        found["path"]: (section, found["url"])
        for section, found in fields.items()
        if {"path", "url"} <= set(found)
    }
