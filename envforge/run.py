"""Train on it, and get there. The third of the three stories.

A recipe is what to train, a place is where: this module turns both into a job, and hands it to the
supervisor with the directory of the run.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from envforge.capability.load import load as load_database
from envforge.capability.lookup import find_device
from envforge.errors import HostMismatch, Interrupted, RunFailed, Stopped, UnknownName, UsageError
from envforge.events import Event, OnEvent
from envforge.hardware.host import read_host
from envforge.hardware.pci import find_gpus
from envforge.image.engine import Engine, connect
from envforge.image.lock import LOCK_NAME, Lock, find_lock, load_lock
from envforge.recipes import LoadedRecipe, Recipe, Setting, fill, load_recipe, settle
from envforge.training import (
    Change,
    Clock,
    Executor,
    Job,
    Journal,
    LogPatterns,
    Plan,
    Result,
    RunFolder,
    RunRecord,
    Saved,
    Surroundings,
    SystemClock,
    close_left_open,
    new_id,
    open_folder,
    persevere,
    stop_requests,
)
from envforge.training.docker import RECIPE, RUN_DIR, DockerExecutor
from envforge.training.local import LocalExecutor
from envforge.training.probe import Interpreter, probe_image, probe_interpreter
from envforge.training.record import LOG
from envforge.values import DeviceCode, VersionRange

On = Literal["docker", "local"]
_TAIL = 12


class RunRequest(NamedTuple):
    """What to train, where, and how it differs from the recipe's own."""

    recipe: str
    on: On | None = None
    """None: where the run directory's run is; a new one in docker."""
    run_dir: Path | None = None
    """None: a new one, ``runs/<recipe>-<UTC time>``. One that holds a run goes on."""
    interpreter: str | None = None
    """The Python that has the torch, for ``local``; None: the one that runs envforge."""
    image: str | None = None
    """A tag or id; None: the lock's."""
    lock: Path | None = None
    """None: where the run directory's run has been; a new one by ``envforge.lock``."""
    settings: Mapping[str, str] = MappingProxyType({})
    device: Literal["auto", "cpu", "gpu"] = "auto"


class Place(NamedTuple):
    """Where a recipe is trained, and what is known of it."""

    executor: Executor
    on: On
    python: str
    torch: str
    device: Literal["auto", "cpu", "cuda"]
    image: str | None = None
    image_id: str | None = None


def run(request: RunRequest, on_event: OnEvent, clock: Clock | None = None) -> RunRecord:
    """Train, or go on training; return what is now in ``run.json``, whatever came of it.

    Raises what keeps a run from starting: UnknownName, DocumentError, UsageError,
    EngineUnavailable, HostMismatch, RunFailed. How it ended is said by :func:`require_success`.
    """
    clock = clock or SystemClock()
    loaded = load_recipe(request.recipe)
    with open_folder(request.run_dir or _new_folder(loaded.recipe, clock)) as folder:
        earlier = _earlier(folder, loaded.recipe)
        before = earlier.settings if earlier else {}
        asked = settle(loaded.recipe, before, request.settings).values
        with _place(request, earlier, on_event) as place:
            _refuse_torch(loaded.recipe, place)
            record = _record(loaded, place, asked, folder, earlier)
            changes = _changes(earlier, record)
            if _is_done(loaded.recipe, earlier, changes):
                on_event(Event("done", f"{loaded.recipe.name} has already succeeded here"))
                return record
            if earlier:
                _clear(place.executor, loaded.recipe, record, on_event)

            def job(settings: Mapping[str, Setting], _from: Saved | None) -> Job:
                return _job(loaded, _with_settings(loaded, place, record, settings), folder)

            plan = Plan(job, place.executor, loaded.recipe.ladder, _card(place))
            journal = Journal(folder, record, loaded.recipe.checkpoints, clock)
            with stop_requests() as stops:
                on_event(Event("step", _opening(record, folder)))
                surroundings = Surroundings(clock, stops, on_event)
                return persevere(plan, record.settings, changes, journal, surroundings)


