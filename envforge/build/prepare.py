"""Decide and render a build: needs neither network nor engine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import platformdirs

from envforge.capability.database import Database
from envforge.errors import DocumentError, EnvforgeError, LockDrift, UsageError
from envforge.image.lock import (
    Drift,
    Features,
    Lock,
    find_drift,
    load_lock,
    plan_facts,
)
from envforge.image.plan import LocalTree, Plan, Stage, Wanted, make_plan
from envforge.image.render import BuildContext, file_hashes, render
from envforge.resolver import Request, resolve
from envforge.sources.store import Store, default_root
from envforge.sources.tarball import pack_directory

_BUILDABLE = ("wheel", "source", "cpu")
"""Routes that end in an image of ours; the others are one command of somebody else's tool."""


class BuildRequest(NamedTuple):
    """What to build and where its parts go."""

    request: Request | None
    """None: what the lock says, with its features and up to its stage."""
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
    locked: bool = False
    """Build what the lock says or nothing: LockDrift tells what is not as it says."""


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
    def unverified(self) -> str:
        """The tag an image has until it is verified; of a failed one it stays, for a look."""
        return f"{self.image}-unverified"

    @property
    def wheels(self) -> Path:
        """Where the wheels lie that the build made."""
        return self.folder / "wheels"

    @property
    def features(self) -> Features | None:
        """What a build from source includes; None for other routes."""
        source = self.plan.source
        if source is None:
            return None
        return Features(
            profile=source.profile.name,
            cudnn=source.cudnn.version if source.cudnn else None,
            torchvision=source.torchvision.version if source.torchvision else None,
        )

    @property
    def compiles(self) -> bool:
        """Whether torch is compiled; a toolchain alone has nothing to compile."""
        return self.plan.source is not None and self.plan.until != "toolchain"

    @property
    def card_code(self) -> str:
        """Machine code the image is for: ``sm_35``, ``sm_35_compute_35``, ``cpu``."""
        resolution = self.plan.resolution
        if resolution.route == "source":
            return "_".join(resolution.codes)
        if resolution.compute_capability is None:
            return "cpu"
        return f"sm_{resolution.compute_capability.replace('.', '')}"


def prepare(database: Database, wanted: BuildRequest) -> Prepared:
    """Decide and render; needs neither network nor engine.

    Unsatisfiable where nothing fits; UsageError where the route has no image of ours; where the
    lock is to be kept, LockDrift for another plan, DocumentError where there is no good lock.
    """
    lock = load_lock(wanted.lock) if wanted.locked or wanted.request is None else None
    plan = _plan(database, wanted, lock)
    context = render(plan)
    folder = wanted.context or cache() / "contexts" / context.digest[:12]
    prepared = Prepared(plan, context, folder)
    if lock is not None:
        locked = plan_facts(lock.resolution, lock.stage, lock.features, lock.files, lock.inputs)
        refuse_drift("the plan", wanted.lock, find_drift(locked, _facts(prepared)))
    return prepared


def _plan(database: Database, wanted: BuildRequest, lock: Lock | None) -> Plan:
    if wanted.request is None and lock is not None:
        return plan_of(database, lock, wanted.source)
    assert wanted.request is not None  # noqa: S101 -- prepare() read the lock otherwise
    resolution = resolve(database, wanted.request._replace(placed=True))
    if resolution.route not in _BUILDABLE:
        raise UsageError(
            f"the route {resolution.route} needs no image: it is one command of another tool",
            hint="envforge check --gpu CARD   names it",
        )
    return make_plan(database, resolution, _wanted(wanted))


def _facts(prepared: Prepared) -> dict[str, str]:
    plan, context = prepared.plan, prepared.context
    return plan_facts(
        plan.resolution, plan.until, prepared.features, file_hashes(context), context.inputs
    )


def refuse_drift(what: str, lock: Path, drift: tuple[Drift, ...]) -> None:
    """Raise LockDrift where there is any."""
    if drift:
        raise LockDrift(
            f"{what} is not what {lock} says",
            because=tuple(map(str, drift)),
            hint="without --locked it is built as it is now, and locked anew",
        )


def plan_of(database: Database, lock: Lock, source: Path | None = None) -> Plan:
    """Make the plan of a lock anew; ``source``: the user's own tree, where it was built of one."""
    features = lock.features
    wanted = Wanted(
        until=lock.stage,
        profile=features.profile if features else None,
        tree=_packed(source) if source else None,
        cudnn=f"=={features.cudnn}" if features and features.cudnn else None,
        torchvision=features is not None and features.torchvision is not None,
    )
    try:
        return make_plan(database, lock.resolution, wanted)
    except _UNPLANNABLE as error:
        if isinstance(error, EnvforgeError) and lock.is_whole:
            raise
        reason = (
            error.what if isinstance(error, EnvforgeError) else "this envforge does not know it"
        )
        raise DocumentError(
            f"no plan can be made of the lock of {lock.image}",
            because=(f"{_described(lock)}: {reason}", *([] if lock.is_whole else [_CHANGED])),
            hint="take the lock as it was written; or build anew: envforge build --gpu CARD",
        ) from error


_UNPLANNABLE = (EnvforgeError, LookupError, StopIteration, ValueError, AssertionError)
"""What asking the database for something it does not have ends in."""
_CHANGED = "the lock was changed by hand"


def _described(lock: Lock) -> str:
    resolution = lock.resolution
    return (
        f"torch {resolution.torch}, CUDA {resolution.cuda}, Python {resolution.python}"
        f" on {resolution.platform}, route {resolution.route}"
    )


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


def cache() -> Path:
    """Where build contexts and logs lie."""
    return platformdirs.user_cache_path("envforge")
