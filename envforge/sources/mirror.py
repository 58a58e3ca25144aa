"""A mirror: every input of chosen plans and recipes under its hash, and a manifest for each.

::

    DIR/sha256/ab/ab12…        the files, laid out as in the store
    DIR/plans/DIGEST.json      what one plan is built from
    DIR/recipes/NAME.json      what one recipe is trained with
    DIR/recordings/DIGEST/     what a `create` that has not ended yet was answered so far

Nothing in it has to be trusted: files are hashed when they are taken, a commit names its tree, and
apt checks the archive's signatures itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from envforge import documents
from envforge.errors import DocumentError, SourceError
from envforge.events import Event, OnEvent, ignore
from envforge.sources.store import Store, hash_file

SCHEMA: Final = "envforge.mirror/1"
Kind = Literal["plan", "recipe"]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Size = Annotated[int, msgspec.Meta(ge=0)]
_FOLDERS: dict[Kind, str] = {"plan": "plans", "recipe": "recipes"}
_OWN = ("sha256", *_FOLDERS.values(), "recordings")
_SCRATCH = ("tmp", "partial", "locks")


class Held(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a mirror."""

    sha256: Sha256
    size_bytes: Size
    origin: str = ""
    """Where it came from, for people: an address, or who was asked."""


class HeldTree(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One commit with its submodules: a tar file of a work tree with its ``.git``."""

    file: Held
    record: tuple[str, ...]
    """Lines ``COMMIT PATH`` of every repository in it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the archive answered for one path."""

    sha256: Sha256
    size_bytes: Size
    modified: str = ""
    """Last-Modified, as it was sent."""


class HeldArchive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What apt asked of a distribution's archive while the plan was built."""

    address: str
    files: dict[str, Answer]
    """Path below the address, decoded -> what came."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything one plan or recipe needs."""

    schema: Literal["envforge.mirror/1"] = SCHEMA
    kind: Kind
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
    """The plan's digest, or the recipe's name."""
    title: str
    created: str
    envforge: str
    """Version that made it: another one may make another plan of the same request."""
    inputs: dict[str, Held]
    trees: dict[str, HeldTree] = {}
    """Commit -> its files."""
    archive: HeldArchive | None = None
    left_out: tuple[str, ...] = ()
    """What could not be held, and why."""
    seal: str = ""
    """sha256 of everything else here: an edit by hand is seen."""

    def files(self) -> Iterator[tuple[str, str, int]]:
        """Yield name, sha256 and size of every file it names."""
        for name, held in self.inputs.items():
            yield name, held.sha256, held.size_bytes
        for commit, tree in self.trees.items():
            yield f"git:{commit}", tree.file.sha256, tree.file.size_bytes
        for path, answer in self.archive.files.items() if self.archive else ():
            yield path, answer.sha256, answer.size_bytes

    def sealed(self) -> Manifest:
        """Return it with its seal."""
        return msgspec.structs.replace(self, seal=_seal(self))


def _seal(manifest: Manifest) -> str:
    bare = msgspec.structs.replace(manifest, seal="")
    return hashlib.sha256(documents.to_json(bare).encode()).hexdigest()


class Mirror(NamedTuple):
    """A mirror's directory, to be written or read."""

    root: Path

    @property
    def store(self) -> Store:
        """Its files."""
        return Store(self.root)

    def path_of(self, kind: Kind, name: str) -> Path:
        """Say where a manifest lies, or would lie."""
        return self.root / _FOLDERS[kind] / f"{name}.json"

    def recording(self, digest: str) -> Path:
        """Say where an unfinished recording of a plan is kept."""
        return self.root / "recordings" / digest

    def find(self, kind: Kind, name: str) -> Manifest | None:
        """Read one manifest; None where there is none, DocumentError for one that is not whole."""
        path = self.path_of(kind, name)
        return _load(path) if path.is_file() else None

    def manifest_paths(self) -> tuple[Path, ...]:
        """List the manifests, the plans' first."""
        return tuple(
            path
            for folder in _FOLDERS.values()
            for path in sorted((self.root / folder).glob("[!.]*.json"))
        )

    def manifests(self) -> tuple[Manifest, ...]:
        """Read every manifest. DocumentError for one that is not whole."""
        return tuple(_load(path) for path in self.manifest_paths())

    def write(self, manifest: Manifest) -> Manifest:
        """Seal and write a manifest, atomically."""
        sealed = manifest.sealed()
        data = documents.to_json(sealed).encode()
        documents.write_atomically(self.path_of(manifest.kind, manifest.name), data)
        return sealed

    def put(self, path: Path, origin: str = "") -> Held:
        """Take a file in, whose bytes are what they should be; a damaged copy is replaced."""
        sha256, store = hash_file(path), self.store
        place = store.path_of(sha256)
        if not (place.is_file() and hash_file(place) == sha256):
            with store.workspace() as folder:
                copy = _linked(path, folder / "file")
                store.put_verified(copy, sha256, path.name)
        return Held(sha256=sha256, size_bytes=place.stat().st_size, origin=origin)

    def fault_of(self, sha256: str, size_bytes: int) -> str | None:
        """Say what is wrong with a file: ``missing``, ``damaged``; None: its bytes are right."""
        path = self.store.path_of(sha256)
        try:
            if not path.is_file():
                return "missing"
            if path.stat().st_size != size_bytes or hash_file(path) != sha256:
                return "damaged"
        except OSError as error:  # a dying disk: the other files are to be looked at, too
            return f"cannot be read ({error.strerror})"
        return None


def _linked(path: Path, target: Path) -> Path:
    """A hard link where it can be: one plan's inputs weigh gigabytes."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
    return target


def _load(path: Path) -> Manifest:
    manifest = documents.load_json(path, Manifest)
    if manifest.seal != _seal(manifest):
        raise DocumentError(
            f"{path} was changed by hand",
            because=(f"its seal is {manifest.seal or 'empty'}, its content says another",),
            hint="envforge mirror create   with the same plan writes it anew",
        )
    return manifest


def is_mirror(root: Path) -> bool:
    """Tell whether a directory is a mirror, be it one that is still being made."""
    return any((root / name).is_dir() for name in _OWN)


def open_mirror(root: Path) -> Mirror:
    """Open a mirror that is there. SourceError where the directory is none."""
    if not is_mirror(root):
        raise SourceError(
            f"{root} is not a mirror",
            because=("it has neither plans/ nor recipes/",),
            hint=f"envforge mirror create {quote(str(root))} --gpu CARD --torch VERSION",
        )
    return Mirror(root)


def find_tree(store: Store, commit: str) -> tuple[Path, HeldTree] | None:
    """Find the files of a commit in the store's mirror; HashMismatch where they are damaged."""
    if store.mirror is None:
        return None
    for manifest in Mirror(store.mirror).manifests():
        tree = manifest.trees.get(commit)
        if tree is not None:
            path = store.get(tree.file.sha256, f"the source tree of commit {commit[:12]}")
            if path is not None:
                return path, tree
    return None


class Fault(NamedTuple):
    """Something a mirror does not have as it should."""

    manifest: str
    """``plans/DIGEST``."""
    file: str
    """Name of the file; empty: the manifest itself."""
    what: str


class Verdict(NamedTuple):
    """What was looked at, and what was found wrong."""

    manifests: int
    files: int
    size_bytes: int
    faults: tuple[Fault, ...]


def verify(mirror: Mirror, on_event: OnEvent = ignore) -> Verdict:
    """Hash every file of every manifest again. What no manifest names is not looked at."""
    faults: list[Fault] = []
    named: dict[tuple[str, int], list[tuple[str, str]]] = {}
    paths = mirror.manifest_paths()
    for path in paths:
        label = f"{path.parent.name}/{path.stem}"
        try:
            manifest = _load(path)
        except DocumentError as error:
            faults.append(Fault(label, "", "; ".join((error.what, *error.because))))
            continue
        for name, sha256, size in manifest.files():
            named.setdefault((sha256, size), []).append((label, name))
    total = sum(size for _, size in named)
    done = 0
    on_event(Event("step", f"hashing {len(named)} files", 0, total))
    for (sha256, size), users in named.items():
        what = mirror.fault_of(sha256, size)
        if what:
            faults += [Fault(label, name, what) for label, name in users]
        done += size
        on_event(Event("bytes", users[0][1], done, total))
    on_event(Event("done", f"hashed {len(named)} files"))
    return Verdict(len(paths), len(named), total, tuple(faults))


class Pruned(NamedTuple):
    """What was removed, or would be."""

    manifests: tuple[str, ...]
    files: int
    size_bytes: int
    kept_files: int


def prune(mirror: Mirror, dropped: tuple[Manifest, ...], *, dry_run: bool = False) -> Pruned:
    """Remove manifests, then every file that no remaining one and no recording names.

    DocumentError where a remaining manifest is not whole: what it needs is not known.
    """
    gone = {(each.kind, each.name) for each in dropped}
    kept = [each for each in mirror.manifests() if (each.kind, each.name) not in gone]
    needed = {sha256 for each in kept for _, sha256, _ in each.files()}
    needed |= set(_recorded(mirror))
    every = sorted((mirror.root / "sha256").glob("??/*"))
    unneeded = [path for path in every if path.name not in needed]
    size = sum(path.stat().st_size for path in unneeded)
    if not dry_run:
        # Manifests first: a kill in between leaves files too many, never a manifest without them.
        for each in dropped:
            mirror.path_of(each.kind, each.name).unlink(missing_ok=True)
        for path in unneeded:
            path.unlink(missing_ok=True)
        for name in _SCRATCH:
            shutil.rmtree(mirror.root / name, ignore_errors=True)
    names = tuple(f"{_FOLDERS[each.kind]}/{each.name}" for each in dropped)
    return Pruned(names, len(unneeded), size, len(every) - len(unneeded))


def _recorded(mirror: Mirror) -> Iterator[str]:
    """Name the files of recordings that may still be gone on with."""
    for journal in (mirror.root / "recordings").glob("*/journal"):
        yield from (answer.sha256 for answer in read_journal(journal).values())


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a recording's journal."""

    path: str
    answer: Answer


def read_journal(path: Path) -> dict[str, Answer]:
    """Read what a recording was answered so far; a line that a kill tore is left out."""
    rows: dict[str, Answer] = {}
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for line in lines:
        try:
            row = msgspec.json.decode(line, type=Row)
        except msgspec.DecodeError:
            continue
        rows[row.path] = row.answer
    return rows
