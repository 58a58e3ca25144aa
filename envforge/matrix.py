"""Several cards and releases in one go: ``envforge build --matrix fleet.yaml``.

::

    builds:
      k40: {gpu: Tesla K40, torch: "1.13.1", route: source, ptx: true}
      shelf: {gpu: gtx780, torch: "1.0.1"}

Every build has its own lock beside the file, so what is built already is found there and a matrix
that broke off goes on. What builds share is the engine's cache: their stages are the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from envforge import documents
from envforge.build import BuildRequest, Prepared, build, prepare
from envforge.capability.database import Database
from envforge.check import sole_card
from envforge.errors import DocumentError, EngineUnavailable, EnvforgeError
from envforge.events import Event, OnEvent
from envforge.image.plan import Stage
from envforge.image.render import write_context
from envforge.resolver import Request, RouteKind

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One build of a matrix: the flags of ``envforge build`` by their names."""

    gpu: str | None = None
    torch: str | None = None
    cuda: str | None = None
    gcc: str | None = None
    python: str | None = None
    platform: str | None = None
    route: RouteKind | None = None
    ptx: bool = False
    until: Stage = "runtime"
    profile: str | None = None
    cudnn: str | None = None
    torchvision: bool = True


class Row(NamedTuple):
    """What became of one build."""

    name: str
    outcome: Literal["built", "there", "planned", "failed"]
    """``there``: lock and image matched already; ``planned``: of a dry run."""
    lock: Path
    image: str | None
    seconds: float
    error: EnvforgeError | None = None


def load_matrix(path: Path) -> dict[str, Wish]:
    """Read the builds of a matrix by name; DocumentError names all that is wrong with them."""
    document = documents.load_yaml(path)
    builds = documents.convert_named(document, "builds", Wish, str(path))
    pattern = documents.compile_pattern(_NAME)
    odd = [name for name in builds if not pattern.match(name)]
    if odd or not builds:
        raise DocumentError(
            f"{path} is not as it must be",
            because=tuple(f"builds: {name!r} is no name of a file" for name in odd)
            or ("builds: there is none",),
        )
    return builds


def build_matrix(
    database: Database, path: Path, common: BuildRequest, *, dry_run: bool, on_event: OnEvent
) -> Iterator[Row]:
    """Build one after the other, going on after a failed one; yields a row for each.

    ``common`` holds what is the same for all: archive, jobs, where wheels go, ``locked``. Raises
    DocumentError for the file. A row that found no engine is the last one.
    """
    builds = load_matrix(path)
    for index, (name, wish) in enumerate(builds.items(), 1):
        on_event(Event("step", f"{name}, {index} of {len(builds)}"))
        lock = path.with_suffix(".locks") / f"{name}.lock"
        started = time.monotonic()
        row = Row(name, "planned", lock, None, 0.0)
        try:
            wanted = _wanted(database, wish, common)._replace(lock=lock)
            row = _build(row, prepare(database, wanted), wanted, on_event, dry_run=dry_run)
        except EnvforgeError as error:
            row = row._replace(outcome="failed", error=error)
        yield row._replace(seconds=time.monotonic() - started)
        if isinstance(row.error, EngineUnavailable):
            if index < len(builds):
                on_event(Event("warning", f"not begun: {', '.join([*builds][index:])}"))
            return


def _wanted(database: Database, wish: Wish, common: BuildRequest) -> BuildRequest:
    request = Request(
        card=None if wish.route == "cpu" else sole_card(database, wish.gpu),
        torch=wish.torch,
        cuda=wish.cuda,
        gcc=wish.gcc,
        python=wish.python,
        platform=wish.platform,
        route=wish.route,
        ptx=wish.ptx,
    )
    return common._replace(
        request=request,
        until=wish.until,
        profile=wish.profile,
        cudnn=wish.cudnn,
        torchvision=wish.torchvision,
    )


def _build(
    row: Row, prepared: Prepared, wanted: BuildRequest, on_event: OnEvent, *, dry_run: bool
) -> Row:
    row = row._replace(image=prepared.image)
    if dry_run:
        write_context(prepared.context, prepared.folder)
        return row
    outcome = build(prepared, wanted, on_event)
    return row._replace(outcome="built" if outcome.fresh else "there")
