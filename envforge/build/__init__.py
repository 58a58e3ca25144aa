"""Give me that PyTorch: one plan, inputs by hash, an image verified from the inside, a lock."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import filelock
import msgspec

from envforge.build.prepare import BuildRequest, Prepared, cache, prepare, refuse_drift
from envforge.build.stages import Work, build_image, jobs_for, name_image, take_compiled
from envforge.capability.load import content_hash
from envforge.errors import DiskFull, DocumentError, EnvforgeError, UsageError
from envforge.events import Event, OnEvent
from envforge.image.bootstrap import Base, BaseImage, ensure_base
from envforge.image.certificates import certificates_for
from envforge.image.engine import Engine, connect
from envforge.image.inputs import link, place_inputs
from envforge.image.lock import (
    BaseLock,
    Lock,
    find_drift,
    load_lock,
    outcome_facts,
    write_lock,
)
from envforge.image.mirrored import Question, reach_archive
from envforge.image.render import file_hashes, write_context
from envforge.image.verify import verify
from envforge.sources.store import default_store

__all__ = ["BuildRequest", "Outcome", "Prepared", "build", "prepare"]


class Outcome(NamedTuple):
    """A lock, and whether anything had to be done for it."""

    lock: Lock
    fresh: bool
    """False: lock and image were there already and match the plan."""


def build(prepared: Prepared, wanted: BuildRequest, on_event: OnEvent) -> Outcome:
    """Build, verify and lock one plan; nothing is done where lock and image already match.

    Raises EngineUnavailable, SourceError, BuildFailed, VerificationFailed or LockDrift, UsageError
    where no lock can be written; it is written last, so an error leaves the old one.
    """
    write_context(prepared.context, prepared.folder)
    with connect() as engine, _alone(prepared, on_event):
        lock = load_lock(wanted.lock) if wanted.locked else _earlier(wanted.lock, on_event)
        if lock is not None and not lock.is_whole:
            on_event(
                Event("warning", f"{wanted.lock} was changed by hand: its image is asked anew")
            )
        fresh = lock is None or not _matches(lock, prepared, engine)
        if lock is None or fresh:
            _require_writable(wanted)
            lock = _build_and_verify(engine, prepared, wanted, on_event)
            lock = write_lock(wanted.lock, lock)
        if wanted.wheels is not None:
            for name in lock.wheels:
                link(prepared.wheels / name, wanted.wheels / name)
    return Outcome(lock, fresh)


def _require_writable(wanted: BuildRequest) -> None:
    """Hours of compiling are not to end at a lock or a wheel that cannot be written."""
    for folder in filter(None, (wanted.lock.parent, wanted.wheels)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            if DiskFull.is_told_by(error):
                raise DiskFull.here(f"{folder}: {error}") from error
            raise UsageError(
                f"nothing can be written into {folder}",
                because=(str(error),),
                hint="other places: --lock FILE, --wheel DIR",
            ) from error


def _earlier(path: Path, on_event: OnEvent) -> Lock | None:
    """Read the lock that is there; one that is none any more is told and written anew."""
    if not path.exists():
        return None
    try:
        return load_lock(path)
    except DocumentError as error:
        on_event(Event("warning", "; ".join((error.what, *error.because))))
        return None


def _build_and_verify(
    engine: Engine, prepared: Prepared, wanted: BuildRequest, on_event: OnEvent
) -> Lock:
    plan, store = prepared.plan, default_store()
    asked = Question(prepared.context.digest, plan.platform, wanted.archive)
    jobs = wanted.jobs or jobs_for(engine.capacity())
    work = Work(engine, prepared, jobs, _log(prepared), on_event)
    work = work._replace(ca_bundle=certificates_for(plan.platform, wanted.archive))
    with _naming_context(prepared.folder), reach_archive(engine, asked, store) as reach:
        work = work._replace(build_args=reach.build_args)
        wanted_base = Base(plan.platform, wanted.archive, reach.source)
        base = ensure_base(engine, wanted_base, store, log=work.log, on_event=on_event)
        tree = place_inputs(plan, prepared.folder, store, wanted.archive, on_event)
        work, image_id = build_image(work)
        compiled = take_compiled(work)
    verified = verify(engine, image_id, plan, on_event)
    lock = Lock(
        plan=prepared.context.digest,
        stage=plan.until,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        resolution=plan.resolution,
        image=prepared.image,
        image_id=image_id,
        python=plan.python.executable,
        base=_base_lock(base),
        features=prepared.features,
        files=file_hashes(prepared.context),
        inputs=prepared.context.inputs,
        packages=verified.packages,
        built_with=compiled.built_with,
        tree=tree,
        patches=tuple(patch.id for patch in prepared.context.patches),
        wheels=compiled.wheels,
        database=content_hash(),
        verified=verified.checks,
    )
    if wanted.locked:
        drift = find_drift(outcome_facts(load_lock(wanted.lock)), outcome_facts(lock))
        refuse_drift("what was built", wanted.lock, drift)
    return msgspec.structs.replace(lock, image_id=name_image(work, verified.checks))


def _matches(lock: Lock, prepared: Prepared, engine: Engine) -> bool:
    if lock.plan != prepared.context.digest or lock.image != prepared.image or not lock.is_whole:
        return False
    return engine.image_id(lock.image) == lock.image_id


@contextlib.contextmanager
def _alone(prepared: Prepared, on_event: OnEvent) -> Iterator[None]:
    """Two builds of one plan at once: the second waits, then finds the work done."""
    path = cache() / "contexts" / f"{prepared.context.digest[:12]}.lock"
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


def _log(prepared: Prepared) -> Path:
    """A fresh file for everything the tools of one build say."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    log = cache() / "logs" / f"build-{prepared.context.digest[:12]}-{stamp}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    return log


def _base_lock(base: BaseImage) -> BaseLock:
    return BaseLock(
        image=base.tag,
        image_id=base.id,
        releases=base.releases,
        packages_sha256=base.packages_sha256,
        rootfs_sha256=base.rootfs_sha256,
    )
