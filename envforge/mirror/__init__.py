"""Keep all that a plan or a recipe needs in one directory, for years and without a network."""

from __future__ import annotations

from envforge.build import BuildRequest, prepare
from envforge.mirror.chosen import choose, drop, replay
from envforge.mirror.plan import Created, create_plan

__all__ = ["BuildRequest", "Created", "choose", "create_plan", "drop", "prepare", "replay"]
