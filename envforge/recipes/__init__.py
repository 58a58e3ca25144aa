"""What can be trained: recipe documents and the settings they offer."""

from __future__ import annotations

from envforge.recipes.document import LoadedRecipe, Recipe, Setting
from envforge.recipes.load import load_recipe, read_recipe, recipe_names, shelves
from envforge.recipes.setting import fill, settle
from envforge.recipes.variant import choose, find_variant, variant_for

__all__ = [
    "LoadedRecipe",
    "Recipe",
    "Setting",
    "choose",
    "fill",
    "find_variant",
    "load_recipe",
    "read_recipe",
    "recipe_names",
    "settle",
    "shelves",
    "variant_for",
]
