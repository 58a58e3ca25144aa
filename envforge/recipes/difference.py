"""How a training differs from upstream's own, and how long it takes: known before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from envforge.errors import UsageError
from envforge.recipes.document import MemoryTier, Override, Recipe, Setting, Words
from envforge.recipes.setting import Settled, fill, placeholders, settle
from envforge.recipes.value import same


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One value that is not upstream's."""

    setting: str
    upstream: str
    ours: str
    why: str


def differences(
    recipe: Recipe, overrides: tuple[Override, ...], settled: Settled
) -> tuple[Difference, ...]:
    """List every override that changes something, and every parameter no override speaks of."""
    rows = [
        Difference(
            setting=override.key,
            upstream=_text(override.upstream),
            ours=value,
            why=_why(override, settled),
        )
        for override, value in filled(overrides, settled.values)
        if not same(value, override.upstream) and value != _text(override.upstream)
    ]
    spoken = {name for override in overrides for name in placeholders(override.value)}
    rows += [
        Difference(
            setting=name,
            upstream=str(parameter.default),
            ours=str(settled.values[name]),
            why=settled.origins.get(name, ""),
        )
        for name, parameter in recipe.parameters.items()
        if name not in spoken and str(parameter.default) != str(settled.values[name])
    ]
    return tuple(rows)


def _text(value: object) -> str:
    """``true``, ``false`` as a recipe writes them; everything else as Python prints it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _why(override: Override, settled: Settled) -> str:
    """Say who changed its parameters, else why the recipe sets it."""
    names = placeholders(override.value)
    origins = [settled.origins[name] for name in names if name in settled.origins]
    return "; ".join(dict.fromkeys(origins)) or override.why


def filled(
    overrides: tuple[Override, ...], values: Mapping[str, Setting]
) -> list[tuple[Override, str]]:
    """Pair every override with our value."""
    return [(override, fill((override.value,), values)[0]) for override in overrides]


def override_words(overrides: tuple[Override, ...], values: Mapping[str, Setting]) -> Words:
    """Write the overrides of a command line: ``--option value``, ``--flag``, ``KEY value``."""
    words: list[str] = []
    for override, value in filled(overrides, values):
        if override.form == "yaml":
            continue
        if isinstance(override.upstream, bool) and override.form == "argparse":
            words += [override.key] if value == "true" else []
        else:
            words += [override.key, value]
    return tuple(words)


class Duration(NamedTuple):
    """How long a training is; None where nobody knows."""

    steps: int | None
    """In items, where the recipe counts epochs."""
    epochs: int | None
    seconds: float | None
    """After what was measured, on the card that is named."""
    card: str = ""


def duration(
    recipe: Recipe,
    values: Mapping[str, Setting],
    tier: MemoryTier | None,
    variant: str,
    items: int | None,
) -> Duration | None:
    """Work out the length from the settings and, for epochs, from the dataset's ``items``.

    UsageError where the end would not be saved.
    """
    length = recipe.length
    if length is None:
        return None
    total = sum(int(values[name]) for name in length.total)
    if length.multiple_of and total % int(values[length.multiple_of]):
        every = values[length.multiple_of]
        raise UsageError(
            f"{' + '.join(length.total)} is {total}, no multiple of {length.multiple_of} {every}",
            because=("upstream saves only then: the end of the training would be lost",),
            hint=f"--set {length.multiple_of}=1",
        )
    steps = total if length.unit == "step" else total * items if items else None
    epochs = total if length.unit == "epoch" else None
    rows = [row for row in tier.measured if row.variant == variant] if tier else []
    if steps is None or not rows:
        return Duration(steps, epochs, None)
    return Duration(steps, epochs, steps * rows[0].step_us / 1e6, rows[0].card)


def shorter_than(
    length: Duration | None, recipe: Recipe, asked: Mapping[str, str], memory_mib: int | None
) -> dict[str, int]:
    """Name the presets that do not follow the batch and are shorter, with their steps."""
    if length is None or length.steps is None or recipe.length is None:
        return {}
    found = {}
    for name, preset in recipe.presets.items():
        if not preset.stretch:
            values = settle(recipe, {}, {**asked, "preset": name}, memory_mib).values
            found[name] = sum(int(values[each]) for each in recipe.length.total)
    return {name: steps for name, steps in found.items() if steps < length.steps}
