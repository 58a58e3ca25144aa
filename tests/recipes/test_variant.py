from __future__ import annotations

import pytest

from envforge.errors import HostMismatch, UnknownName
from envforge.recipes import choose, load_recipe, variant_for
from envforge.recipes.variant import refuse_unfit, release_of, runs_on

WHOLE = load_recipe("pix2pix-train").recipe


@pytest.mark.parametrize(
    ("torch", "python", "variant"),
    [
        ("2.13.0+cpu", "3.11.7", "2025-08"),
        ("1.13.0a0+git1", "3.11.2", "2025-08"),
        ("1.0.1", "3.7.16", "2019-11"),
        ("1.0.1.post2", "2.7.18", "2017-11"),
        ("0.4.0", "3.6.15", "2017-11"),
        ("1.0.1", "", "2019-11"),
    ],
)
def test_the_first_variant_that_runs_on_torch_and_python_is_taken(torch, python, variant):
    assert variant_for(WHOLE, torch, python) == variant


def test_where_none_runs_every_variants_ranges_are_named():
    with pytest.raises(HostMismatch) as caught:
        variant_for(WHOLE, "0.3.1", "2.7.18")
    assert caught.value.what == "no variant of pix2pix-train runs on torch 0.3.1 with Python 2.7.18"
    assert caught.value.hint.startswith("envforge build --torch '>=1.13,<2.16' --gpu CARD")
    assert caught.value.because == (
        "2025-08 runs on torch >=1.13,<2.16",
        "2019-11 runs on torch >=0.4.1,<2.16 with Python >=3.4,<3.15",
        "2017-11 runs on torch >=0.4,<2",
    )


def test_a_variant_that_was_asked_for_and_does_not_run_here_is_refused():
    with pytest.raises(HostMismatch) as caught:
        refuse_unfit(WHOLE, "2019-11", "1.0.1", "2.7.18")
    assert caught.value.because == ("this is torch 1.0.1 with Python 2.7.18",)


def test_a_recipe_without_variants_is_its_own():
    canary = load_recipe("canary").recipe
    assert variant_for(canary, "1.0.1") == ""
    assert choose(canary, "") is canary
    with pytest.raises(UnknownName) as caught:
        choose(canary, "2019-11")
    assert caught.value.hint == "canary has: no variants"


def test_a_variants_own_values_win_over_the_recipes():
    chosen = choose(WHOLE, "2017-11")
    assert chosen.torch == ">=0.4,<2"
    assert chosen.log.epoch_size == r"^#training images = (?P<items>\d+)"
    assert chosen.success == WHOLE.success


@pytest.mark.parametrize(
    ("torch", "release"),
    [("1.0.1.post2", "1.0.1"), ("2.13.0+cpu", "2.13.0"), ("1.13.0a0", "1.13.0"), ("x", None)],
)
def test_a_release_is_read_out_of_what_torch_calls_itself(torch, release):
    assert release_of(torch) == release
    assert runs_on(">=0.4,<3", torch) is (release is not None)
