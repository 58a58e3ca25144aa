from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envforge.errors import UnknownName, UsageError
from envforge.recipes import fill, load_recipe, settle
from envforge.recipes.document import Parameter
from envforge.recipes.setting import read_setting

CANARY = load_recipe("canary").recipe
WORD = Parameter(kind="word", default="a", help="x")
NUMBER = Parameter(kind="number", default="0.1", help="x", minimum=0)
INTEGER = Parameter(kind="integer", default=1, help="x", minimum=1, maximum=9)
CHOICE = Parameter(kind="word", default="a", help="x", choices=("a", "b"))


def test_what_is_asked_now_beats_what_was_and_that_beats_the_default():
    earlier = {"steps": 20, "seed": 2, "gone": 1}
    settled = settle(CANARY, earlier, {"steps": "30", "log-every": "1"}).values
    assert (settled["steps"], settled["seed"], settled["log_every"]) == (30, 2, 1)
    assert settled["batch_size"] == 4
    assert "gone" not in settled


def test_an_unknown_setting_is_answered_with_near_ones():
    with pytest.raises(UnknownName) as caught:
        settle(CANARY, {}, {"step": "3"})
    assert caught.value.what == "unknown setting: 'step'"
    assert caught.value.near == ("steps",)
    assert caught.value.hint.startswith("canary has: steps, batch_size")


@pytest.mark.parametrize(
    ("parameter", "text", "message"),
    [
        (INTEGER, "0", "x must be at least 1, got 0"),
        (INTEGER, "10", "x must be at most 9, got 10"),
        (INTEGER, "3.0", "x must be an integer, got '3.0'"),
        (INTEGER, "1_0", "x must be an integer, got '1_0'"),
        (INTEGER, "9" * 400, f"x must be an integer, got '{'9' * 400}'"),
        (NUMBER, "nan", "x must be a number, got 'nan'"),
        (NUMBER, "-1", "x must be at least 0, got -1"),
        (WORD, "a b", "x must be a word, got 'a b'"),
        (WORD, "1.0.1; rm -rf /", "x must be a word, got '1.0.1; rm -rf /'"),
        (WORD, "$(id)", "x must be a word, got '$(id)'"),
        (WORD, "a\n", "x must be a word, got 'a\\n'"),
        (CHOICE, "c", "x must be one of a, b, got 'c'"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused_in_words(parameter, text, message):
    with pytest.raises(UsageError) as caught:
        read_setting("x", parameter, text)
    assert caught.value.what == message


def test_values_of_the_right_form_are_read():
    assert read_setting("x", INTEGER, "9") == 9
    assert read_setting("x", NUMBER, "2e-4") == 0.0002
    assert read_setting("x", WORD, "a/b-c.d") == "a/b-c.d"
    assert read_setting("x", CHOICE, "b") == "b"


@given(st.text())
def test_no_text_whatsoever_does_more_than_be_refused(text):
    for parameter in (INTEGER, NUMBER, WORD, CHOICE):
        try:
            read_setting("x", parameter, text)
        except UsageError:
            continue


def test_a_value_is_not_looked_into_for_placeholders():
    assert fill(("{python}", "{a}={b}"), {"python": "p", "a": "{b}", "b": 3}) == ("p", "{b}=3")
