"""The plans of ``cases/plans.yaml``, decided and rendered as ``envforge build --dry-run`` does it.

As a program it writes one context a plan below a folder, for tests that must not import envforge:

    python tests/plan_contexts.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import yaml

from envforge.build import BuildRequest, Prepared, prepare
from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.image.render import write_context
from envforge.resolver import Request

HERE = Path(__file__).parent
CASES = yaml.safe_load((HERE / "cases/plans.yaml").read_text(encoding="utf-8"))["plans"]
PLANS = [case for case in CASES if "route" in case["expect"]]
REFUSALS = [case for case in CASES if "route" not in case["expect"]]


def prepared(case: dict, scratch: Path) -> Prepared:
    """Decide and render one case; a tree of the user's own is made below ``scratch``."""
    asked = dict(case["ask"])
    gpu, until = asked.pop("gpu", None), asked.pop("until", "runtime")
    profile = asked.pop("profile", None)
    source = local_tree(scratch / "tree") if asked.pop("tree", None) else None
    database = load()
    card = find_card(database, gpu) if gpu else None
    wanted = BuildRequest(Request(card=card, **asked), until, profile=profile, source=source)
    return prepare(database, wanted)


def local_tree(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "setup.py").write_text("print('a tree of the user')\n", encoding="utf-8")
    return folder


def main() -> None:
    target = Path(sys.argv[1])
    os.environ["XDG_CACHE_HOME"] = str(target / "cache")
    for case in PLANS:
        folder = target / case["name"]
        folder.mkdir()
        write_context(prepared(case, target).context, folder)


if __name__ == "__main__":
    main()