def _new_folder(recipe: Recipe, clock: Clock) -> Path:
    """Name a directory nobody has: two runs may begin in one second."""
    base = Path("runs") / f"{recipe.name}-{clock.now():%Y%m%dT%H%M%SZ}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def _earlier(folder: RunFolder, recipe: Recipe) -> RunRecord | None:
    """Return the run the directory holds, with the attempt a kill left open closed."""
    record = folder.record
    if record is None:
        return None
    if record.recipe != recipe.name:
        raise UsageError(
            f"{folder.path} holds a run of {record.recipe}, not of {recipe.name}",
            hint=f"envforge run {record.reference} --run-dir {folder.path}",
        )
    return close_left_open(folder, record, recipe.checkpoints)


@contextmanager
def _place(request: RunRequest, earlier: RunRecord | None, on_event: OnEvent) -> Iterator[Place]:
    """Find where to train: what is asked for, else where the run has been."""
    on = request.on or (earlier.on if earlier else "docker")
    if on == "local":
        yield _local_place(request, earlier)
        return
    if request.interpreter:
        raise UsageError("--interpreter is for --on local: an image brings its own")
    with connect() as engine:
        yield _docker_place(request, earlier, engine, on_event)


def _local_place(request: RunRequest, earlier: RunRecord | None) -> Place:
    if request.image:
        raise UsageError("--image is for --on docker")
    known = earlier.python if earlier and earlier.on == "local" else ""
    found = probe_interpreter(request.interpreter or known or sys.executable)
    device: Any = "cuda" if request.device == "gpu" else request.device
    return Place(LocalExecutor(), "local", found.python, found.torch, device)


def _docker_place(
    request: RunRequest, earlier: RunRecord | None, engine: Engine, on_event: OnEvent
) -> Place:
    image, lock = _choose_image(request, earlier)
    image_id = engine.image_id(lock.image_id if lock else image)
    if image_id is None:
        raise RunFailed(
            f"this engine does not have the image {image}",
            hint="build it: envforge build; or name another: --image TAG, --lock FILE",
        )
    if lock and lock.stage == "toolchain":
        raise UsageError(f"{image} is a toolchain: it has no torch yet", hint="envforge build")
    found = probe_image(engine, image_id) if lock is None else _told_by(lock)
    gpus = _wants_gpus(request, found, on_event)
    if lock and gpus:
        _refuse_cards([card.id for card in find_gpus()], lock)
    return Place(
        DockerExecutor(engine=engine, image=image_id, gpus=gpus),
        on="docker",
        python=found.python,
        torch=found.torch,
        device="cuda" if gpus else "cpu",
        image=image,
        image_id=image_id,
    )


def _choose_image(request: RunRequest, earlier: RunRecord | None) -> tuple[str, Lock | None]:
    """Name the image, and the lock that knows it. A run goes on in the image it has been in."""
    image = request.image
    if image is None and request.lock is None and earlier and earlier.on == "docker":
        image = earlier.image_id
    if image is None:
        lock = load_lock(request.lock or Path(LOCK_NAME))
        return lock.image, lock
    known = find_lock(request.lock or Path(LOCK_NAME))
    fits = known is not None and image in (known.image, known.image_id)
    return image, known if fits else None


def _told_by(lock: Lock) -> Interpreter:
    """The CPU route's wheel may carry CUDA libraries: nobody has said that a card runs them."""
    for_card = lock.resolution.route != "cpu"
    return Interpreter(lock.python, lock.torch, lock.resolution.cuda if for_card else None)


def _wants_gpus(request: RunRequest, found: Interpreter, on_event: OnEvent) -> bool:
    """Whether the container gets the cards: where there are any, and its torch can use them."""
    if request.device == "cpu":
        return False
    lacking = _lacking_for_gpus(found)
    if lacking is None:
        return True
    if request.device == "gpu":
        raise HostMismatch(f"no card can compute: {lacking}", hint="leave out --gpu, or give --cpu")
    on_event(Event("warning", f"training on the CPU: {lacking}"))
    return False


