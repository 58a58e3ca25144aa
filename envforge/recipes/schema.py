"""The published JSON schema of ``recipe.yaml``, made from the records that read it.

python -m envforge.recipes.schema > docs/schemas/recipe-1.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from envforge.recipes.document import Recipe


def recipe_schema() -> Any:
    """Return the schema, JSON Schema 2020-12."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "envforge recipe"}
    return json.loads(json.dumps({**made, **msgspec.json.schema(Recipe)}))  # tuples as lists


if __name__ == "__main__":
    sys.stdout.write(json.dumps(recipe_schema(), indent=2) + "\n")
