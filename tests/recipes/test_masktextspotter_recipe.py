"""What MaskTextSpotter's recipes come to: tiers, schedules, and upstream's own lines."""

from __future__ import annotations

import re

import pytest

from envforge.recipes import load_recipe
from envforge.recipes.difference import differences
from envforge.recipes.setting import settle

# Bytes of a run of 7109132 on torch 1.0.1, shortened nowhere.
PROGRESS = (
    "2026-11-22 19:08:15,835 maskrcnn_benchmark.trainer INFO: eta: 0:00:04  iter: 40  "
    "loss: 9.6399 (27.2620)  loss_classifier: 0.2020 (0.4053)  loss_box_reg: 0.5168 (0.4925)  "
    "loss_mask: 0.8946 (9.3196)  loss_char_mask: 3.3712 (11.6949)  loss_seq: 3.9363 (4.6367)  "
    "loss_objectness: 0.4249 (0.5157)  loss_rpn_box_reg: 0.1138 (0.1973)  "
    "time: 3.9437 (4.4738)  data: 0.0045 (0.0055)  lr: 0.000086  max mem: 0"
)
DAYS = PROGRESS.replace("eta: 0:00:04", "eta: 1 day, 3:04:05")
NAN = PROGRESS.replace("loss: 9.6399 (27.2620)", "loss: 9.6399 (nan)")
SAVING = (
    "2026-11-22 19:08:15,838 maskrcnn_benchmark.utils.checkpoint INFO: "
    "Saving checkpoint to /runs/one/checkpoints/model_0000040.pth"
)
RESUMED = (
    "2026-11-22 19:20:33,149 maskrcnn_benchmark.utils.checkpoint INFO: "
    "Loading scheduler from /runs/one/checkpoints/model_0000002.pth"
)
DONE = (
    "2026-11-22 19:08:16,217 maskrcnn_benchmark.trainer INFO: "
    "Total training time: 0:03:03.807548 (4.4831 s / it)"
)
BAR = "\r0it [00:00, ?it/s]\r1it [00:01,  1.67s/it]\r4it [00:05,  1.36s/it]"
FOUND = (
    "428,402,537,427,436,409,521,396,525,418,440,432,ggfggffaffaa0aaf77777x7777xxxxxxxrbqx777xazxrrxx"
    "7x77z7zcxbr7xxxzacg,,0.8959576487541199,0.037782516,0.04931681603193283,/tmp/r/words/results/"
    "inference/icdar_2013_test/weights_450_results/res_img_3_0.pkl"
)
LABELS = ("train", "finetune", "test")


def recipe(name="train"):
    return load_recipe(f"masktextspotter-{name}").recipe


def settled(asked=None, memory_mib=None, name="train", **more):
    return settle(recipe(name), {}, asked or {}, memory_mib, **more).values


@pytest.mark.parametrize(
    ("line", "points", "words"),
    [
        (
            "38,43,920,215,38,43,920,43,920,215,38,215,2013,TIREDNESS,0.9987,0.8,0.97,/r/res_1_0.pkl",
            "38,43,920,43,920,215,38,215",
            ("TIREDNESS", "0.99"),
        ),
        (
            "1,2,30,40;1,2,9,2,30,20,30,40,9,40;7,7,0.5,0.0,0.4,/r/res_2_0.pkl",
            "1,2,9,2,30,20,30,40,9,40",
            ("7", "0.5"),
        ),
        (  # of a run on an H200 with hardly trained weights
            FOUND,
            "436,409,521,396,525,418,440,432",
            ("", "0.89"),
        ),
    ],
)
def test_the_words_a_test_has_found_are_read_from_upstreams_files(line, points, words):
    """As maskrcnn_benchmark/engine/text_inference.py writes them, for icdar and for total_text."""
    found = re.search(recipe("test").boxes.line, line)
    assert (found["points"], (found["words"], found["score"])) == (points, words)


