"""What can be trained: recipe documents and the settings they offer."""

from __future__ import annotations

from envforge.recipes.document import LoadedRecipe, Recipe, Setting
from envforge.recipes.load import load_recipe, read_recipe, recipe_names
from envforge.recipes.setting import fill, settle

__all__ = [
    "LoadedRecipe",
    "Recipe",
    "Setting",
    "fill",
    "load_recipe",
    "read_recipe",
    "recipe_names",
    "settle",
]
