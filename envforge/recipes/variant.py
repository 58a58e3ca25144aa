"""One variant of a recipe: its own values over the recipe's."""

from __future__ import annotations

import difflib

import msgspec

from envforge.errors import HostMismatch, UnknownName
from envforge.recipes.document import Recipe, Variant
from envforge.values import VersionRange, version_key

_OWN = ("torch", "command", "log", "checkpoint", "success")

HINT_OF_TORCH = (
    "envforge build --torch '{spec}' --gpu CARD   (or --cpu), then train in its image;"
    " or --on local --torch VERSION"
)


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


def variant_for(recipe: Recipe, torch: str, python: str = "") -> str:
    """Name the first variant that runs on this torch and Python; "" where the recipe has none.

    HostMismatch with every variant's ranges.
    """
    if not recipe.variants:
        return ""
    for name, variant in recipe.variants.items():
        if fits(variant, torch, python):
            return name
    found = f"torch {torch}" + (f" with Python {python}" if python else "")
    because = tuple(f"{name} runs on {_ranges(each)}" for name, each in recipe.variants.items())
    hint = HINT_OF_TORCH.format(spec=next(iter(recipe.variants.values())).torch)
    raise HostMismatch(f"no variant of {recipe.name} runs on {found}", because=because, hint=hint)


def fits(variant: Variant, torch: str, python: str = "") -> bool:
    """Whether a variant runs on this torch and, where it is known, this Python."""
    if not runs_on(variant.torch, torch):
        return False
    return not (variant.python and python) or runs_on(variant.python, python)


def _ranges(variant: Variant) -> str:
    python = f" with Python {variant.python}" if variant.python else ""
    return f"torch {variant.torch}{python}"


def refuse_unfit(recipe: Recipe, name: str, torch: str, python: str) -> None:
    """HostMismatch where a variant that was asked for does not run here."""
    variant = find_variant(recipe, name)
    if not fits(variant, torch, python):
        raise HostMismatch(
            f"{name} of {recipe.name} runs on {_ranges(variant)}",
            because=(f"this is torch {torch} with Python {python}",),
            hint="leave out --set variant, or give another image or --interpreter",
        )


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
