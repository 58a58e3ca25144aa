"""A recipe's parameters: defaults, ``--set KEY=VALUE``, and the command they fill."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from envforge.errors import UnknownName, UsageError
from envforge.recipes.document import Parameter, Recipe, Rescale, Setting, Words
from envforge.recipes.memory import tier_for

PLACES = (
    "python",
    "recipe",
    "run_dir",
    "device",
    "checkout",
    "data",
    "assets",
    "from",
)
"""What envforge itself fills into a command."""
WIDE = ("overrides", "resume", "on_device")
"""What stands for any number of words."""
RESERVED = ("variant", "preset", "dataset", "tier")
"""Settings of a run that are no parameters: names of parts of the recipe."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[\w./:+,@%=-]*\Z", re.ASCII)


def placeholders(word: str) -> list[str]:
    """Name what ``word`` of a command leaves to be filled in."""
    return _PLACEHOLDER.findall(word)


class Settled(NamedTuple):
    """Every parameter's value and, for those that are not its default, where it comes from."""

    values: dict[str, Setting]
    origins: dict[str, str]


def settle(
    recipe: Recipe,
    earlier: Mapping[str, Setting],
    asked: Mapping[str, str],
    memory_mib: int | None = None,
    *,
    demo: bool = False,
) -> Settled:
    """Decide every parameter: default, dataset, preset, ``earlier`` attempts, tier, ``asked`` now.

    What follows the batch is rescaled with it, unless somebody set it. A dash in a key stands for
    an underscore. UnknownName with near matches for a key the recipe does not have, UsageError for
    a value of the wrong form.
    """
    wanted = {key.replace("-", "_"): text for key, text in asked.items()}
    _refuse_unknown(recipe, wanted)
    names = _parts(recipe, earlier, wanted)
    preset = recipe.presets.get(str(names.get("preset", "")))
    tier = tier_for(recipe, memory_mib)
    if tier:
        names["tier"] = tier.memory
    base = _Layers({name: str(each.default) for name, each in recipe.parameters.items()})
    if dataset := recipe.datasets.get(str(names.get("dataset", ""))):
        base.add(_known(dataset.set, recipe), f"{names['dataset']}: {dataset.help}")
        base.add(_known(dataset.demo_set, recipe) if demo else {}, "a demo of a minute")
    if preset:
        base.add(preset.set, f"preset {names['preset']}: {preset.help}")
    base.add(_known(earlier, recipe), "as before")
    now = base.copy()
    if tier and earlier.get("tier") != tier.memory:
        now.add(tier.set, f"{tier.memory}: {tier.why}")
    now.add(_known(wanted, recipe), "asked for")
    values, origins = _read(recipe, now)
    if recipe.rescale:
        before, _ = _read(recipe, base)
        kept = {*wanted, *(tier.set if tier and earlier.get("tier") != tier.memory else ())}
        stretch = preset is None or preset.stretch
        origins = {**origins, **_rescale(recipe.rescale, before, values, kept, stretch=stretch)}
    return Settled({**names, **values}, origins)


def _known(values: Mapping[str, Setting], recipe: Recipe) -> dict[str, Setting]:
    """Leave out what is no parameter: earlier settings' other names, another recipe's dataset."""
    return {name: value for name, value in values.items() if name in recipe.parameters}


class _Layers:
    """Values with where each was set last."""

    def __init__(self, values: Mapping[str, Setting]) -> None:
        self.values = dict(values)
        self.origins: dict[str, str] = {}

    def add(self, values: Mapping[str, Setting], origin: str) -> None:
        for name, value in values.items():
            if str(self.values.get(name)) != str(value):
                self.origins[name] = origin
            self.values[name] = value

    def copy(self) -> _Layers:
        twin = _Layers(self.values)
        twin.origins = dict(self.origins)
        return twin


def _read(recipe: Recipe, layers: _Layers) -> tuple[dict[str, Setting], dict[str, str]]:
    values = {
        name: read_setting(name, parameter, str(layers.values[name]))
        for name, parameter in recipe.parameters.items()
    }
    return values, layers.origins


