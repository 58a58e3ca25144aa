"""Train on it, and get there. The third of the three stories.

A recipe is what to train, a place is where: both are prepared, and handed as a job to the
supervisor with the directory of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote

from envforge.errors import UsageError
from envforge.events import Event, OnEvent
from envforge.recipes import LoadedRecipe, Recipe, Setting, fill, load_recipe, shelves
from envforge.run.job import changes_of, job_of, record_of
from envforge.run.outcome import require_success
from envforge.run.place import Place, card_of, find_place, refuse_torch
from envforge.run.prepare import Preparation, Prepared
from envforge.run.preview import Preview, preview
from envforge.run.request import On, RunRequest
from envforge.run.staged import Inputs, Staged, inputs_of, read_staged, write_staged
from envforge.run.wishes import read_wishes
from envforge.training import (
    Change,
    Clock,
    Executor,
    Job,
    Journal,
    Plan,
    RunFolder,
    RunRecord,
    Saved,
    Surroundings,
    SystemClock,
    close_left_open,
    open_folder,
    persevere,
    stop_requests,
)
from envforge.training.record import read_record
from envforge.training.remembered import recall

__all__ = ["On", "Preview", "RunRequest", "preview", "require_success", "run"]


def run(
    request: RunRequest,
    on_event: OnEvent,
    clock: Clock | None = None,
    on_staged: Callable[[Staged], None] | None = None,
) -> RunRecord:
    """Train, or go on training; return what is now in ``run.json``, whatever came of it.

    ``on_staged`` is told what will be trained, just before it is. Raises what keeps a run from
    starting: UnknownName, DocumentError, UsageError, SourceError, PatchError, EngineUnavailable,
    HostMismatch, RunFailed. How it ended is said by :func:`require_success`.
    """
    clock = clock or SystemClock()
    loaded = load_recipe(request.recipe, shelves(request.shelves))
    with open_folder(request.run_dir or _new_folder(loaded.recipe, clock)) as folder:
        earlier = _earlier(folder, loaded.recipe)
        wishes = read_wishes(loaded.recipe, request.settings, earlier)
        request = request._replace(settings=wishes.new)
        for words in wishes.standing:
            on_event(Event("warning", words))
        with find_place(request, loaded, earlier, on_event) as place:
            if not loaded.recipe.variants:
                refuse_torch(loaded.recipe, place)
            prepared = _prepare(request, loaded, place, folder, on_event)
            record = record_of(prepared, place, folder, earlier, wishes.asked)
            changes = changes_of(earlier, record)
            if _is_done(loaded.recipe, earlier, changes):
                on_event(Event("done", f"{loaded.recipe.name} has already succeeded here"))
                return record
            if earlier:
                _clear(place.executor, loaded.recipe, record, on_event)
            if on_staged:
                on_staged(prepared.staged)
            write_staged(folder.path, prepared.staged)
            _link(prepared, folder.path)
            plan = _plan(prepared, place, record)
            journal = Journal(folder, record, prepared.loaded.recipe.checkpoints, clock)
            with stop_requests() as stops:
                on_event(Event("step", _opening(record, folder)))
                surroundings = Surroundings(clock, stops, on_event)
                return persevere(plan, record.settings, changes, journal, surroundings)


def _prepare(
    request: RunRequest,
    loaded: LoadedRecipe,
    place: Place,
    folder: RunFolder,
    on_event: OnEvent,
) -> Prepared:
    """Prepare with what the run had before, and with what the run it takes from had."""
    before = read_staged(folder.path)
    taken = request.taken or (Path(before.inputs.taken) if before and before.inputs.taken else None)
    inputs = inputs_of(request, before, read_staged(taken) if taken else None)
    record = folder.record or (read_record(taken) if taken else None)
    settings = record.settings if record else _recalled(loaded.recipe, place, inputs, on_event)
    return Preparation(loaded, place, inputs, on_event).prepare(request, settings, folder.path)


def _plan(prepared: Prepared, place: Place, record: RunRecord) -> Plan:
    def job(settings: Mapping[str, Setting], saved: Saved | None) -> Job:
        return job_of(prepared, place, record, settings, saved)

    card = _card_at(place, prepared.staged.inputs)
    recipe = prepared.loaded.recipe
    return Plan(job, place.executor, recipe.ladder, recipe.rescale, card)


def _card_at(place: Place, inputs: Inputs) -> str:
    """Name the card, and how much of it may be used."""
    card = card_of(place)
    return f"{card} at {inputs.vram_mib} MiB" if card and inputs.vram_mib else card


def _recalled(
    recipe: Recipe, place: Place, inputs: Inputs, on_event: OnEvent
) -> Mapping[str, Setting]:
    """Begin a new run with what an earlier one on this card has come down to."""
    card = _card_at(place, inputs)
    known = recall(recipe.name, card) if card else {}
    if known:
        words = ", ".join(f"{name} {value}" for name, value in known.items())
        on_event(Event("step", f"what has fitted this card before: {words}"))
    return known


def _link(prepared: Prepared, run_dir: Path) -> None:
    """Make the links that upstream follows from its working directory."""
    values = {**prepared.settled.values, **prepared.seen}
    for name, target in prepared.loaded.recipe.links.items():
        path = run_dir / fill((name,), values)[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        path.symlink_to(fill((target,), values)[0])


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
            hint=f"envforge run {record.reference} --run-dir {quote(str(folder.path))}",
        )
    closed = close_left_open(folder, record, recipe.checkpoints)
    if closed != record:
        folder.write(closed)
    return closed


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
