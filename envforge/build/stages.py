"""The stages of one build in an engine: built, taken out, named."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from envforge.build.prepare import Prepared
from envforge.errors import BuildFailed, OutOfMemory, PatchError
from envforge.events import Event, OnEvent
from envforge.image.engine import Build, Capacity, Engine, label_json
from envforge.image.inputs import link
from envforge.image.lock import CheckLock
from envforge.patching.edit import DOES_NOT_FIT
from envforge.sources.store import hash_file

_COMPILER_MIB = 3 * 1024
"""What one compiler may take at its worst; see docs/verification for what they took."""
_BUILT_WITH = "built_with.txt"
"""Written by templates/source/runtime_files.py."""


class Work(NamedTuple):
    """A build under way."""

    engine: Engine
    prepared: Prepared
    jobs: int
    """Compilers at once."""
    log: Path
    on_event: OnEvent
    build_args: Mapping[str, str] = {}
    """How the steps reach the archive, where that is a mirror's."""
    ca_bundle: Path | None = None
    """Certificates for an archive that is reached by https."""


class Compiled(NamedTuple):
    """What a build from source left beside its image."""

    wheels: dict[str, str]
    """File name -> sha256."""
    built_with: tuple[str, ...]
    """The packages of the stage that compiled, as ``name:architecture=version``."""


def jobs_for(capacity: Capacity) -> int:
    """How many compilers run at once: the compiler that meets the memory's end fails the build."""
    return max(1, min(capacity.cores, capacity.memory_mib // _COMPILER_MIB))


def build_image(work: Work) -> tuple[Work, str]:
    """Build the plan's image under the name of the unverified; return its id.

    Compilers that met the memory's end are started again, half as many: what is compiled comes
    from their cache. The work is returned as it came to its end, with so many jobs.

    Raises PatchError, OutOfMemory where one compiler was too much, BuildFailed, EngineUnavailable.
    """
    try:
        with _naming_patches():
            return work, _build(work, work.prepared.plan.until, work.prepared.unverified)
    except OutOfMemory:
        if work.jobs == 1 or not work.prepared.compiles:
            raise
    fewer = work._replace(jobs=work.jobs // 2)
    said = f"the memory ended under {work.jobs} compilers at once: going on with {fewer.jobs}"
    work.on_event(Event("warning", said))
    return build_image(fewer)


def _build(work: Work, stage: str, tag: str) -> str:
    prepared = work.prepared
    jobs = {"MAX_JOBS": str(work.jobs)} if prepared.compiles else {}
    wanted = Build(
        context=prepared.folder,
        tag=tag,
        target=stage,
        build_args={**jobs, **work.build_args},
        labels={"envforge.plan": prepared.context.digest},
        ca_bundle=work.ca_bundle,
    )
    return work.engine.build(wanted, log=work.log, on_event=work.on_event)


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


def take_compiled(work: Work) -> Compiled:
    """Copy what was compiled out of the engine, into the context's folder."""
    prepared, engine = work.prepared, work.engine
    if not prepared.compiles:
        return Compiled({}, ())
    tag = f"{prepared.image}-wheel"
    _build(work, "wheel", tag)
    wheels: dict[str, str] = {}
    built_with: tuple[str, ...] = ()
    for inside, path in engine.export(tag, _is_left_beside, prepared.folder):
        name = PurePosixPath(inside).name
        if name == _BUILT_WITH:
            built_with = tuple(path.read_text(encoding="utf-8").splitlines())
        else:
            wheels[name] = hash_file(path)
            link(path, prepared.wheels / name)
        path.unlink()
    engine.discard(tag)
    return Compiled(wheels, built_with)


def _is_left_beside(name: str) -> bool:
    return name.endswith(".whl") or PurePosixPath(name).name == _BUILT_WITH


def name_image(work: Work, verified: tuple[CheckLock, ...]) -> str:
    """Give the verified image its name, with what it is and what was seen as labels."""
    prepared, resolution = work.prepared, work.prepared.plan.resolution
    labels = {
        "org.opencontainers.image.title": f"torch {resolution.torch} for {prepared.card_code}",
        "org.opencontainers.image.version": resolution.torch,
        "envforge.plan": prepared.context.digest,
        "envforge.resolution": label_json(resolution),
        "envforge.verified": label_json(verified),
    }
    with tempfile.TemporaryDirectory(prefix="envforge-") as folder:
        dockerfile = Path(folder) / "Dockerfile"
        dockerfile.write_text(f"FROM {prepared.unverified}\n", encoding="utf-8")
        named = Build(Path(folder), prepared.image, labels=labels)
        image_id = work.engine.build(named, log=work.log, on_event=work.on_event)
    work.engine.discard(prepared.unverified)
    return image_id
