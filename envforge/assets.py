"""Where recipes, templates and patches lie: beside the package, or in a wheel inside it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_assets"
ROOT = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent

RECIPES = ROOT / "recipes"
TEMPLATES = ROOT / "templates"
PATCHES = ROOT / "patches"
BASE_DOCKERFILE = ROOT / "Dockerfile.base"
