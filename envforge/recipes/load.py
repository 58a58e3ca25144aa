"""Find a recipe by its name, or read one from a folder."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from envforge import assets, documents
from envforge.errors import DocumentError, UnknownName
from envforge.recipes.document import FILE, LoadedRecipe, Recipe
from envforge.recipes.faults import faults_of_form
from envforge.recipes.sense import faults_of_sense

VARIABLE = "ENVFORGE_RECIPES"
_SHARED = ("upstream", "variants", "datasets", "assets", "files")


def shelves(given: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """List the folders recipes are looked for in: the flag's, the variable's, the user's, ours."""
    named = tuple(Path(each) for each in os.environ.get(VARIABLE, "").split(os.pathsep) if each)
    return (*given, *named, platformdirs.user_data_path("envforge") / "recipes", assets.RECIPES)


def recipe_names(places: tuple[Path, ...] | None = None) -> tuple[str, ...]:
    """Name every recipe on the shelves (folders of recipe folders), sorted."""
    found = {path.parent.name for shelf in places or shelves() for path in shelf.glob(f"*/{FILE}")}
    return tuple(sorted(found))


def load_recipe(name_or_dir: str, places: tuple[Path, ...] | None = None) -> LoadedRecipe:
    """Read a recipe by name, or from a folder where a ``/`` says that it is one.

    UnknownName with near matches; DocumentError with every fault of the document.
    """
    if "/" in name_or_dir:
        return read_recipe(Path(name_or_dir))
    places = shelves() if places is None else places
    for shelf in places:
        if name_or_dir and (shelf / name_or_dir / FILE).is_file():
            found = read_recipe(shelf / name_or_dir)
            return found._replace(reference=name_or_dir) if shelf == assets.RECIPES else found
    names = recipe_names(places)
    near = difflib.get_close_matches(name_or_dir, names, n=3, cutoff=0.4)
    hint = f"there are: {', '.join(names)}; a folder is written with a slash, ./{name_or_dir}"
    raise UnknownName("recipe", name_or_dir, tuple(near), hint=hint)


def read_recipe(folder: Path) -> LoadedRecipe:
    """Read and check ``folder/recipe.yaml``; DocumentError with every fault."""
    path = folder / FILE
    document = documents.load_yaml(path)
    _refuse(path, tuple(_faults_of_sharing(document, folder)))
    shared = folder
    if isinstance(document, dict) and isinstance(document.get("shares"), str):
        shared = folder.parent / document["shares"]
        document = _with_shared(document, documents.load_yaml(shared / FILE))
    _refuse(path, tuple(faults_of_form(document, Recipe)))
    recipe = documents.convert(document, Recipe, str(path))
    _refuse(path, tuple(faults_of_sense(recipe, folder, shared)))
    return LoadedRecipe(recipe, folder.resolve(), str(folder.resolve()), shared.resolve())


def _faults_of_sharing(document: Any, folder: Path) -> Iterator[str]:
    """Yield why the recipe that is shared with cannot be: it lies beside, and shares no further."""
    named = document.get("shares") if isinstance(document, dict) else None
    if not isinstance(named, str):
        return
    if "files" in document:
        yield f"files: those of {named} are taken"
    theirs = folder.parent / named / FILE
    if "/" in named or not theirs.is_file():
        yield f"shares: there is no recipe {named!r} beside this one"
    elif isinstance(other := documents.load_yaml(theirs), dict) and "shares" in other:
        yield f"shares: {named} shares with another one itself"


def _with_shared(own: dict[str, Any], other: Any) -> dict[str, Any]:
    """Take what is shared from ``other``; an own key wins, down to those of a variant."""
    shared = {key: other[key] for key in _SHARED if key in other} if isinstance(other, dict) else {}
    return {**own, **_merged(shared, {key: own[key] for key in shared if key in own}, depth=3)}


def _merged(theirs: Any, own: Any, depth: int) -> Any:
    if depth == 0 or not isinstance(theirs, dict) or not isinstance(own, dict):
        return own
    both = {key: _merged(theirs[key], own[key], depth - 1) for key in theirs if key in own}
    return {**theirs, **own, **both}


def _refuse(path: Path, faults: tuple[str, ...]) -> None:
    if faults:
        plural = "s" if len(faults) > 1 else ""
        raise DocumentError(f"{path} has {len(faults)} fault{plural}", because=faults)
