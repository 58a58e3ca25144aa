"""What ``--set`` asks of a run that goes on, against what has become of it since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from envforge.recipes import Recipe, Setting
from envforge.recipes.setting import read_setting
from envforge.training import RunRecord


class Wishes(NamedTuple):
    """The wishes of one command."""

    new: Mapping[str, str]
    """What is to be set."""
    asked: Mapping[str, Setting]
    """All that was ever asked of the run, the latest of each."""
    standing: tuple[str, ...] = ()
    """In words, what stays as it is although it is asked for."""


def read_wishes(recipe: Recipe, settings: Mapping[str, str], earlier: RunRecord | None) -> Wishes:
    """Tell new wishes from those that were there before an attempt had to give them up.

    The same command goes on with a run. Said again, a learning rate that has diverged, or a batch
    that has not fitted, is no wish to see that again. UsageError for a value of the wrong form.
    """
    texts = {name.replace("-", "_"): text for name, text in settings.items()}
    values = {name: _read(recipe, name, text) for name, text in texts.items()}
    if earlier is None:
        return Wishes(texts, values)
    given_up = [
        name
        for name, value in values.items()
        if name in earlier.settings and earlier.asked.get(name) == value != earlier.settings[name]
    ]
    return Wishes(
        {name: text for name, text in texts.items() if name not in given_up},
        {**earlier.asked, **values},
        tuple(_words(name, values[name], earlier.settings[name]) for name in given_up),
    )


def _read(recipe: Recipe, name: str, text: str) -> Setting:
    """A name that is no parameter's is judged by whoever settles."""
    parameter = recipe.parameters.get(name)
    return read_setting(name, parameter, text) if parameter else text


def _words(name: str, asked: Setting, now: Setting) -> str:
    return f"{name} stays {now}: earlier attempts gave up {asked}; any other value would change it"
