"""One variant of a recipe: its own values over the recipe's."""

from __future__ import annotations

import difflib

import msgspec

from envforge.errors import HostMismatch, UnknownName
from envforge.recipes.document import Recipe, Variant
from envforge.values import VersionRange, version_key

_OWN = ("torch", "command", "log", "checkpoint", "success")


def choose(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe with what ``name`` says in the places where it stands; "" as it is.

    UnknownName with near matches.
    """
    if not name:
        return recipe
    variant = find_variant(recipe, name)
    own = {field: value for field in _OWN if (value := getattr(variant, field))}
    environment = {**recipe.environment, **variant.environment}
    return msgspec.structs.replace(recipe, **own, environment=environment)


def find_variant(recipe: Recipe, name: str) -> Variant:
    """Look a variant up; UnknownName with near matches."""
    if name not in recipe.variants:
        near = difflib.get_close_matches(name, recipe.variants, n=3)
        hint = f"{recipe.name} has: {', '.join(recipe.variants) or 'no variants'}"
        raise UnknownName("variant", name, tuple(near), hint=hint)
    return recipe.variants[name]


def variant_for(recipe: Recipe, torch: str) -> str:
    """Name the first variant that runs on this release; "" where the recipe has none.

    HostMismatch with every variant's range.
    """
    if not recipe.variants:
        return ""
    for name, variant in recipe.variants.items():
        if runs_on(variant.torch, torch):
            return name
    ranges = tuple(f"{name} runs on torch {each.torch}" for name, each in recipe.variants.items())
    raise HostMismatch(f"no variant of {recipe.name} runs on torch {torch}", because=ranges)


def runs_on(wanted: str, torch: str) -> bool:
    """Compare releases only: ``2.13.0+cpu`` and ``1.13.0a0`` are 2.13.0 and 1.13.0."""
    release = release_of(torch)
    return release is not None and release in VersionRange.parse(wanted)


def release_of(torch: str) -> str | None:
    """``1.13.0a0+git1`` -> ``1.13.0``; None where no release stands there."""
    digits = torch.partition("+")[0]
    for end in range(len(digits), 0, -1):
        try:
            version_key(digits[:end])
        except ValueError:
            continue
        return digits[:end]
    return None
