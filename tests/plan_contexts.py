"""The plans of ``cases/plans.yaml``, decided and rendered as ``envforge build --dry-run`` does it.

As a program it writes one context a plan below a folder, for tests that must not import envforge:

    python tests/plan_contexts.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import yaml

from envforge.build import BuildRequest, Prepared, prepare
from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.capability.profiles import SourceArchive
from envforge.image.plan import Plan
from envforge.resolver import Request
from envforge.sources.git import GitTree

HERE = Path(__file__).parent
DATABASE = load()
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CASES = yaml.load((HERE / "cases/plans.yaml").read_text(encoding="utf-8"), LOADER)["plans"]
PLANS = [case for case in CASES if "route" in case["expect"]]
REFUSALS = [case for case in CASES if "route" not in case["expect"]]


def prepared(case: dict, scratch: Path) -> Prepared:
    """Decide and render one case; a tree of the user's own is made below ``scratch``."""
    asked = dict(case["ask"])
    gpu, until = asked.pop("gpu", None), asked.pop("until", "runtime")
    profile, cudnn = asked.pop("profile", None), asked.pop("cudnn", None)
    source = local_tree(scratch / "tree") if asked.pop("tree", None) else None
    card = find_card(DATABASE, gpu) if gpu else None
    request = Request(card=card, **asked)
    wanted = BuildRequest(request, until, profile=profile, source=source, cudnn=cudnn)
    return prepare(DATABASE, wanted)


def local_tree(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "setup.py").write_text("print('a tree of the user')\n", encoding="utf-8")
    return folder


def fetched(plan: Plan) -> dict:
    """What the build would fetch, which no file of a context says: addresses and submodules."""
    if plan.source is None:
        return {}
    tree, runfile = plan.source.tree.origin, plan.source.runfile
    vision, built = plan.source.torchvision, plan.source.python
    addresses = {
        "python": {"url": built.source.url, "pool": built.source.pool} if built else None,
        "runfile": runfile.url if runfile else None,
        "torchvision": {"url": vision.url, "pool": vision.pool} if vision else None,
    }
    if isinstance(tree, GitTree):
        modules = [module._asdict() for module in tree.submodules or ()]
        addresses |= {"urls": tree.urls, "tag": tree.tag, "commit": tree.commit}
        addresses |= {"submodules": modules}
    elif isinstance(tree, SourceArchive):
        addresses |= {"path": tree.path, "size_bytes": tree.size_bytes}
    return addresses


def main() -> None:
    target = Path(sys.argv[1])
    os.environ["XDG_CACHE_HOME"] = str(target / "cache")
    for case in PLANS:
        folder = target / case["name"]
        folder.mkdir()
        found = prepared(case, target)
        for name, data in found.context.files.items():
            (folder / name).write_bytes(data)
        (folder / "fetched.json").write_text(json.dumps(fetched(found.plan)), encoding="utf-8")


if __name__ == "__main__":
    main()