def _lacking_for_gpus(found: Interpreter) -> str | None:
    if found.cuda is None:
        return "the image is for the CPU"
    if not find_gpus():
        return "this machine has no NVIDIA card"
    return None if read_host().driver else "this machine's NVIDIA card has no driver"


def _refuse_cards(pci_ids: list[str], lock: Lock) -> None:
    """HostMismatch where the image's machine code runs on no card of this machine."""
    codes, seen = [DeviceCode.parse(code) for code in lock.codes], []
    for pci_id in pci_ids:
        try:
            card = find_device(load_database(), pci_id)
        except UnknownName:  # newer than the database: the training itself will tell
            return
        if not codes or any(code.support_on(card.compute_capability) != "none" for code in codes):
            return
        seen.append(f"{card.name} has compute capability {card.compute_capability}")
    raise HostMismatch(
        f"{lock.image} runs on no card of this machine",
        because=(*seen, f"the image carries {', '.join(lock.codes)}"),
        hint="train on the CPU: --cpu; or build for this card: envforge check",
    )


def _refuse_torch(recipe: Recipe, place: Place) -> None:
    """Compare releases only: ``2.13.0+cpu`` and ``1.13.0a0`` are 2.13.0 and 1.13.0."""
    found = re.match(r"\d+(?:\.\d+)*", place.torch)
    if found is None or found[0] not in VersionRange.parse(recipe.torch):
        where = place.image or place.python
        raise HostMismatch(
            f"{recipe.name} runs on torch {recipe.torch}, not on {place.torch}",
            because=(f"torch {place.torch} is what {where} has",),
        )


def _record(
    loaded: LoadedRecipe,
    place: Place,
    settings: dict[str, Setting],
    folder: RunFolder,
    earlier: RunRecord | None,
) -> RunRecord:
    """Describe the run as it will be; its attempts so far are kept."""
    record = RunRecord(
        id=earlier.id if earlier else new_id(),
        state=earlier.state if earlier else "PENDING",
        attempts=earlier.attempts if earlier else (),
        checks=earlier.checks if earlier else (),
        recipe=loaded.recipe.name,
        reference=loaded.reference,
        run_dir=str(folder.path),
        on=place.on,
        device=place.device,
        python=place.python,
        torch=place.torch,
        image=place.image,
        image_id=place.image_id,
        show=loaded.recipe.show,
        samples=loaded.recipe.samples,
    )
    return _with_settings(loaded, place, record, settings)


def _with_settings(
    loaded: LoadedRecipe, place: Place, record: RunRecord, settings: Mapping[str, Setting]
) -> RunRecord:
    """Let the run have these settings, and the command they make."""
    inside = {
        "python": place.python,
        "recipe": RECIPE if place.on == "docker" else str(loaded.files),
        "run_dir": RUN_DIR if place.on == "docker" else record.run_dir,
        "device": place.device,
    }
    command = fill(loaded.recipe.command, {**settings, **inside})
    return msgspec.structs.replace(record, settings=dict(settings), command=command)


def _card(place: Place) -> str:
    """Name what is computed on, for what is remembered of it; empty for the CPU."""
    cards = [card.id for card in find_gpus()] if place.device != "cpu" else []
    return ", ".join(sorted(cards))


_COMPARED = ("on", "device", "python", "torch", "image", "image_id")