def _refuse_unknown(recipe: Recipe, wanted: Mapping[str, str]) -> None:
    known = [*recipe.parameters, *(each for each in RESERVED if each != "tier")]
    for key in wanted:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3)
            hint = f"{recipe.name} has: {', '.join(recipe.parameters)}"
            raise UnknownName("setting", key, tuple(near), hint=hint)


def _parts(
    recipe: Recipe, earlier: Mapping[str, Setting], wanted: Mapping[str, str]
) -> dict[str, Setting]:
    """Find the parts of the recipe that are asked for by name; the first dataset is the default."""
    parts: dict[str, Mapping[str, object]] = {
        "variant": recipe.variants,
        "preset": recipe.presets,
        "dataset": recipe.datasets,
    }
    chosen: dict[str, Setting] = {}
    for kind, there in parts.items():
        name = wanted.get(kind) or earlier.get(kind)
        if name is None and kind == "dataset" and there:
            name = next(iter(there))
        if name is None:
            continue
        if name not in there:
            near = difflib.get_close_matches(str(name), there, n=3)
            hint = f"{recipe.name} has: {', '.join(there) or 'none'}"
            raise UnknownName(kind, str(name), tuple(near), hint=hint)
        chosen[kind] = name
    return chosen


def _rescale(
    rule: Rescale,
    before: Mapping[str, Setting],
    values: dict[str, Setting],
    kept: set[str],
    *,
    stretch: bool,
) -> dict[str, str]:
    """Let what follows the batch follow it; ``kept``: what a tier or the user has set.

    Changes ``values``; returns where the new ones come from.
    """
    old, new = float(before[rule.batch]), float(values[rule.batch])
    if old == new:
        return {}
    follow = dict.fromkeys(rule.linear, new / old)
    if stretch:
        follow |= dict.fromkeys(rule.inverse, old / new)
    followed = [name for name in follow if name not in kept]
    for name in followed:
        scaled = float(values[name]) * follow[name]
        values[name] = round(scaled) if isinstance(values[name], int) else scaled
    return dict.fromkeys(followed, f"rescaled with {rule.batch} {old:g} -> {new:g}")


def read_setting(name: str, parameter: Parameter, text: str) -> Setting:
    """Read ``text`` as the parameter's kind and check its bounds; UsageError in words."""
    try:
        value = _READERS[parameter.kind](text)
    except ValueError:
        raise UsageError(f"{name} must be {_article(parameter.kind)}, got {text!r}") from None
    if parameter.choices and value not in parameter.choices:
        raise UsageError(f"{name} must be one of {', '.join(parameter.choices)}, got {text!r}")
    if not isinstance(value, str):
        if parameter.minimum is not None and value < parameter.minimum:
            raise UsageError(f"{name} must be at least {parameter.minimum}, got {text}")
        if parameter.maximum is not None and value > parameter.maximum:
            raise UsageError(f"{name} must be at most {parameter.maximum}, got {text}")
    return value


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _word(text: str) -> str:
    """No shell ever sees a word, and still: metacharacters are refused at the door."""
    if not _WORD.match(text):
        raise ValueError(text)
    return text


def _switch(text: str) -> str:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text


_READERS: dict[str, Callable[[str], Setting]] = {
    "integer": _integer,
    "number": _number,
    "word": _word,
    "switch": _switch,
}


def _article(kind: str) -> str:
    words = {"integer": "an integer", "switch": "true or false"}
    return words.get(kind, f"a {kind}")


def fill(
    command: Words, values: Mapping[str, Setting], wide: Mapping[str, Words] = MappingProxyType({})
) -> Words:
    """Fill a checked command's placeholders; a value is never looked into for further ones.

    A word that is nothing but a placeholder of ``wide`` becomes as many words as stand for it.
    """
    filled: list[str] = []
    for word in command:
        found = _PLACEHOLDER.fullmatch(word)
        if found and found[1] in wide:
            filled += wide[found[1]]
        else:
            filled.append(_PLACEHOLDER.sub(lambda each: str(values[each[1]]), word))
    return tuple(filled)
