from __future__ import annotations

import pytest

from envforge.errors import UnknownName, UsageError
from envforge.recipes import choose, load_recipe, settle
from envforge.recipes.difference import differences, duration, override_words, shorter_than
from envforge.recipes.memory import parse_memory_mib, tier_for

WHOLE = load_recipe("pix2pix-train").recipe
SPOTTER = load_recipe("masktextspotter-train").recipe


def rows(variant, **asked):
    recipe = choose(WHOLE, variant)
    settled = settle(recipe, {}, asked)
    found = differences(recipe, recipe.variants[variant].overrides, settled)
    return {row.setting: (row.upstream, row.ours, row.why) for row in found}


def test_only_what_differs_from_upstream_is_listed_with_the_reason():
    assert rows("2019-11") == {
        "--name": ("experiment_name", "run", "the run directory has the name"),
        "--model": ("cycle_gan", "pix2pix", "this recipe's model"),
        "--display_id": ("1", "0", "no visdom server is needed"),
        "--direction": ("AtoB", "BtoA", "facades: photos of facades from their labels"),
    }


def test_a_value_that_was_asked_for_says_so():
    assert rows("2025-08", learning_rate="0.0001")["--lr"] == ("0.0002", "0.0001", "asked for")
    assert "--lr" not in rows("2025-08", learning_rate="2e-4"), "the same number, written otherwise"


def test_overrides_become_words_and_a_flag_stands_alone():
    recipe = choose(WHOLE, "2017-11")
    words = override_words(recipe.variants["2017-11"].overrides, settle(recipe, {}, {}).values)
    assert words[words.index("--no_lsgan") + 1] == "--display_id"
    assert words[words.index("--lambda_A") + 1] == "100.0"


@pytest.mark.parametrize(
    ("text", "mib"),
    [("4GiB", 4096), ("4G", 4096), ("4", 4096), ("3500MiB", 3500), ("1.5GiB", 1536)],
)
def test_sizes_of_memory(text, mib):
    assert parse_memory_mib(text) == mib


@pytest.mark.parametrize("text", ["", "0", "-1", "4TB", "much", "1" * 400, "0." + "1" * 400])
def test_what_is_no_size_of_memory_is_refused(text):
    with pytest.raises(UsageError, match="is no size of memory"):
        parse_memory_mib(text)


@pytest.mark.parametrize(
    ("mib", "tier"),
    [(1024, "2GiB"), (2048, "2GiB"), (3910, "4GiB"), (4096, "4GiB"), (143155, "11GiB")],
)
def test_a_card_gets_the_largest_tier_it_has_room_for(mib, tier):
    assert tier_for(WHOLE, mib).memory == tier


def test_without_a_known_memory_upstreams_own_values_stand():
    assert tier_for(WHOLE, None) is None
    assert tier_for(load_recipe("canary").recipe, 4096) is None


def test_rate_and_schedule_follow_the_batch_together():
    batch = settle(SPOTTER, {}, {"ims_per_batch": "1"})
    assert batch.values["base_lr"] == pytest.approx(0.01 / 8)
    assert batch.values["max_iter"] == 2_400_000
    assert batch.values["warmup_iters"] == 4000
    assert batch.origins["max_iter"] == "rescaled with ims_per_batch 8 -> 1"
    length = duration(choose(SPOTTER, "2021-01"), batch.values, None, "2021-01", None)
    assert length.steps == 2_400_000


def test_what_somebody_has_set_is_not_rescaled():
    asked = settle(SPOTTER, {}, {"ims_per_batch": "1", "max_iter": "1000"}).values
    assert (asked["max_iter"], asked["warmup_iters"]) == (1000, 4000)
    same = settle(SPOTTER, {}, {"ims_per_batch": "1", "warmup_iters": "500"}).values
    assert same["warmup_iters"] == 500, "asked for, though it is the default"


def test_a_preset_that_does_not_follow_the_batch_is_offered_where_it_is_shorter():
    asked = {"ims_per_batch": "1"}
    recipe = choose(SPOTTER, "2021-01")
    length = duration(recipe, settle(SPOTTER, {}, asked).values, None, "2021-01", None)
    assert shorter_than(length, recipe, asked, None) == {"short": 300_000}
    assert shorter_than(length._replace(steps=1), recipe, asked, None) == {}


def test_what_was_rescaled_once_is_not_again_when_the_run_goes_on():
    first = settle(SPOTTER, {}, {"ims_per_batch": "1"}).values
    assert settle(SPOTTER, first, {}).values == first


def test_an_end_that_upstream_would_not_save_is_refused():
    values = settle(WHOLE, {}, {"epochs": "1", "decay_epochs": "1"}).values
    with pytest.raises(UsageError) as caught:
        duration(WHOLE, values, None, "2019-11", 8)
    assert caught.value.what == "epochs + decay_epochs is 2, no multiple of save_every 5"
    assert caught.value.hint == "--set save_every=1"


def test_the_duration_is_what_was_measured_for_the_tier():
    values = settle(WHOLE, {}, {}, 4096).values
    length = duration(WHOLE, values, tier_for(WHOLE, 4096), "2019-11", 400)
    assert (length.epochs, length.steps, length.card) == (200, 80_000, "an H200")
    assert length.seconds == pytest.approx(80_000 * 0.0185)
    assert duration(WHOLE, values, tier_for(WHOLE, 3072), "2019-11", 400).seconds is None


@pytest.mark.parametrize("kind", ["variant", "preset", "dataset"])
def test_an_unknown_part_of_the_recipe_is_answered_with_those_there_are(kind):
    with pytest.raises(UnknownName) as caught:
        settle(SPOTTER, {}, {kind: "nonesuch"})
    assert caught.value.what == f"unknown {kind}: 'nonesuch'"
    assert caught.value.hint.startswith("masktextspotter-train has: ")


def test_a_demo_sets_its_own_values_and_what_is_asked_for_wins():
    demo = settle(WHOLE, {}, {"epochs": "5"}, demo=True).values
    assert (demo["epochs"], demo["decay_epochs"], demo["save_every"]) == (5, 1, 1)
