"""Give me that PyTorch: one plan, inputs by hash, an image verified from the inside, a lock."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import filelock
import platformdirs

from envforge import documents
from envforge.capability.database import Database
from envforge.capability.load import content_hash
from envforge.errors import BuildFailed, EnvforgeError, PatchError, UsageError
from envforge.events import Event, OnEvent
from envforge.image.bootstrap import Base, BaseImage, ensure_base
from envforge.image.engine import Build, Capacity, Engine, connect
from envforge.image.inputs import link, place_inputs
from envforge.image.lock import BaseLock, CheckLock, Lock, find_lock, write_lock
from envforge.image.plan import LocalTree, Plan, Stage, Wanted, make_plan
from envforge.image.render import BuildContext, render, write_context
from envforge.image.verify import verify
from envforge.patching.edit import DOES_NOT_FIT
from envforge.resolver import Request, resolve
from envforge.sources.store import Store, default_root, hash_file
from envforge.sources.tarball import pack_directory

_BUILDABLE = ("wheel", "source", "cpu")
"""Routes that end in an image of ours; the others are one command of somebody else's tool."""


_COMPILER_MIB = 3 * 1024
"""What one compiler may take at its worst; see docs/verification for what they took."""


class BuildRequest(NamedTuple):
    """What to build and where its parts go."""

    request: Request
    until: Stage = "runtime"
    lock: Path = Path("envforge.lock")
    context: Path | None = None
    """Where the build context goes; None: under the cache, named by the plan's digest."""
    archive: str | None = None
    """Address of the distribution's archive; None: environment, the host's own, the data's."""
    profile: str | None = None
    """Feature profile of a source build; None: the first that fits."""
    source: Path | None = None
    """A source tree of the user's own; None: by commit or sha256, as the database has it."""
    wheels: Path | None = None
    """Where the wheel that was built is put beside the image."""
    cudnn: str | None = None
    """Versions of cuDNN, as pip writes them; None: built without."""
    torchvision: bool = True
    """Build the release's torchvision after it, where its sources are known."""
    jobs: int | None = None
    """Compilers at once; None: what the engine's cores and memory allow."""


class Prepared(NamedTuple):
    """A plan with its rendered context, written to ``folder``."""

    plan: Plan
    context: BuildContext
    folder: Path

    @property
    def image(self) -> str:
        """The tag of the image this plan makes."""
        resolution, sm = self.plan.resolution, self.card_code
        name = "toolchain" if self.plan.until == "toolchain" else "torch"
        cuda = f"{resolution.cuda}-{sm}" if sm != "cpu" else sm
        return f"envforge/{name}:{resolution.torch}-{cuda}-{self.context.digest[:12]}"

    @property
    def card_code(self) -> str:
        """Machine code the image is for: ``sm_35``, ``sm_35_compute_35``, ``cpu``."""
        resolution = self.plan.resolution
        if resolution.route == "source":
            return "_".join(resolution.codes)
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
    plan = make_plan(database, resolution, _wanted(wanted))
    context = render(plan)
    folder = wanted.context or _cache() / "contexts" / context.digest[:12]
    return Prepared(plan, context, folder)


def _wanted(wanted: BuildRequest) -> Wanted:
    return Wanted(
        until=wanted.until,
        profile=wanted.profile,
        tree=_packed(wanted.source) if wanted.source else None,
        cudnn=wanted.cudnn,
        torchvision=wanted.torchvision,
    )


def _packed(folder: Path) -> LocalTree:
    packed, sha256 = pack_directory(folder, Store(default_root()))
    return LocalTree(folder, packed, sha256)


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
        fresh = lock is None or not _matches(lock, prepared, engine)
        if lock is None or fresh:
            lock = _build_and_verify(engine, prepared, wanted, on_event)
            write_lock(wanted.lock, lock)
        if wanted.wheels is not None:
            for name in lock.wheels:
                link(_wheels(prepared) / name, wanted.wheels / name)
    return Outcome(lock, fresh)


