"""Find a recipe by its name, or read one from a folder."""

from __future__ import annotations

import difflib
from pathlib import Path

from envforge import assets, documents
from envforge.errors import DocumentError, UnknownName
from envforge.recipes.document import FILE, LoadedRecipe, Recipe
from envforge.recipes.faults import faults_of_form, faults_of_sense

SHIPPED = (assets.RECIPES,)


def recipe_names(shelves: tuple[Path, ...] = SHIPPED) -> tuple[str, ...]:
    """Name every recipe on the shelves (folders of recipe folders), sorted."""
    found = {path.parent.name for shelf in shelves for path in shelf.glob(f"*/{FILE}")}
    return tuple(sorted(found))


def load_recipe(name_or_dir: str, shelves: tuple[Path, ...] = SHIPPED) -> LoadedRecipe:
    """Read a recipe by name, or from a folder where a ``/`` says that it is one.

    UnknownName with near matches; DocumentError with every fault of the document.
    """
    if "/" in name_or_dir:
        return read_recipe(Path(name_or_dir))
    for shelf in shelves:
        if name_or_dir and (shelf / name_or_dir / FILE).is_file():
            return read_recipe(shelf / name_or_dir)._replace(reference=name_or_dir)
    names = recipe_names(shelves)
    near = difflib.get_close_matches(name_or_dir, names, n=3, cutoff=0.4)
    hint = f"there are: {', '.join(names)}; a folder is written with a slash, ./{name_or_dir}"
    raise UnknownName("recipe", name_or_dir, tuple(near), hint=hint)


def read_recipe(folder: Path) -> LoadedRecipe:
    """Read and check ``folder/recipe.yaml``; DocumentError with every fault."""
    path = folder / FILE
    document = _plain(path)
    _refuse(path, tuple(faults_of_form(document, Recipe)))
    recipe = documents.convert(document, Recipe, str(path))
    _refuse(path, tuple(faults_of_sense(recipe, folder)))
    return LoadedRecipe(recipe, folder.resolve(), str(folder.resolve()))


def _plain(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"cannot read {path}", because=(str(error),)) from error
    return documents.parse_yaml(text, str(path))


def _refuse(path: Path, faults: tuple[str, ...]) -> None:
    if faults:
        plural = "s" if len(faults) > 1 else ""
        raise DocumentError(f"{path} has {len(faults)} fault{plural}", because=faults)
