"""Every input of a plan, brought into a mirror.

The archive's files are recorded while the plan is really built, on a base of its own that no step
in the builder's cache knows: whatever apt asks for is then in the mirror, nothing is guessed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from envforge.build import BuildRequest, Prepared
from envforge.build.prepare import cache
from envforge.build.stages import jobs_for
from envforge.errors import DocumentError, HashMismatch, SourceError
from envforge.events import Event, OnEvent
from envforge.image.bootstrap import Base, ensure_base
from envforge.image.engine import Build, Engine, connect
from envforge.image.inputs import origins, place_inputs
from envforge.image.mirrored import proxied, telling_why
from envforge.image.render import render, write_context
from envforge.sources.archive import FoundArchive, find_archive
from envforge.sources.fetch import fetch_url
from envforge.sources.mirror import (
    Answer,
    Held,
    HeldArchive,
    HeldTree,
    Kind,
    Manifest,
    Mirror,
)
from envforge.sources.proxy import Exchange, Upstream, quoted, serving
from envforge.sources.recording import Recording, open_recording
from envforge.sources.store import Store, default_store

_GIT = "git:"
_UNCHANGING = ("pool/", "/by-hash/")
"""Below these an archive never gives another file under the same path."""


class Created(NamedTuple):
    """A manifest, and whether anything had to be done for it."""

    manifest: Manifest
    fresh: bool
    """False: the mirror held all of it already."""


def create_plan(root: Path, prepared: Prepared, wanted: BuildRequest, on_event: OnEvent) -> Created:
    """Bring every input of a plan into the mirror at ``root``, which is made where there is none.

    A call that broke off is gone on with by the next one; what is damaged is fetched again. Raises
    SourceError, EngineUnavailable or BuildFailed; the manifest is written last.
    """
    mirror, digest = Mirror(root), prepared.context.digest
    with alone(mirror, on_event):
        found = find_manifest(mirror, "plan", digest, on_event)
        if found is not None and not faults_of(mirror, found):
            return Created(found, fresh=False)
        making = _Making(mirror, prepared, wanted, default_store(), on_event)
        archive = _mended(making, found) or _record(making)
        inputs, trees = _hold_inputs(making)
        manifest = Manifest(
            kind="plan",
            name=digest,
            title=title_of(prepared),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            envforge=version("envforge"),
            inputs=inputs,
            trees=trees,
            archive=archive,
        )
        written = mirror.write(manifest)
        shutil.rmtree(mirror.recording(digest), ignore_errors=True)
    return Created(written, fresh=True)


def title_of(prepared: Prepared) -> str:
    """Say in a few words what a plan is for."""
    resolution, until = prepared.plan.resolution, prepared.plan.until
    stage = "" if until == "runtime" else f", until {until}"
    return (
        f"torch {resolution.torch} for {prepared.card_code} on {resolution.platform},"
        f" {resolution.route} route{stage}"
    )


@contextmanager
def alone(mirror: Mirror, on_event: OnEvent) -> Iterator[None]:
    """One writer at a time: pruning must not see half a plan."""
    mirror.root.mkdir(parents=True, exist_ok=True)
    with mirror.store.locked("mirror", on_event):
        yield


class _Making(NamedTuple):
    mirror: Mirror
    prepared: Prepared
    wanted: BuildRequest
    store: Store
    on_event: OnEvent


def find_manifest(mirror: Mirror, kind: Kind, name: str, on_event: OnEvent) -> Manifest | None:
    """Read the manifest that is there; one that is not whole is told and made anew."""
    try:
        return mirror.find(kind, name)
    except DocumentError as error:
        on_event(Event("warning", "; ".join((error.what, *error.because))))
        return None


def faults_of(mirror: Mirror, manifest: Manifest) -> list[str]:
    """Hash every file of a manifest again; return the hashes of those that are not right."""
    rows = dict.fromkeys((sha256, size) for _, sha256, size in manifest.files())
    return [sha256 for sha256, size in rows if mirror.fault_of(sha256, size)]


def _hold_inputs(making: _Making) -> tuple[dict[str, Held], dict[str, HeldTree]]:
    """Fetch every input as a build does, and take it in."""
    plan, context = making.prepared.plan, making.prepared.context
    published = origins(plan)
    inputs: dict[str, Held] = {}
    trees: dict[str, HeldTree] = {}
    with making.mirror.store.workspace() as folder:
        store, archive = making.store, making.wanted.archive
        record = place_inputs(plan, folder, store, archive, making.on_event)
        for path, identity in context.inputs.items():
            if not (folder / path).is_file():
                continue  # of a later stage than the plan's last
            held = making.mirror.put(folder / path, published.get(path, ""))
            if identity.startswith(_GIT):
                trees[identity.removeprefix(_GIT)] = HeldTree(file=held, record=record)
            else:
                inputs[path] = held
    return inputs, trees


def _mended(making: _Making, found: Manifest | None) -> HeldArchive | None:
    """Fetch again what is damaged of an archive that was recorded before.

    None where there is none, or where the archive no longer has it: it is recorded anew.
    """
    archive = found.archive if found else None
    if archive is None:
        return None
    mirror = making.mirror
    for path, row in archive.files.items():
        if mirror.fault_of(row.sha256, row.size_bytes) is None:
            continue
        mirror.store.path_of(row.sha256).unlink(missing_ok=True)
        url = f"{archive.address}/{quoted(path)}"
        try:
            fetch_url(url, row.sha256, Path(path).name, mirror.store, making.on_event)
        except (SourceError, HashMismatch) as error:
            said = f"the state of the archive that was recorded is gone ({error.what})"
            making.on_event(Event("warning", f"{said}: it is recorded anew"))
            return None
    return archive


def _record(making: _Making) -> HeldArchive:
    """Build the plan through a recording proxy; return what the archive was asked for."""
    prepared, on_event = making.prepared, making.on_event
    platform, mirror = prepared.plan.platform, making.mirror
    making.store.expect_network(f"the archive of {platform.name}")
    source = find_archive(platform, making.wanted.archive, on_event)
    _refuse_https(source)
    recording = open_recording(mirror.recording(prepared.context.digest), source)
    known = {**_known(mirror, source.address), **recording.outdated}
    upstream = Upstream(source.address, recording.keep, known)
    exchange = Exchange(mirror.store, recording.rows, upstream)
    with (
        connect() as engine,
        serving(exchange, engine.gateway()) as proxy,
        telling_why(exchange, proxy, f"the archive {source.address}"),
    ):
        _build(making, engine, recording, source._replace(proxy=proxy))
    recording.refuse_other_state(source)
    return HeldArchive(address=source.address, files=dict(sorted(recording.rows.items())))


def _refuse_https(source: FoundArchive) -> None:
    if not source.address.startswith("http://"):
        raise SourceError(
            f"the archive {source.address} cannot be recorded",
            because=("what goes over https is not seen on the way",),
            hint="--archive http://ADDRESS   (apt checks the archive's signatures: they hold"
            " without https)",
        )


def _known(mirror: Mirror, address: str) -> Mapping[str, Answer]:
    """List what other plans have of the same archive already."""
    return {
        path: row
        for manifest in mirror.manifests()
        if manifest.archive is not None and manifest.archive.address == address
        for path, row in manifest.archive.files.items()
        if path.startswith(_UNCHANGING[0]) or _UNCHANGING[1] in path
    }


def _build(making: _Making, engine: Engine, recording: Recording, source: FoundArchive) -> None:
    """Bootstrap a throw-away base and build the plan on it; both images are removed."""
    prepared, on_event = making.prepared, making.on_event
    plan = prepared.plan
    log = cache() / "logs" / f"mirror-{prepared.context.digest[:12]}-{recording.mark}.txt"
    asked = Base(plan.platform, source=source, recording=recording.mark)
    base = ensure_base(engine, asked, making.store, log=log, on_event=on_event)
    tag = f"{base.tag}-built"
    jobs = making.wanted.jobs or jobs_for(engine.capacity())
    with making.store.workspace() as folder:
        write_context(render(plan._replace(base=base.tag)), folder)
        place_inputs(plan, folder, making.store, making.wanted.archive, on_event)
        own = {"MAX_JOBS": str(jobs)} if prepared.compiles else {}
        build_args = {**own, **proxied(str(source.proxy))}
        build = Build(folder, tag, target=plan.until, build_args=build_args)
        engine.build(build, log=log, on_event=on_event)
    for image in (tag, base.tag):
        engine.remove(image)
