"""The shipped patterns, on what the real projects have said (docs/verification/2026-11-22-pix2pix.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from envforge.recipes import choose, load_recipe
from envforge.run.job import patterns_of
from envforge.training.metrics import LogReader

CAPTURED = Path(__file__).parents[1] / "recipe/miniature/captured"
LOSSES = {"G_GAN", "G_L1", "D_real", "D_fake"}


def read(recipe, variant, lines):
    chosen = choose(load_recipe(recipe).recipe, variant)
    parts = chosen.checkpoint.parts if chosen.checkpoint else ()
    reader = LogReader(patterns_of(chosen), parts=parts)
    kinds = [reader.read(line) for line in lines]
    return reader, kinds


def starts(variant):
    """Each start's lines: the first one was killed in its second epoch."""
    text = (CAPTURED / f"{variant}.train.txt").read_bytes()
    return [part.splitlines() for part in text.split(b"# envforge: ")[1:]]


@pytest.mark.parametrize(
    ("variant", "l1"), [("2017-11", 6.828), ("2019-11", 4.657), ("2025-08", 4.428)]
)
def test_a_real_training_is_followed_over_its_epochs(variant, l1):
    killed, resumed = starts(variant)
    reader, kinds = read("pix2pix-train", variant, killed)
    assert (reader.step, reader.total, reader.success) == (12, 24, False)
    assert reader.resumed_at == 0
    assert reader.checkpoint == "checkpoints/run/1_net_G.pth"
    assert kinds.count("progress") == 6

    reader, kinds = read("pix2pix-train", variant, resumed)
    assert (reader.step, reader.total, reader.success) == (24, 24, True)
    assert reader.resumed_at == 8, "the first epoch's items are not trained on again"
    assert reader.checkpoint == "checkpoints/run/3_net_G.pth"
    assert set(reader.losses) == LOSSES
    assert not reader.bad_value
    assert reader.death is None
    assert reader.losses["G_L1"].last == l1
    assert kinds.count("progress") == 8


@pytest.mark.parametrize(("variant", "step"), [("2017-11", 2), ("2019-11", 0), ("2025-08", 0)])
def test_a_real_test_is_followed_picture_by_picture(variant, step):
    """Since 2018 it speaks of every fifth picture, before that of each, without a number."""
    lines = (CAPTURED / f"{variant}.test.txt").read_bytes().splitlines()
    reader, _ = read("pix2pix-test", variant, lines)
    assert reader.step == step


@pytest.mark.parametrize("variant", ["2017-11", "2019-11", "2025-08"])
def test_a_loss_that_is_no_number_is_seen_in_a_real_line(variant):
    killed, _ = starts(variant)
    line = next(line for line in killed if b"(epoch: 1, iters: 4" in line)
    value = line.partition(b"G_L1: ")[2].partition(b" ")[0].rstrip(b",")
    reader, _ = read("pix2pix-train", variant, [line.replace(value, b"nan")])
    assert reader.bad_value.startswith("G_L1 was nan at step ")
