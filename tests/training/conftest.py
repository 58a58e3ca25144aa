from __future__ import annotations

import sys
from pathlib import Path

import pytest

from envforge.events import Event
from envforge.recipes import read_recipe
from envforge.run.job import patterns_of
from envforge.training import Job, Result, new_id

TOY = Path(__file__).parent / "toy"


@pytest.fixture
def events() -> list[Event]:
    """What was told on the way; its ``append`` is an ``on_event``."""
    return []


@pytest.fixture
def toy_job(tmp_path):
    """Make a job of the toy training, with a habit."""

    def make(habit="good", *, steps=20, delay=0.005, run_id=None, **changes):
        recipe = read_recipe(TOY).recipe
        run_dir = tmp_path / "run"
        run_dir.mkdir(exist_ok=True)
        script = str(TOY / "files" / "toy.py")
        values = {
            "run_id": run_id or new_id(),
            "argv": (sys.executable, script, str(run_dir), str(steps), str(delay), habit, "cpu"),
            "run_dir": run_dir,
            "python": sys.executable,
            "files": TOY / "files",
            "patterns": patterns_of(recipe),
            "result": Result(file="toy.json", field="passed", equals=True),
            "checkpoints": recipe.checkpoints,
            "exit_reasons": recipe.exit_codes,
            "stop_wait_s": 2,
        }
        return Job(**{**values, **changes})

    return make
