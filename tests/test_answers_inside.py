"""What an image is asked when it is verified: words that an engine lost are asked for again."""

from __future__ import annotations

import pytest

from envforge.errors import VerificationFailed
from envforge.image import verify
from envforge.image.engine import Answer

SILENT, WORDS = Answer(0, "", ""), Answer(0, "", "Python 2.7.18\n")


class FakeContainer:
    """Loses words as a busy engine does, which cannot be staged: moby/moby#27289."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def exec(self, argv):
        return self.answers.pop(0)


def ask(*answers):
    container = FakeContainer(*answers)
    subject = verify._Subject(None, None, container, None, {})
    return verify._ask(subject, "python2.7", "--version"), container.answers


def test_a_question_is_asked_again_where_its_answer_was_lost():
    assert ask(SILENT, SILENT, WORDS, WORDS) == (WORDS, [WORDS])


def test_an_image_that_never_answers_fails_its_verification():
    with pytest.raises(VerificationFailed) as caught:
        ask(SILENT, SILENT, SILENT)
    assert str(caught.value) == "python2.7 said nothing inside the image"


def test_a_question_that_fails_is_not_asked_again():
    with pytest.raises(VerificationFailed) as caught:
        ask(Answer(127, "", "not found"), WORDS)
    assert str(caught.value) == "python2.7 ended with 127 inside the image"
    assert caught.value.because == ("not found",)
