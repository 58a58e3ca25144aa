"""Which plans and recipes of a mirror are meant; what is served and what is removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from envforge.errors import UnknownName, UsageError
from envforge.events import OnEvent, ignore
from envforge.sources.mirror import Answer, Manifest, Mirror, Pruned, prune
from envforge.sources.proxy import Exchange, serving


def choose(mirror: Mirror, names: tuple[str, ...]) -> tuple[Manifest, ...]:
    """Find manifests by the first digits of a plan or a recipe's name; every one for no name.

    UnknownName where nothing, or more than one plan, begins so.
    """
    every = mirror.manifests()
    if not names:
        return every
    return tuple(_one(every, name) for name in names)


def _one(every: tuple[Manifest, ...], name: str) -> Manifest:
    found = [
        each
        for each in every
        if each.name == name or (each.kind == "plan" and each.name.startswith(name))
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(each.name[:12] if each.kind == "plan" else each.name for each in every)
    near = tuple(each.name for each in found)
    raise UnknownName("plan or recipe", name, near, hint=f"the mirror holds: {known or 'none'}")


@contextlib.contextmanager
def replay(
    mirror: Mirror, names: tuple[str, ...], host: str, port: int
) -> Iterator[tuple[str, tuple[Manifest, ...]]]:
    """Answer from the mirror alone for as long as the block runs; gives the address.

    UsageError where two plans hold different states of one archive: one path has one answer.
    """
    manifests = tuple(each for each in choose(mirror, names) if each.archive is not None)
    if not manifests:
        raise UsageError("the mirror holds no plan, so no archive", hint="envforge mirror create")
    with serving(Exchange(mirror.store, _rows(manifests)), host, port) as address:
        yield address, manifests


def _rows(manifests: tuple[Manifest, ...]) -> dict[str, Answer]:
    rows: dict[str, Answer] = {}
    owner: dict[str, Manifest] = {}
    for each in manifests:
        for path, row in each.archive.files.items() if each.archive else ():
            if path in rows and rows[path].sha256 != row.sha256:
                raise UsageError(
                    "the plans hold different states of the archive",
                    because=(f"{path} is another in {owner[path].name[:12]}, {each.name[:12]}",),
                    hint=f"--plan {each.name[:12]}",
                )
            rows[path], owner[path] = row, each
    return rows


def drop(
    mirror: Mirror,
    names: tuple[str, ...],
    kept: tuple[str, ...] = (),
    *,
    dry_run: bool = False,
    on_event: OnEvent = ignore,
) -> Pruned:
    """Remove the named manifests, or all but the kept ones, and what nothing needs then.

    With no name at all only what nothing needs is removed.
    """
    if names and kept:
        raise UsageError("--plan and --keep contradict each other")
    with mirror.store.locked("mirror", on_event):
        dropped: tuple[Manifest, ...] = ()
        if names:
            dropped = choose(mirror, names)
        elif kept:
            staying = choose(mirror, kept)
            dropped = tuple(each for each in mirror.manifests() if each not in staying)
        return prune(mirror, dropped, dry_run=dry_run)
