"""Give me that PyTorch: one plan, inputs by hash, an image verified from the inside, a lock."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import filelock
import platformdirs

from envforge.capability.load import content_hash
from envforge.capability.models import Database
from envforge.errors import EnvforgeError, UsageError
from envforge.events import Event, OnEvent
from envforge.image.bootstrap import Base, BaseImage, ensure_base
from envforge.image.engine import Build, Engine, connect
from envforge.image.lock import BaseLock, Lock, find_lock, write_lock
from envforge.image.plan import Plan, Stage, make_plan
from envforge.image.render import BuildContext, render, write_context
from envforge.image.verify import verify
from envforge.resolver import Request, Resolution, resolve
from envforge.sources.fetch import fetch_url, fetch_wheel
from envforge.sources.store import Store, default_root

_BUILDABLE = ("wheel", "source", "cpu")
"""Routes that end in an image of ours; the others are one command of somebody else's tool."""


class BuildRequest(NamedTuple):
    """What to build and where its parts go."""

    request: Request
    until: Stage = "runtime"
    lock: Path = Path("envforge.lock")
    context: Path | None = None
    """Where the build context goes; None: under the cache, named by the plan's digest."""
    archive: str | None = None
    """Address of the distribution's archive; None: environment, the host's own, the data's."""


class Prepared(NamedTuple):
    """A plan with its rendered context, written to ``folder``."""

    plan: Plan
    context: BuildContext
    folder: Path

    @property
    def image(self) -> str:
        """The tag of the image this plan makes."""
        resolution = self.plan.resolution
        sm = "_".join(resolution.codes) if resolution.route == "source" else _card_code(resolution)
        name = "toolchain" if self.plan.until == "toolchain" else "torch"
        cuda = f"{resolution.cuda}-{sm}" if sm != "cpu" else sm
        return f"envforge/{name}:{resolution.torch}-{cuda}-{self.context.digest[:12]}"


def _card_code(resolution: Resolution) -> str:
    if resolution.compute_capability is None:
        return "cpu"
    return f"sm_{resolution.compute_capability.replace('.', '')}"


class Outcome(NamedTuple):
    """A lock, and whether anything had to be done for it."""

    lock: Lock
    fresh: bool
    """False: lock and image were there already and match the plan."""


def prepare(database: Database, wanted: BuildRequest) -> Prepared:
    """Decide and render; needs neither network nor engine.

    Unsatisfiable where nothing fits; UsageError where the route has no image of ours.
    """
    resolution = resolve(database, wanted.request._replace(placed=True))
    if resolution.route not in _BUILDABLE:
        raise UsageError(
            f"the route {resolution.route} needs no image: see the command of `envforge check`"
        )
    until = wanted.until if resolution.route == "source" else "runtime"
    plan = make_plan(database, resolution, until)
    context = render(plan)
    folder = wanted.context or _cache() / "contexts" / context.digest[:12]
    return Prepared(plan, context, folder)


def _cache() -> Path:
    return platformdirs.user_cache_path("envforge")


def build(prepared: Prepared, wanted: BuildRequest, on_event: OnEvent) -> Outcome:
    """Build, verify and lock one plan; nothing is done where lock and image already match.

    Raises EngineUnavailable, SourceError, BuildFailed or VerificationFailed; the
    lock is written last, so an error leaves the old one.
    """
    write_context(prepared.context, prepared.folder)
    with connect() as engine, _alone(prepared, on_event):
        lock = find_lock(wanted.lock)
        if lock is not None and _matches(lock, prepared, engine):
            return Outcome(lock, fresh=False)
        with _naming_context(prepared.folder):
            log, store = _log(prepared), Store(default_root())
            wanted_base = Base(prepared.plan.platform, wanted.archive)
            base = ensure_base(engine, wanted_base, store, log=log, on_event=on_event)
            _place_inputs(prepared, store, on_event)
            image_id = _build_image(engine, prepared, log, on_event)
        verified = verify(engine, image_id, prepared.plan, on_event)
        engine.tag(image_id, prepared.image)
        engine.remove(_unverified(prepared))
        lock = Lock(
            plan=prepared.context.digest,
            stage=prepared.plan.until,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            resolution=prepared.plan.resolution,
            image=prepared.image,
            image_id=image_id,
            python=prepared.plan.python.executable,
            base=_base_lock(base),
            inputs=prepared.context.inputs,
            patches=tuple(patch.id for patch in prepared.context.patches),
            database=content_hash(),
            verified=verified,
        )
        write_lock(wanted.lock, lock)
    return Outcome(lock, fresh=True)


def _matches(lock: Lock, prepared: Prepared, engine: Engine) -> bool:
    if lock.plan != prepared.context.digest or lock.image != prepared.image:
        return False
    return engine.image_id(lock.image) == lock.image_id


@contextlib.contextmanager
def _alone(prepared: Prepared, on_event: OnEvent) -> Iterator[None]:
    """Two builds of one plan at once: the second waits, then finds the work done."""
    path = _cache() / "contexts" / f"{prepared.context.digest[:12]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        on_event(Event("warning", "another build of this plan is running: waiting for it"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _naming_context(folder: Path) -> Iterator[None]:
    """Tell with every error where the complete build context lies."""
    try:
        yield
    except EnvforgeError as error:
        error.hint = "\n".join(filter(None, [error.hint, f"the build context lies in {folder}"]))
        raise


def _place_inputs(prepared: Prepared, store: Store, on_event: OnEvent) -> None:
    """Fetch every input by hash and link it into the context."""
    for wheel in prepared.plan.wheels:
        _link(fetch_wheel(wheel, store, on_event), prepared.folder / "inputs/wheels" / wheel.name)
    runfile = prepared.plan.runfile
    if runfile is not None:
        path = fetch_url(runfile.url, runfile.sha256, runfile.name, store, on_event)
        _link(path, prepared.folder / "inputs" / runfile.name)


def _link(stored: Path, target: Path) -> None:
    """A hard link where both lie on one file system: inputs weigh gigabytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(stored, target)
    except OSError:
        shutil.copyfile(stored, target)


def _log(prepared: Prepared) -> Path:
    """A fresh file for everything the tools of one build say."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    log = _cache() / "logs" / f"build-{prepared.context.digest[:12]}-{stamp}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def _build_image(engine: Engine, prepared: Prepared, log: Path, on_event: OnEvent) -> str:
    wanted = Build(
        context=prepared.folder,
        tag=_unverified(prepared),
        target=prepared.plan.until,
        labels={"envforge.plan": prepared.context.digest},
    )
    return engine.build(wanted, log=log, on_event=on_event)


def _unverified(prepared: Prepared) -> str:
    """The name an image has until it is verified; of a failed one it stays, for a look."""
    return f"{prepared.image}-unverified"


def _base_lock(base: BaseImage) -> BaseLock:
    return BaseLock(
        image=base.tag,
        image_id=base.id,
        releases=base.releases,
        packages_sha256=base.packages_sha256,
        rootfs_sha256=base.rootfs_sha256,
    )
