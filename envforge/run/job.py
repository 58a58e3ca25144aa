"""The record of a run, and the job for each of its attempts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from envforge.recipes import Recipe, Setting, fill
from envforge.recipes.difference import override_words
from envforge.recipes.document import Variant, Words
from envforge.run.place import Device, Place
from envforge.run.prepare import Prepared
from envforge.training import (
    Change,
    Job,
    LogPatterns,
    Result,
    RunFolder,
    RunRecord,
    Saved,
    find_saved,
    new_id,
    resume_words,
)


def record_of(
    prepared: Prepared,
    place: Place,
    folder: RunFolder,
    earlier: RunRecord | None,
    asked: Mapping[str, Setting],
) -> RunRecord:
    """Describe the run as it will be; its attempts so far are kept."""
    recipe = prepared.loaded.recipe
    return RunRecord(
        id=earlier.id if earlier else new_id(),
        state=earlier.state if earlier else "PENDING",
        attempts=earlier.attempts if earlier else (),
        checks=earlier.checks if earlier else (),
        lowering=earlier.lowering if earlier else None,
        recipe=recipe.name,
        reference=prepared.loaded.reference,
        run_dir=str(folder.path),
        settings=prepared.settled.values,
        asked=dict(asked),
        command=command_of(prepared, place, prepared.settled.values, None),
        on=place.on,
        device=prepared.device,
        python=place.python,
        torch=place.torch,
        image=place.image,
        image_id=place.image_id,
        show=recipe.show,
        samples=recipe.samples,
        boxes=recipe.boxes,
    )


def command_of(
    prepared: Prepared, place: Place, settings: Mapping[str, Setting], saved: Saved | None
) -> Words:
    """Write the command for these settings, to go on from this checkpoint."""
    recipe, variant = prepared.loaded.recipe, prepared.variant
    values = {
        **settings,
        **prepared.seen,
        "python": place.python,
        "device": prepared.device,
    }
    wide = {
        "overrides": override_words(variant.overrides, settings) if variant else (),
        "on_device": _device_words(variant, prepared.device),
        "resume": resume_words(recipe.checkpoint, saved),
    }
    first, *rest = fill(recipe.command, values, wide)
    return (first, *prepared.wrapper, *rest) if first == place.python else (first, *rest)


def _device_words(variant: Variant | None, device: Device) -> Words:
    return variant.on_device.get(device, ()) if variant and device != "auto" else ()


_COMPARED = ("on", "device", "python", "torch", "image", "image_id")


def changes_of(earlier: RunRecord | None, now: RunRecord) -> tuple[Change, ...]:
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


def job_of(
    prepared: Prepared,
    place: Place,
    record: RunRecord,
    settings: Mapping[str, Setting],
    saved: Saved | None,
) -> Job:
    """Make the job of one attempt."""
    recipe = prepared.loaded.recipe
    result = recipe.success.result if recipe.success else None
    saved = before_the_end(recipe, settings, saved, Path(record.run_dir))
    return Job(
        run_id=record.id,
        argv=command_of(prepared, place, settings, saved),
        run_dir=Path(record.run_dir),
        python=place.python,
        files=prepared.loaded.files,
        mounts=prepared.mounts,
        patterns=patterns_of(recipe),
        result=Result(**msgspec.structs.asdict(result)) if result else None,
        written=written_file(recipe, settings),
        exit_code=recipe.success.exit_code if recipe.success else None,
        checkpoints=recipe.checkpoints,
        rule=recipe.checkpoint,
        ladder=recipe.ladder,
        total=prepared.staged.steps,
        images_per_step=_images_per_step(recipe, settings),
        exit_reasons=recipe.exit_codes,
        environment=prepared.environment,
        stop_wait_s=recipe.stop_wait_s,
        shm_size_mib=recipe.shm_size_mib,
        memory_mib=prepared.staged.inputs.memory_mib,
    )


def before_the_end(
    recipe: Recipe, settings: Mapping[str, Setting], saved: Saved | None, run_dir: Path
) -> Saved | None:
    """Go back to a checkpoint that something is left to do from.

    A training that was killed between its last checkpoint and its last words would else be started
    with nothing to do, say nothing, and count as failed.
    """
    rule, length = recipe.checkpoint, recipe.length
    if saved is None or rule is None or length is None or not rule.resume:
        return saved
    total = sum(int(settings[name]) for name in length.total)
    if rule.unit != length.unit or saved.step < total:
        return saved
    every = find_saved(run_dir, recipe.checkpoints, rule)
    return next((each for each in every if each.step < total), None)


def written_file(recipe: Recipe, settings: Mapping[str, Setting]) -> str | None:
    """Name the file that a success has written."""
    named = recipe.success.file if recipe.success else None
    return fill((named,), settings)[0] if named else None


def _images_per_step(recipe: Recipe, settings: Mapping[str, Setting]) -> int | None:
    value = settings.get(recipe.ladder.images_per_step or "")
    return value if isinstance(value, int) else None


def patterns_of(recipe: Recipe) -> LogPatterns:
    """Compile the patterns; TypeError for a recipe whose variant nobody has chosen."""
    if recipe.log is None or recipe.success is None:
        raise TypeError(f"{recipe.name} has variants: choose one first")
    texts = {**msgspec.structs.asdict(recipe.log), "success": recipe.success.line}
    return LogPatterns(**{name: re.compile(text) for name, text in texts.items() if text})