def _changes(earlier: RunRecord | None, now: RunRecord) -> tuple[Change, ...]:
    """List in what this attempt differs from the last one."""
    if earlier is None:
        return ()
    before = {**earlier.settings, **{name: getattr(earlier, name) for name in _COMPARED}}
    after = {**now.settings, **{name: getattr(now, name) for name in _COMPARED}}
    return tuple(
        Change(setting=name, before=before.get(name), after=after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def _is_done(recipe: Recipe, earlier: RunRecord | None, changes: tuple[Change, ...]) -> bool:
    """Whether there is nothing to do: some upstreams crash when a finished run is run again."""
    succeeded = earlier is not None and earlier.state == "SUCCEEDED"
    return succeeded and recipe.when_finished == "leave" and not changes


def _clear(executor: Executor, recipe: Recipe, record: RunRecord, on_event: OnEvent) -> None:
    """End what a killed envforge left running: two trainings in one directory ruin both."""
    for stopped in executor.clear(record.id, recipe.stop_wait_s):
        on_event(Event("warning", f"an earlier envforge left {stopped} running: it was stopped"))


def _opening(record: RunRecord, folder: RunFolder) -> str:
    where = record.image or record.python
    return f"training {record.recipe} with torch {record.torch} of {where} in {folder.path}"


def _job(loaded: LoadedRecipe, record: RunRecord, folder: RunFolder) -> Job:
    recipe = loaded.recipe
    result = recipe.success.result if recipe.success else None
    return Job(
        run_id=record.id,
        argv=record.command,
        run_dir=folder.path,
        python=record.python,
        files=loaded.files,
        patterns=_patterns(recipe),
        result=Result(**msgspec.structs.asdict(result)) if result else None,
        checkpoints=recipe.checkpoints,
        rule=recipe.checkpoint,
        ladder=recipe.ladder,
        images_per_step=_images_per_step(recipe, record.settings),
        exit_reasons=recipe.exit_codes,
        environment={"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stop_wait_s=recipe.stop_wait_s,
        shm_size_mib=recipe.shm_size_mib,
    )


def _images_per_step(recipe: Recipe, settings: Mapping[str, Setting]) -> int | None:
    value = settings.get(recipe.ladder.images_per_step or "")
    return value if isinstance(value, int) else None


def _patterns(recipe: Recipe) -> LogPatterns:
    if recipe.log is None or recipe.success is None:
        raise TypeError(f"{recipe.name} has variants: choose one first")
    texts = {**msgspec.structs.asdict(recipe.log), "success": recipe.success.line}
    return LogPatterns(**{name: re.compile(text) for name, text in texts.items() if text})


_ENDS = {
    "check-failed": "did not pass its own checks",
    "diverged": "diverged",
    "bad-checkpoint": "cannot use its newest checkpoint",
    "gpu-oom": "exhausted the card's memory",
    "host-oom": "exhausted the machine's memory",
    "shm": "exhausted its shared memory",
    "open-files": "exhausted its open files",
    "data": "cannot read its data",
    "hang": "hangs",
    "engine-lost": "was lost with the container engine",
    "crash": "ended before it was finished",
}


def require_success(record: RunRecord) -> None:
    """Return where the run succeeded.

    Interrupted (Ctrl-C) or Stopped (a scheduler) where it can go on later; RunFailed with what
    says why, the end of the log and its file.
    """
    if record.state == "SUCCEEDED":
        return
    last = record.last
    again = shlex.join(["envforge", "run", record.reference, "--run-dir", record.run_dir])
    if last.reason in ("cancelled", "preempted"):
        kind = Interrupted if last.stopped_by == "SIGINT" else Stopped
        saved = (
            f"the newest checkpoint is {last.checkpoint}"
            if last.checkpoint
            else "no checkpoint was saved"
        )
        what = f"{record.recipe} was stopped at step {last.last_iteration or 0}"
        raise kind(what, because=(saved,), hint=f"to go on: {again}")
    log = Path(record.run_dir) / LOG
    raise RunFailed(
        f"{record.recipe} {_ENDS[last.reason or 'crash']}",
        because=(*last.because, f"the end of {log}:", *(f"  {line}" for line in _tail(log))),
        hint=f"once the cause is mended: {again}",
    )


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 16384))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-_TAIL:]
