"""What a run would be: needs neither a network nor an engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from envforge.image.lock import LOCK_NAME, find_lock
from envforge.recipes import (
    Recipe,
    Setting,
    choose,
    fill,
    load_recipe,
    settle,
    shelves,
    variant_for,
)
from envforge.recipes.difference import (
    Difference,
    differences,
    duration,
    override_words,
    shorter_than,
)
from envforge.recipes.document import Override, Variant, Words
from envforge.recipes.memory import tier_for
from envforge.recipes.setting import PLACES
from envforge.recipes.stage import Wish, patches_of
from envforge.recipes.variant import find_variant
from envforge.run.request import RunRequest
from envforge.run.staged import read_staged
from envforge.run.wishes import read_wishes
from envforge.training.record import read_record


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The document of ``envforge run --dry-run --json``, schema ``envforge.preview/1``."""

    schema: str = "envforge.preview/1"
    recipe: str
    variant: str = ""
    upstream: str = ""
    commit: str = ""
    torch: str
    """The range of the recipe or its variant."""
    tier: str = ""
    patches: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    settings: dict[str, int | float | str]
    command: tuple[str, ...]
    """Places stay in braces: only the run knows them."""
    steps: int | None = None
    epochs: int | None = None
    shorter: dict[str, int] = {}
    estimated_s: float | None = None
    estimated_on: str = ""


def preview(request: RunRequest) -> Preview:
    """Say what a run would be; UnknownName, DocumentError, UsageError as the run itself."""
    loaded = load_recipe(request.recipe, shelves(request.shelves))
    record = read_record(request.run_dir) if request.run_dir else None
    wishes = read_wishes(loaded.recipe, request.settings, record)
    request = request._replace(settings=wishes.new)
    before = _settings_before(request)
    torch = _torch_of(request)
    name = request.settings.get("variant") or str(before.get("variant") or "")
    name = name or (_fitting(loaded.recipe, torch))
    recipe = choose(loaded.recipe, name)
    variant = find_variant(recipe, name) if name else None
    settled = settle(recipe, before, request.settings, request.vram_mib, demo=request.demo)
    tier = tier_for(recipe, request.vram_mib)
    length = duration(recipe, settled.values, tier, name, _items(request))
    wish = Wish(loaded, variant, torch, settled.values) if variant and torch else None
    overrides = variant.overrides if variant else ()
    return Preview(
        recipe=recipe.name,
        variant=name,
        upstream=recipe.upstream.url if recipe.upstream else "",
        commit=variant.commit if variant else "",
        torch=recipe.torch,
        tier=tier.memory if tier else "",
        patches=tuple(each.id for each in patches_of(wish)) if wish else _named(variant),
        differences=differences(recipe, overrides, settled),
        settings={**settled.values, **({"variant": name} if name else {})},
        command=_command(recipe, overrides, settled.values),
        steps=length.steps if length else None,
        epochs=length.epochs if length else None,
        shorter=shorter_than(length, recipe, request.settings, request.vram_mib),
        estimated_s=length.seconds if length else None,
        estimated_on=length.card if length else "",
    )


def _named(variant: Variant | None) -> tuple[str, ...]:
    return variant.patches if variant else ()


def _settings_before(request: RunRequest) -> Mapping[str, Setting]:
    for folder in (request.run_dir, request.taken):
        record = read_record(folder) if folder else None
        if record is not None:
            return record.settings
    return {}


def _torch_of(request: RunRequest) -> str:
    """The lock's, where there is one here; "" where nobody knows before the run."""
    if request.on == "local":
        return ""
    lock = find_lock(request.lock or Path(LOCK_NAME))
    return lock.torch if lock else ""


def _fitting(recipe: Recipe, torch: str) -> str:
    """Take the first variant where the torch is not known."""
    return variant_for(recipe, torch) if torch else next(iter(recipe.variants), "")


def _items(request: RunRequest) -> int | None:
    """What an earlier check of the same run has counted."""
    for folder in (request.run_dir, request.taken):
        staged = read_staged(folder) if folder else None
        if staged is not None and staged.examples is not None:
            return staged.examples.items
    return None


def _command(
    recipe: Recipe, overrides: tuple[Override, ...], settings: Mapping[str, Setting]
) -> Words:
    places = {name: f"{{{name}}}" for name in PLACES}
    wide: dict[str, Words] = {name: (f"{{{name}}}",) for name in ("resume", "on_device")}
    return fill(
        recipe.command,
        {**settings, **places},
        {**wide, "overrides": override_words(overrides, settings)},
    )
