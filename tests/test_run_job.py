"""The job of one attempt: from which checkpoint, with which words."""

from __future__ import annotations

import pytest

from envforge.recipes import choose, load_recipe, settle
from envforge.run.job import before_the_end, written_file
from envforge.training import find_saved

RECIPE = choose(load_recipe("pix2pix-train").recipe, "2019-11")


@pytest.mark.parametrize(
    ("there", "epochs", "chosen"),
    [
        ((5, 10), 20, "10"),
        ((5, 10), 10, "5"),
        ((10,), 10, None),
        ((5, 10, 15), 10, "5"),
    ],
)
def test_a_run_goes_on_from_a_checkpoint_that_leaves_something_to_do(
    tmp_path, there, epochs, chosen
):
    folder = tmp_path / "checkpoints/run"
    folder.mkdir(parents=True)
    for number in there:
        for name in "GD":
            (folder / f"{number}_net_{name}.pth").write_text("x")
    settings = settle(RECIPE, {}, {"epochs": str(epochs), "decay_epochs": "0"}).values
    newest = find_saved(tmp_path, RECIPE.checkpoints, RECIPE.checkpoint)[0]
    found = before_the_end(RECIPE, settings, newest, tmp_path)
    assert (found.number if found else None) == chosen


def test_a_fresh_start_stays_one_and_other_recipes_are_left_alone(tmp_path):
    settings = settle(RECIPE, {}, {}).values
    assert before_the_end(RECIPE, settings, None, tmp_path) is None
    spotter = choose(load_recipe("masktextspotter-train").recipe, "2021-01")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/model_0300000.pth").write_text("x")
    newest = find_saved(tmp_path, spotter.checkpoints, spotter.checkpoint)[0]
    assert before_the_end(spotter, settle(spotter, {}, {}).values, newest, tmp_path) is newest


def test_the_file_of_a_success_has_the_settings_in_its_name():
    recipe = choose(load_recipe("pix2pix-test").recipe, "2019-11")
    asked = settle(recipe, {}, {"phase": "val", "epoch": "20"}).values
    assert written_file(recipe, asked) == "results/run/val_20/index.html"
    assert written_file(load_recipe("canary").recipe, {}) is None
