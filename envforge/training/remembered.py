"""What worked: the settings with which a recipe fitted a card, for the next run of both.

One small JSON file of the user's state (XDG), replaced as a whole under a lock. A file that cannot
be read counts as empty: it only saves a few deaths.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from filelock import FileLock
from platformdirs import user_state_path

from envforge import documents
from envforge.errors import DocumentError
from envforge.recipes.document import Setting

NAME = "remembered.json"


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """The file: ``recipe on card`` -> settings."""

    schema: str = "envforge.remembered/1"
    settings: dict[str, dict[str, int | float | str]] = {}


def state_folder() -> Path:
    """Find the folder; ``ENVFORGE_STATE`` names another."""
    chosen = os.environ.get("ENVFORGE_STATE")
    return Path(chosen) if chosen else user_state_path("envforge")


def recall(recipe: str, card: str, folder: Path | None = None) -> dict[str, Setting]:
    """Return what has worked for this recipe on this card; nothing where nobody knows."""
    return dict(_read(folder or state_folder()).settings.get(_key(recipe, card), {}))


def remember(
    recipe: str, card: str, settings: Mapping[str, Setting], folder: Path | None = None
) -> None:
    """Keep what has worked; an older answer for the same card is replaced."""
    folder = folder or state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{NAME}.lock"):
        known = {**_read(folder).settings, _key(recipe, card): dict(settings)}
        text = documents.to_json(Remembered(settings=known))
        documents.write_atomically(folder / NAME, text.encode())


def _key(recipe: str, card: str) -> str:
    return f"{recipe} on {card}"


def _read(folder: Path) -> Remembered:
    try:
        return documents.load_json(folder / NAME, Remembered)
    except DocumentError:
        return Remembered()