def _build_and_verify(
    engine: Engine, prepared: Prepared, wanted: BuildRequest, on_event: OnEvent
) -> Lock:
    plan, store, log = prepared.plan, Store(default_root()), _log(prepared)
    with _naming_context(prepared.folder):
        base = ensure_base(
            engine, Base(plan.platform, wanted.archive), store, log=log, on_event=on_event
        )
        tree = place_inputs(plan, prepared.folder, store, wanted.archive, on_event)
        jobs = wanted.jobs or _jobs(engine.capacity())
        with _naming_patches():
            image_id = engine.build(_target(prepared, plan.until, jobs), log=log, on_event=on_event)
        wheels = _take_wheels(engine, prepared, jobs, log, on_event)
    verified = verify(engine, image_id, plan, on_event)
    image_id = _name(engine, prepared, verified, log, on_event)
    return Lock(
        plan=prepared.context.digest,
        stage=plan.until,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        resolution=plan.resolution,
        image=prepared.image,
        image_id=image_id,
        python=plan.python.executable,
        base=_base_lock(base),
        inputs=prepared.context.inputs,
        tree=tree,
        patches=tuple(patch.id for patch in prepared.context.patches),
        wheels=wheels,
        database=content_hash(),
        verified=verified,
    )


def _name(
    engine: Engine,
    prepared: Prepared,
    verified: tuple[CheckLock, ...],
    log: Path,
    on_event: OnEvent,
) -> str:
    """Give the verified image its name, with what it is and what was seen as labels."""
    resolution = prepared.plan.resolution
    labels = {
        "org.opencontainers.image.title": f"torch {resolution.torch} for {prepared.card_code}",
        "org.opencontainers.image.version": resolution.torch,
        "envforge.plan": prepared.context.digest,
        "envforge.resolution": documents.to_json(resolution),
        "envforge.verified": documents.to_json(verified),
    }
    with tempfile.TemporaryDirectory(prefix="envforge-") as folder:
        dockerfile = Path(folder) / "Dockerfile"
        dockerfile.write_text(f"FROM {_unverified(prepared)}\n", encoding="utf-8")
        named = Build(Path(folder), prepared.image, labels=labels)
        image_id = engine.build(named, log=log, on_event=on_event)
    engine.remove(_unverified(prepared))
    return image_id


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


@contextlib.contextmanager
def _naming_patches() -> Iterator[None]:
    """A patch that does not fit is no failed build: the tree is another than the series is for."""
    try:
        yield
    except BuildFailed as error:
        said = [line for line in error.because if line.startswith(DOES_NOT_FIT)]
        if not said:
            raise
        raise PatchError(
            "a patch does not fit the source tree",
            because=tuple(line.removeprefix(f"{DOES_NOT_FIT}: ") for line in said),
            hint=error.hint,
        ) from error


def _log(prepared: Prepared) -> Path:
    """A fresh file for everything the tools of one build say."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    log = _cache() / "logs" / f"build-{prepared.context.digest[:12]}-{stamp}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def _jobs(capacity: Capacity) -> int:
    """How many compilers run at once: the compiler that meets the memory's end fails the build."""
    return max(1, min(capacity.cores, capacity.memory_mib // _COMPILER_MIB))


def _target(prepared: Prepared, stage: str, jobs: int) -> Build:
    return Build(
        context=prepared.folder,
        tag=_unverified(prepared),
        target=stage,
        build_args={"MAX_JOBS": str(jobs)} if _compiles(prepared.plan) else {},
        labels={"envforge.plan": prepared.context.digest},
    )


def _compiles(plan: Plan) -> bool:
    return plan.source is not None and plan.until != "toolchain"


def _is_wheel(name: str) -> bool:
    return name.endswith(".whl")


def _wheels(prepared: Prepared) -> Path:
    return prepared.folder / "wheels"


def _take_wheels(
    engine: Engine, prepared: Prepared, jobs: int, log: Path, on_event: OnEvent
) -> dict[str, str]:
    """Copy the wheel that was built out of the engine; return its name with its sha256."""
    if not _compiles(prepared.plan):
        return {}
    wanted = _target(prepared, "wheel", jobs)._replace(tag=f"{prepared.image}-wheel")
    engine.build(wanted, log=log, on_event=on_event)
    taken = {}
    for inside, path in engine.export(wanted.tag, _is_wheel, prepared.folder):
        name = PurePosixPath(inside).name
        taken[name] = hash_file(path)
        link(path, _wheels(prepared) / name)
        path.unlink()
    engine.remove(wanted.tag)
    return taken


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
