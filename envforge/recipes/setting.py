"""A recipe's parameters: defaults, ``--set KEY=VALUE``, and the command they fill."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping

from envforge.errors import UnknownName, UsageError
from envforge.recipes.document import Parameter, Recipe, Setting

PLACES = ("python", "recipe", "run_dir", "device")
"""What envforge itself fills into a command."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[\w./:+,@%=-]*\Z", re.ASCII)


def placeholders(word: str) -> list[str]:
    """Name what ``word`` of a command leaves to be filled in."""
    return _PLACEHOLDER.findall(word)


def settle(
    recipe: Recipe, earlier: Mapping[str, Setting], asked: Mapping[str, str]
) -> dict[str, Setting]:
    """Decide every parameter: its default, what ``earlier`` attempts had, what is ``asked`` now.

    A dash in a key stands for an underscore. UnknownName with near matches for a key the recipe
    does not have, UsageError for a value of the wrong form.
    """
    settings = {
        name: read_setting(name, parameter, str(parameter.default))
        for name, parameter in recipe.parameters.items()
    }
    settings.update({name: value for name, value in earlier.items() if name in settings})
    for key, text in asked.items():
        name = key.replace("-", "_")
        if name not in recipe.parameters:
            near = difflib.get_close_matches(name, recipe.parameters, n=3)
            hint = f"{recipe.name} has: {', '.join(recipe.parameters)}"
            raise UnknownName("setting", key, tuple(near), hint=hint)
        settings[name] = read_setting(name, recipe.parameters[name], text)
    return settings


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


_READERS: dict[str, Callable[[str], Setting]] = {
    "integer": _integer,
    "number": _number,
    "word": _word,
}


def _article(kind: str) -> str:
    return "an integer" if kind == "integer" else f"a {kind}"


def fill(command: tuple[str, ...], values: Mapping[str, Setting]) -> tuple[str, ...]:
    """Fill a checked command's placeholders; a value is never looked into for further ones."""
    return tuple(_PLACEHOLDER.sub(lambda found: str(values[found[1]]), word) for word in command)
