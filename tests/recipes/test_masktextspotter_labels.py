"""Ground truth as people write it: hand-written lines, and what upstream would make of each."""

from __future__ import annotations

import importlib
import sys

import pytest

from envforge import assets

FILES = assets.RECIPES / "masktextspotter-train" / "files"
QUAD = "10,10,50,10,50,30,10,30"
C, FIVE = "12,12,20,12,20,28,12,28,c", "22,12,30,12,30,28,22,28,5"


@pytest.fixture(scope="module")
def labels():
    sys.path.insert(0, str(FILES))
    try:
        yield importlib.import_module("labels")
    finally:
        sys.path.remove(str(FILES))
        del sys.modules["labels"]


@pytest.mark.parametrize("form", ["icdar", "grouped"])
def test_a_word_with_characters_is_read_as_a_word_and_its_characters(labels, form):
    word = labels.parse(f"{QUAD},c5,{C},{FIVE}\n", form)
    assert word.text == "c5"
    assert [char for _, char in word.characters] == ["c", "5"]
    assert word.characters[0][0] == ["12", "12", "20", "12", "20", "28", "12", "28"]


@pytest.mark.parametrize(
    ("line", "text", "chars"),
    [
        (f"{QUAD},$5,000", "$5,000", []),
        (f"{QUAD},$5,000,{FIVE}", "$5,000", ["5"]),
        (f"{QUAD},a,b,{C}", "a,b", ["c"]),
        (f"{QUAD},x,1,1,2,1,2,2,1,2,,", "x", [","]),
        (f"{QUAD},x,1,1,2,1,2,2,1,2,,,{C}", "x", [",", "c"]),
        (f"{QUAD},1978", "1978", []),
        (f"{QUAD},1,2,3", "1,2,3", []),
        (f"{QUAD},", "", []),
        (f"\ufeff{QUAD},first", "first", []),
        ("-1,-2.5,50.0,1e1,50,30,10,30,edge", "edge", []),
        ("10, 10, 50, 10, 50, 30, 10, 30, spaced", " spaced", []),
        (f"{QUAD},###", "###", []),
    ],
)
def test_the_transcription_is_what_lies_between_the_corners_and_the_characters(
    labels, line, text, chars
):
    word = labels.parse(line, "icdar")
    assert (word.text, [char for _, char in word.characters]) == (text, chars)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "a blank line: upstream stops with ValueError"),
        ("  \n", "a blank line: upstream stops with ValueError"),
        ("10,10,50,10,50,30,10,30", "not eight numbers and a transcription: upstream stops"),
        ("10,10,50,10,50,30,10,nan,word", "not eight numbers and a transcription: upstream stops"),
        ("word", "not eight numbers and a transcription: upstream stops"),
    ],
)
def test_a_line_that_is_no_ground_truth_is_refused_with_the_reason(labels, line, reason):
    with pytest.raises(labels.Unreadable) as caught:
        labels.parse(line, "grouped")
    assert str(caught.value) == reason


def test_a_polygon_has_any_number_of_corners_and_its_word_may_hold_commas(labels):
    corners = "1,2,3,4,5,6,7,8,9,10"
    assert labels.parse(f"{corners},STORE", "polygon").text == "STORE"
    assert labels.parse(f"{corners},5,000", "polygon").text == "5,000"
    assert labels.parse(f"{corners},1978", "polygon").box() == (1, 2, 9, 10)
    with pytest.raises(labels.Unreadable, match="not six or more numbers and a transcription"):
        labels.parse("1,2,3,4,WORD", "polygon")


def test_what_upstream_would_misread_is_said(labels):
    def said(line, form="grouped"):
        return list(labels.faults(labels.parse(line, form), form))

    assert said(f"{QUAD},c5,{C},{FIVE}") == []
    assert said(f"{QUAD},###,1,1,2,1,2,2,1,2,!") == []
    assert said(f"{QUAD},a,b") == ["a comma in 'a,b': upstream reads the rest as coordinates"]
    assert said(f"{QUAD},a,b", "icdar") == []
    assert said(f"{QUAD},x!,{C},1,1,2,1,2,2,1,2,!") == [
        "character '!' is none of 0-9 a-z: upstream stops or learns another"
    ]
    # 'ab' stands in 0-9a-z: upstream's search finds it there and teaches an 'a'
    assert said(f"{QUAD},ab,1,1,2,1,2,2,1,2,ab") == [
        "character 'ab' is none of 0-9 a-z: upstream stops or learns another"
    ]
    assert said(f"{QUAD},") == [
        "an empty transcription: upstream takes it for an image without words"
    ]


@pytest.mark.parametrize(
    ("line", "form", "mended"),
    [
        (f"{QUAD},c5,{C},{FIVE}", "grouped", f"{QUAD},c5,{C},{FIVE}"),
        (f"{QUAD},5,0!,{FIVE},1,1,2,1,2,2,1,2,!", "grouped", f"{QUAD},50!,{FIVE}"),
        (f"{QUAD},!,1,1,2,1,2,2,1,2,!", "grouped", f"{QUAD},###"),
        (f"{QUAD},,", "grouped", f"{QUAD},###"),
        (f"{QUAD},$5,000", "icdar", f"{QUAD},$5,000"),
        ("1,2,3,4,5,6,5,000", "polygon", "1,2,3,4,5,6,5000"),
    ],
)
def test_a_mended_word_keeps_what_can_be_learned(labels, line, form, mended):
    word = labels.mend(labels.parse(line, form), form)
    assert str(word) == mended
    assert list(labels.faults(labels.parse(mended, form), form)) == []
