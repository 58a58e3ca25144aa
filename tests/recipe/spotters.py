"""MaskTextSpotter in miniature: the shipped recipe of its training, with the tests' own upstream.

Its Python has the real one's patch sites for today's torch, its configuration the real values, its
lines are captured ones (`miniature/captured/spotter.train.txt`). There is no C++ in it.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from miniatures import HERE, Miniature, first_lines, git

from envforge import assets

RECIPE = "masktextspotter-train"
KINDS = {
    "start": r"^.* Start training$",
    "progress": r"^.*  iter: \d+  loss: .*$",
    "saving": r"^.* Saving checkpoint to \S+$",
    "loading": r"^.* Loading checkpoint from \S+$",
    "optimizer": r"^.* Loading optimizer from \S+$",
    "scheduler": r"^.* Loading scheduler from \S+$",
    "done": r"^.* Total training time: .*$",
}
OF_CUDA = ("extension-without-thc", "extension-for-todays-tensor")


def make_spotter(folder: Path) -> Miniature:
    """Make the repository, with one commit for the variant ``modern``, and the recipe."""
    made = Miniature(repository=folder / "upstream", recipes=folder / "recipes")
    shutil.copytree(assets.RECIPES / RECIPE, made.recipes / RECIPE)
    shutil.copytree(HERE / "spotter", made.repository)
    text = (HERE / "captured" / "spotter.train.txt").read_text()
    (made.repository / "said.json").write_text(json.dumps(first_lines(text, KINDS)))
    git(made.repository, "init", "-q", "-b", "main")
    commit(made)
    return made


def commit(made: Miniature) -> None:
    """Commit what lies there, and let the recipe's variant be that commit."""
    git(made.repository, "add", "-A")
    git(made.repository, "commit", "-q", "-m", "modern")
    head = git(made.repository, "rev-parse", "HEAD").strip()
    path = made.recipes / RECIPE / "recipe.yaml"
    before, variant, after = path.read_text().partition("  modern:\n")
    after, found = re.subn(r"(    commit: )[0-9a-f]{40}", rf"\g<1>{head}", after, count=1)
    assert found == 1
    for patch in OF_CUDA:
        after = after.replace(f"      - {patch}\n", "", 1)
    before = re.sub(r"modules: &modules \[.*\]", "modules: &modules [PIL, numpy]", before)
    path.write_text(before + variant + after)