@pytest.mark.parametrize("variant", ["2021-01", "modern", "2019-10"])
def test_without_a_tier_only_the_weights_to_begin_with_are_not_upstreams(variant):
    found = settle(recipe(), {}, {})
    rows = differences(recipe(), recipe().variants[variant].overrides, found)
    assert [(row.setting, row.ours) for row in rows] == [
        ("MODEL.WEIGHT", "catalog://ImageNetPretrained/MSRA/R-50")
    ]


def test_four_gib_see_the_same_images_one_at_a_time_in_2_4_million_steps():
    values = settled(memory_mib=4096)
    assert (values["ims_per_batch"], values["base_lr"], values["mask_batch"]) == (1, 0.0015, 8)
    assert values["workers"] == 0
    assert values["max_iter"] == 2_400_000
    assert (values["first_drop"], values["second_drop"]) == (800_000, 1_280_000)
    assert values["warmup_iters"] == 4000


def test_the_short_schedule_keeps_upstreams_number_of_steps():
    values = settled({"preset": "short"}, 4096)
    assert (values["max_iter"], values["first_drop"]) == (300_000, 100_000)


def test_the_first_implementations_schedule_follows_the_batch_of_a_small_card():
    values = settled({"preset": "caffe2"})
    names = ("ims_per_batch", "base_lr", "max_iter", "first_drop", "mask_batch")
    assert tuple(values[name] for name in names) == (2, 0.005, 200_000, 120_000, 16)
    small = settled({"preset": "caffe2"}, 4096)
    assert (small["ims_per_batch"], small["max_iter"]) == (1, 400_000)


def test_a_demo_is_short_and_begins_with_no_weights():
    values = settled(demo=True)
    assert (values["initial"], values["max_iter"], values["ims_per_batch"]) == ("", 11, 1)


def test_every_tier_leaves_a_tenth_of_the_card():
    for tier in recipe().tiers:
        (row,) = tier.measured
        assert row.allocated_mib <= row.reserved_mib <= 0.9 * 1024 * int(tier.memory[:-3])


@pytest.mark.parametrize("variant", ["2021-01", "modern", "2019-10"])
def test_upstreams_lines_are_read(variant):
    log = recipe().variants[variant].log
    found = re.search(log.progress, PROGRESS)
    assert found.group("step", "seconds", "memory") == ("40", "3.9437", "0")
    losses = [m.groupdict() for m in re.finditer(log.loss, found["losses"])]
    assert losses[0] == {"name": "loss", "value": "9.6399", "average": "27.2620"}
    assert [each["name"] for each in losses[1:]] == [
        "loss_classifier",
        "loss_box_reg",
        "loss_mask",
        "loss_char_mask",
        "loss_seq",
        "loss_objectness",
        "loss_rpn_box_reg",
    ]
    assert re.search(log.progress, DAYS)["step"] == "40"
    assert re.search(log.loss, re.search(log.progress, NAN)["losses"])["average"] == "nan"
    assert re.search(log.checkpoint, SAVING)["number"] == "0000040"
    assert re.search(log.resumed, RESUMED)["step"] == "0000002"
    assert re.search(recipe().variants[variant].success.line, DONE)
    for line in (SAVING, RESUMED, DONE):
        assert re.search(log.progress, line) is None


def test_the_bar_of_a_test_is_read_at_its_end():
    log = recipe("test").variants["modern"].log
    assert re.search(log.progress, BAR)["step"] == "4"


@pytest.mark.parametrize("name", LABELS)
def test_every_variant_pins_the_packages_it_imports(name):
    loaded = load_recipe(f"masktextspotter-{name}")
    for variant in loaded.recipe.variants.values():
        assert (loaded.shared / variant.packages).is_file()
        assert variant.imports == ("maskrcnn_benchmark.config",)


def test_one_gpu_is_trained_on_without_the_launcher_that_hides_deaths():
    for name in ("train", "finetune"):
        for variant in recipe(name).variants.values():
            assert variant.command[1] == "{checkout}/tools/train_net.py"
            assert "--skip-test" in variant.command
