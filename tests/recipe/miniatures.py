"""Upstream in miniature: the shipped Pix2Pix recipes, with a repository of the tests' own.

Options, defaults, patch sites and habits are the real projects'; the lines it prints are bytes
captured from them (`miniature/captured`), with other numbers in them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from envforge import assets

HERE = Path(__file__).parent / "miniature"
VARIANTS = ("2017-11", "2019-11", "2025-08")
KINDS = {
    "items": r"^.*training images = \d+$",
    "progress": r"^(?:\[Rank \d+\] )?\(epoch: .*$",
    "saving": r"^saving the model at the end of epoch .*$",
    "end": r"^End of epoch .*$",
    "picture": r"^process(?:ing \(\d+\)-th)? image\.\.\. .*$",
}
_SIGNED = {
    "GIT_AUTHOR_NAME": "nobody",
    "GIT_AUTHOR_EMAIL": "nobody@invalid",
    "GIT_COMMITTER_NAME": "nobody",
    "GIT_COMMITTER_EMAIL": "nobody@invalid",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def captured(variant: str) -> dict[str, str]:
    """The first line of each kind that the real project has said."""
    text = "".join(
        (HERE / "captured" / f"{variant}.{part}.txt").read_text() for part in ("train", "test")
    )
    return first_lines(text, KINDS)


def first_lines(text: str, kinds: dict[str, str]) -> dict[str, str]:
    return {
        kind: found[0]
        for kind, form in kinds.items()
        if (found := re.search(form, text, re.MULTILINE))
    }


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """A repository with one commit a variant, and recipes that name those commits."""

    repository: Path
    recipes: Path

    @property
    def train(self) -> Path:
        return self.recipes / "pix2pix-train"

    @property
    def test(self) -> Path:
        return self.recipes / "pix2pix-test"

    def edit(self, variant: str, file: str, old: str, new: str) -> None:
        """Let upstream have another text at this variant's commit."""
        git(self.repository, "checkout", "-q", variant)
        path = self.repository / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        git(self.repository, "commit", "-q", "-a", "-m", "changed")
        name_commits(self)

    def run(
        self, recipe: Path, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "envforge", "run", f"{recipe}", "--json", *arguments]
        return subprocess.run(
            command,
            cwd=self.recipes.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )


def make(folder: Path) -> Miniature:
    """Make the repository and the recipes in ``folder``; beside torch it needs Pillow alone."""
    made = Miniature(repository=folder / "upstream", recipes=folder / "recipes")
    for recipe in ("pix2pix-train", "pix2pix-test"):
        shutil.copytree(assets.RECIPES / recipe, made.recipes / recipe)
    made.repository.mkdir()
    git(made.repository, "init", "-q", "-b", "main")
    git(made.repository, "commit", "-q", "--allow-empty", "-m", "nothing")
    for variant in VARIANTS:
        git(made.repository, "checkout", "-q", "-b", variant, "main")
        shutil.copytree(HERE / "shared", made.repository, dirs_exist_ok=True)
        shutil.copytree(HERE / variant, made.repository, dirs_exist_ok=True)
        (made.repository / "said.json").write_text(json.dumps(captured(variant)))
        git(made.repository, "add", "-A")
        git(made.repository, "commit", "-q", "-m", variant)
    change_recipe(made, "modules: [torchvision, PIL, numpy, dominate]", "modules: [PIL]")
    name_commits(made)
    return made


def name_commits(made: Miniature) -> None:
    """Write the repository's commits into the recipe, in the order of its variants."""
    path = made.train / "recipe.yaml"
    for name in VARIANTS:
        commit = git(made.repository, "rev-parse", name).strip()
        form = rf'(  "{name}":\n    commit: )[0-9a-f]{{40}}'
        text, found = re.subn(form, rf"\g<1>{commit}", path.read_text())
        assert found == 1
        path.write_text(text)


def change_recipe(made: Miniature, old: str, new: str) -> None:
    """Change every place of the shipped training recipe that reads so."""
    path = made.train / "recipe.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **_SIGNED},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
