"""Decisions, without a process: what follows which death."""

from __future__ import annotations

from pathlib import Path

import pytest

from envforge.recipes.document import Rescale
from envforge.recipes.ladder import Divergence, Ladder, LadderStep
from envforge.training.checkpoints import Saved, Scaling
from envforge.training.ladder import Move, followed, memory_settings, next_move, owed
from envforge.training.record import Attempt

LADDER = Ladder(
    steps={
        "gpu-oom": (
            LadderStep(at_most={"batch": 4}, why="half the images"),
            LadderStep(at_most={"batch": 1, "side": 600}, why="smaller images"),
        ),
        "shm": (LadderStep(set={"workers": 0}, why="no workers"),),
    },
    retries={"crash": 2, "diverged": 2, "gpu-oom": 1},
    divergence=Divergence(rate_factor="0.25", rates=("rate",)),
)
SETTINGS = {"batch": 8, "side": 800, "workers": 2, "rate": 0.4, "name": "x"}


def died(*reasons, checkpoint="step-5"):
    return [
        Attempt(started="2026-11-22T15:35:00Z", reason=reason, checkpoint=checkpoint)
        for reason in reasons
    ]


def test_the_first_step_that_changes_something_is_taken():
    move = next_move(LADDER, SETTINGS, died("gpu-oom"))
    assert move == Move({**SETTINGS, "batch": 4}, "after gpu-oom: half the images")


def test_a_step_below_which_the_user_already_is_is_passed_over():
    move = next_move(LADDER, {**SETTINGS, "batch": 2}, died("gpu-oom"))
    assert move.settings == {**SETTINGS, "batch": 1, "side": 600}
    assert next_move(LADDER, {**SETTINGS, "batch": 2, "side": 500}, died("gpu-oom")).settings == {
        **SETTINGS, "batch": 1, "side": 500
    }  # fmt: skip


def test_after_the_last_step_it_is_tried_again_as_often_as_allowed():
    least = {**SETTINGS, "batch": 1, "side": 600}
    assert next_move(LADDER, least, died("gpu-oom")).why == "after gpu-oom, try 1 of 1"
    assert next_move(LADDER, least, died("gpu-oom", "gpu-oom")) is None


def test_a_setting_may_be_replaced():
    assert next_move(LADDER, SETTINGS, died("shm")).settings["workers"] == 0
    assert next_move(LADDER, {**SETTINGS, "workers": 0}, died("shm")) is None


def went_on(checkpoint, rate_factor=None, stretch=None):
    return Attempt(started="2026-11-22T15:35:00Z", reason="diverged", from_checkpoint=checkpoint,
                   rate_factor=rate_factor, stretch=stretch)  # fmt: skip


def saved(number):
    return Saved(number, (Path(f"model_{number}.pth"),))


def test_an_older_checkpoint_is_owed_what_newer_ones_were_changed_by():
    attempts = [
        went_on("c/model_0000500.pth", 0.1),  # before the start from nothing: none is left of it
        went_on(None),
        went_on("c/model_0000010.pth", 0.5),
        went_on("c/model_0000090.pth", 0.5, 2.0),
        went_on("c/model_0000095.pth"),
        went_on("c/model_0000080.pth", 0.5),
    ]
    assert owed(attempts, saved("0000085"), in_steps=True) == (
        Scaling(0.5, 90, 2.0), Scaling(1.0, 95, 1.0)
    )  # fmt: skip
    assert owed(attempts, saved("0000080"), in_steps=False) == (
        Scaling(0.5, 0, 2.0), Scaling(1.0, 0, 1.0)
    )  # fmt: skip
    assert owed(attempts, saved("0000095"), in_steps=True) == ()
    assert len(owed(attempts, saved("0000005"), in_steps=True)) == 4


def test_a_divergence_lowers_every_rate_and_says_so():
    move = next_move(LADDER, SETTINGS, died("diverged"))
    assert (move.settings["rate"], move.rate_factor, move.stretch) == (0.1, 0.25, 1.0)
    assert move.why == "after diverged, try 1 of 2: the learning rate times 0.25"


RESCALE = Rescale(batch="batch", linear=("rate",), inverse=("length", "drop"), source="x")


def test_rate_and_what_is_left_of_the_schedule_follow_a_smaller_batch():
    before = {**SETTINGS, "length": 1000, "drop": 100}
    move = followed(next_move(LADDER, before, died("gpu-oom")), before, RESCALE, done=200)
    assert move.settings == {**before, "batch": 4, "rate": 0.2, "length": 1800, "drop": 100}
    assert (move.rate_factor, move.stretch) == (0.5, 2.0)


def test_nothing_follows_where_the_batch_stays_or_the_step_has_set_it():
    before = {**SETTINGS, "length": 1000}
    stays = Move({**before, "side": 600}, "x")
    assert followed(stays, before, RESCALE, done=200) == stays
    assert followed(Move({**before, "batch": 4}, "x"), before, None, done=0).rate_factor == 1
    own = followed(Move({**before, "batch": 4, "rate": 0.3}, "x"), before, RESCALE, done=0)
    assert (own.settings["rate"], own.settings["length"]) == (0.3, 2000)


def test_divergences_are_counted_whatever_came_between():
    assert next_move(LADDER, SETTINGS, died("diverged", "crash", "diverged")) is not None
    assert next_move(LADDER, SETTINGS, died("diverged", "crash", "diverged", "diverged")) is None


def test_deaths_without_a_new_checkpoint_are_counted_in_a_row():
    assert next_move(LADDER, SETTINGS, died("crash", "crash")).why == "after crash, try 2 of 2"
    assert next_move(LADDER, SETTINGS, died("crash", "crash", "crash")) is None
    later = [*died("crash", "crash"), *died("crash", checkpoint="step-9")]
    assert next_move(LADDER, SETTINGS, later).why == "after crash, try 1 of 2"


@pytest.mark.parametrize("reason", ["data", "hang", "check-failed", "engine-lost", "open-files"])
def test_what_the_recipe_does_not_name_ends_the_run(reason):
    assert next_move(LADDER, SETTINGS, died(reason)) is None


def test_what_is_remembered_are_the_settings_of_the_memory_steps():
    assert memory_settings(LADDER) == ("batch", "side")
