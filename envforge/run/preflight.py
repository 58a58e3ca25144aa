"""What this machine must have before hours are spent."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

from envforge.errors import HostMismatch
from envforge.recipes import Recipe
from envforge.run.request import On

_SPARE = 2
"""One checkpoint that is being written, and one that is protected."""


def refuse_small_disk(recipe: Recipe, run_dir: Path) -> None:
    """HostMismatch where the checkpoints that are kept do not fit."""
    rule = recipe.checkpoint
    if rule is None:
        return
    needed = (rule.keep + _SPARE) * rule.size_mib
    free = shutil.disk_usage(run_dir).free // 2**20
    if free < needed:
        raise HostMismatch(
            f"too little disk for the checkpoints of {recipe.name}",
            because=(
                f"{free} MiB are free in {run_dir}, {needed} MiB are needed",
                f"{rule.keep} are kept, {rule.size_mib} MiB each, and {_SPARE} come and go",
            ),
            hint="give a --run-dir on another disk",
        )


def refuse_too_few_files(recipe: Recipe, on: On) -> None:
    """Raise this process's limit, which a local training inherits; HostMismatch where it is low."""
    if on != "local":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= recipe.open_files or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < recipe.open_files:
        raise HostMismatch(
            f"{recipe.name} needs {recipe.open_files} open files, the limit is {hard}",
            hint="raise it: /etc/security/limits.conf, or ulimit -Hn as root",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (recipe.open_files, hard))
