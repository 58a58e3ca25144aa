"""Pin the Python packages of a recipe's upstream, as the package index stood at its commit's date.

    python scripts/pin_recipe.py FILE TAG TORCH DATE PROJECT...
    python scripts/pin_recipe.py recipes/pix2pix-train/packages/2019-11.yaml \
        cp37-cp37m '>=1.0,<1.2' 2019-11-21 torchvision==0.2.1 pillow six dominate

A project without a version gets the newest wheel of before the date; one with ``==`` that very one,
yanked or not. Rewrites the row of the tag and torch range in FILE; the others stay.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from pin_requirements import before, exactly, row_of

from envforge.documents import parse_yaml

HEADER = """# Packages that upstream imports, each file by hash, as the index stood at a date.
# Written by scripts/pin_recipe.py.
"""


def pinned(requirement: Requirement, tag: str, as_of: date) -> dict[str, Any]:
    wanted = next((each.version for each in requirement.specifier), None)
    accepts = exactly(wanted) if wanted else before(as_of)
    return row_of(requirement.name, tag, accepts, yanked=wanted is not None)


def main(arguments: list[str]) -> None:
    path, tag, torch, day, *projects = arguments
    as_of = date.fromisoformat(day)
    rows = [pinned(Requirement(each), tag, as_of) for each in projects]
    target = Path(path)
    known = (
        parse_yaml(target.read_text(encoding="utf-8"), path)["packages"] if target.exists() else []
    )
    kept = [row for row in known if (row["tag"], row["torch"]) != (tag, torch)]
    source = "Python package index metadata; this repository's scripts/pin_recipe.py"
    new = {"tag": tag, "torch": torch, "as_of": day, "rows": rows, "source": source}
    ordered = sorted([*kept, new], key=lambda row: (row["torch"], row["tag"]))
    text = yaml.safe_dump({"packages": ordered}, sort_keys=False, width=100)
    target.write_text(HEADER + text, encoding="utf-8")
    print(tag, torch, [f"{row['project']}=={row['version']}" for row in rows])


if __name__ == "__main__":
    main(sys.argv[1:])
